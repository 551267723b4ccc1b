use std::path::{Path, PathBuf};
use std::time::Duration;

use weir_accounts::{Quotas, Tier};

use super::keys::{Kind, keys};
use super::types::Store;
use super::*;

fn llama(config: &Config, model: usize) -> &Llama {
    let EngineSection::Llama(llama) = config.models[model].engine();
    llama
}

const MODEL: &str = "[[models]]\nid = \"m\"\ninput_price = 1\noutput_price = 2\n[[models.engines]]\npath = \"m.gguf\"\n";

fn read(text: &str, variables: &[(&str, &str)]) -> Result<(Config, Vec<String>), Vec<String>> {
    let variables = variables
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    let file = (PathBuf::from("/etc/weir/weir.toml"), text.to_owned());
    let loaded = resolve(Path::new("/etc/weir"), Some(file), variables);
    let loaded = loaded.map(|loaded| (loaded.config, loaded.warnings));
    loaded.map_err(|Invalid(problems)| problems)
}

#[track_caller]
fn refused(text: &str, variables: &[(&str, &str)], expected: &[&str]) {
    assert_eq!(read(text, variables).unwrap_err(), expected);
}

#[test]
fn the_documented_shape() {
    let text = r#"
listen = "127.0.0.1:0"
data = "./data"
database = "sqlite"
[limits]
requests_per_minute = 600
concurrent_requests = 64
store = "memory"
[[models]]
id = "HuggingFaceTB/SmolLM2-135M-Instruct"
input_price = 200
output_price = 400
max_output_tokens = 4096
[[models.engines]]
kind = "llama"
path = "models/a.gguf"
"#;
    let (config, warnings) = read(text, &[]).unwrap();
    assert!(warnings.is_empty());
    assert_eq!(config.data, Path::new("/etc/weir/./data"));
    let key = Quotas {
        requests_per_minute: Some(600),
        tokens_per_minute: None,
        concurrent_requests: Some(64),
    };
    assert_eq!(config.limits.key(), key);
    assert_eq!(config.limits.store, Store::Memory);
    assert_eq!(config.limits.tier_rules(), []);
    let [model] = &config.models[..] else {
        panic!("one model")
    };
    let prices = (model.input_price, model.output_price, model.cached_price);
    assert_eq!(prices, (200, 400, None));
    assert_eq!(model.max_output_tokens, Some(4096));
    let llama = Llama::at(PathBuf::from("/etc/weir/models/a.gguf"));
    assert_eq!(*model.engine(), EngineSection::Llama(llama));
}

#[test]
fn the_file_of_the_repository() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../weir.toml");
    let (config, _) = read(&std::fs::read_to_string(path).unwrap(), &[]).unwrap();
    let ids: Vec<_> = config
        .models
        .iter()
        .map(|model| model.id.as_str())
        .collect();
    assert_eq!(
        ids,
        ["HuggingFaceTB/SmolLM2-135M-Instruct"],
        "the other is optional, and its file isn't there"
    );
}

#[test]
fn mistakes_name_their_line() {
    refused(
        "\nlisten = 8080\n",
        &[],
        &["weir.toml:2: listen must be an address with a port, as 127.0.0.1:8080, not 8080"],
    );
    refused(
        "listen = \"localhost\"",
        &[],
        &["weir.toml:1: listen must be an address with a port, as 127.0.0.1:8080, not `localhost`"],
    );
    refused(
        "\n[limits]\nrequest_per_minute = 5\n",
        &[],
        &[
            "weir.toml:3: unknown key `request_per_minute`; allowed here: requests_per_minute, tokens_per_minute, concurrent_requests, store, store_timeout_ms, on_failure, tiers",
        ],
    );
    refused(
        "port = 1",
        &[],
        &[
            "weir.toml:1: unknown key `port`; allowed here: listen, data, database, demo, postgres, node, limits, models, webhooks, http, usage, shutdown, log, cors",
        ],
    );
    refused(
        "[limits]\nconcurrent_requests = 0",
        &[],
        &[
            "weir.toml:2: limits.concurrent_requests must be a whole number from 1 to 1000000, not 0",
        ],
    );
    refused(
        "[limits]\nconcurrent_requests = 1.5",
        &[],
        &[
            "weir.toml:2: limits.concurrent_requests must be a whole number from 1 to 1000000, not 1.5",
        ],
    );
    refused(
        "[limits]\nconcurrent_requests = \"8\"",
        &[],
        &[
            "weir.toml:2: limits.concurrent_requests must be a whole number from 1 to 1000000, not `8`",
        ],
    );
    refused(
        "limits = 3",
        &[],
        &["weir.toml:1: limits must be a table: [limits]"],
    );
    refused(
        "models = 3",
        &[],
        &["weir.toml:1: models must be a list of tables: [[models]]"],
    );
    refused(
        "[models]\nid = \"m\"",
        &[],
        &["weir.toml:1: models must be a list of tables: [[models]]"],
    );
    refused(
        "data = \"\"",
        &[],
        &["weir.toml:1: data must be a path, not ``"],
    );
    let filter = read("[log]\nfilter = \"weir=loud\"", &[]).unwrap_err();
    assert!(
        filter[0].starts_with("weir.toml:2: log.filter: `weir=loud`: "),
        "{filter:?}"
    );
    refused(
        "[cors]\norigins = [\"example.com\"]",
        &[],
        &[
            "weir.toml:2: cors.origins must be a list of origins, as [\"https://example.com\"], not `example.com`",
        ],
    );
    for (database, said) in [
        (
            "postgres://weir:secret@db:secret/weir",
            "database: it is no address: invalid port number",
        ),
        (
            "mysql://weir:secret@db/weir",
            r#"database must be "sqlite" or postgres://… or postgresql://…, not something else"#,
        ),
    ] {
        let text = format!("database = \"{database}\"");
        refused(&text, &[], &[&format!("weir.toml:1: {said}")]);
    }
    for (store, said) in [
        (
            "http://h/secret",
            r#"limits.store must be "memory" or redis://… or rediss://… or valkey://… or valkeys://… or unix://…, not something else"#,
        ),
        (
            "redis://u:secret@h:port",
            "limits.store: it is no address of a store, as redis://host:6379/0",
        ),
    ] {
        let text = format!("[limits]\nstore = \"{store}\"");
        refused(&text, &[], &[&format!("weir.toml:2: {said}")]);
    }
    let two = read("a = 1\nb = 2\n", &[]).unwrap_err();
    assert_eq!(two.len(), 2, "all problems at once: {two:?}");
    let syntax = read("listen = \n", &[]).unwrap_err();
    assert!(syntax[0].starts_with("weir.toml:1: "), "{syntax:?}");
    let twice = read("data = \"a\"\ndata = \"b\"\n", &[]).unwrap_err();
    assert!(twice[0].starts_with("weir.toml:2: "), "{twice:?}");
}

#[test]
fn tiers_go_up() {
    let tier = |name: &str, more: &str| format!("[[limits.tiers]]\nname = \"{name}\"\n{more}");
    let three = [
        tier("T1", "requests_per_minute = 30\n"),
        tier("T2", ""),
        tier("T5", "top_up = 600000\n"),
    ];
    let (config, _) = read(&three.concat(), &[]).unwrap();
    let rules = config.limits.tier_rules();
    let tiers: Vec<_> = rules
        .iter()
        .map(|rule| (rule.tier, rule.top_up.to_string()))
        .collect();
    let expected = [(Tier::T1, "0"), (Tier::T2, "50.0001"), (Tier::T5, "60")];
    let expected = expected.map(|(tier, usd)| {
        let nanos: weir_accounts::Nanos = usd.parse().unwrap();
        (tier, nanos.to_string())
    });
    assert_eq!(tiers, expected);
    assert_eq!(rules[0].quotas.requests_per_minute, Some(30));

    refused(
        &[tier("T2", ""), tier("T1", "")].concat(),
        &[],
        &["weir.toml:3: tiers go from low to high: T1 after T2"],
    );
    refused(
        &[tier("T2", ""), tier("T3", "top_up = 500001\n")].concat(),
        &[],
        &["weir.toml:3: the top_up of T3 must be more than that of T2"],
    );
    refused(
        "[[limits.tiers]]\ntop_up = 1\n",
        &[],
        &["weir.toml:1: limits.tiers[0] has no name; it needs T1, T2, T3, T4 or T5"],
    );
}

#[test]
fn the_address_of_a_store_is_not_shown() {
    let text = "[limits]\nstore = \"redis://u:secret@h:1/0\"";
    let (config, _) = read(text, &[]).unwrap();
    assert!(!format!("{config:?}").contains("secret"));
    let url = "redis://u:secret@h:1/0".to_owned();
    assert_eq!(config.limits.store, Store::Shared(url));
}

#[test]
fn a_postgres_is_an_address_and_its_password_is_not_shown() {
    let text = "database = \"postgres://weir:c4nary@db/weir\"\n[postgres]\ntimeout_seconds = 2\n";
    let (config, _) = read(&format!("{text}\n{MODEL}"), &[]).unwrap();
    let Database::Postgres(url) = &config.database else {
        panic!("{config:?}")
    };
    assert_eq!(url.to_string(), "postgres://weir@db:5432/weir");
    assert_eq!(config.postgres.timeout(), Duration::from_secs(2));
    assert!(!format!("{config:?}").contains("c4nary"));
    let variables = [
        ("WEIR_DATABASE", "sqlite"),
        ("WEIR_NODE_SILENCE_SECONDS", "60"),
    ];
    let (config, _) = read(&format!("{text}\n{MODEL}"), &variables).unwrap();
    assert_eq!(config.database, Database::Sqlite);
    assert_eq!(config.node.silence(), Duration::from_secs(60));
}

const SECRET: &str = "\"whsec_c4naryc4naryc4naryc4naryc4naryc4nary\"";

/// A webhook with these keys added or replaced.
fn hook(other: &[(&str, &str)]) -> String {
    let usual = [
        ("name", "\"w\""),
        ("url", "\"https://a.example/c4nary\""),
        ("secret", SECRET),
    ];
    let kept = usual
        .iter()
        .filter(|(name, _)| other.iter().all(|(changed, _)| name != changed));
    let lines = kept.chain(other).map(|(name, value)| match *value {
        "" => String::new(),
        value => format!("{name}={value}\n"),
    });
    format!("[[webhooks]]\n{}", lines.collect::<String>())
}

#[test]
fn a_webhook_is_signed_and_keeps_its_secrets() {
    let (config, _) = read(&hook(&[]), &[]).unwrap();
    let [webhook] = &config.webhooks()[..] else {
        panic!("one webhook")
    };
    assert_eq!((&*webhook.name, webhook.allow_private), ("w", false));
    assert_eq!(webhook.kinds, weir_accounts::EventKind::ALL);
    assert_eq!(webhook.give_up_after, Duration::from_secs(72 * 3600));
    let shown = format!("{config:?}");
    assert!(!shown.contains("c4nary"), "{shown}");
    let names = weir_accounts::EventKind::ALL.map(weir_accounts::EventKind::name);
    let words = Kind::List(names.map(str::to_owned).to_vec());
    assert_eq!(keys::find("webhooks[].events").unwrap().kind, words);

    let check = |other: &[(&str, &str)], words: &str| {
        let problems = read(&hook(other), &[]).unwrap_err();
        assert_eq!(problems.len(), 1, "{problems:?}");
        assert!(problems[0].starts_with("weir.toml:"), "{problems:?}");
        assert!(problems[0].contains(words), "{problems:?}");
        assert!(!problems[0].contains("c4nary"), "{problems:?}");
    };
    check(&[("secret", "")], "weir.toml:1: webhooks[0] has no secret");
    check(&[("secret", "\"\"")], "webhooks[].secret must be whsec_");
    check(
        &[("secret", "\"c4nary\"")],
        "webhooks[].secret: it must be whsec_",
    );
    check(&[("secret", "12345")], "not something else");
    check(&[("secret", "1.5")], "not something else");
    check(
        &[("url", "\"ftp://c4nary/\"")],
        "webhooks[].url: it must begin with https://",
    );
    check(&[("url", "\"http://u:c4nary@h/\"")], "a user or a password");
    check(&[("url", "\"http://0x7f.1/c4nary\"")], "more than one way");
    check(&[("url", "'http://h\\c4nary'")], "no backslash");
    check(&[("name", "\"two words\"")], "letters, digits");
    check(&[("events", "[\"balance.lo\"]")], "not `balance.lo`");
    check(&[("events", "[]")], "a list of some of");
    check(&[("timeout_seconds", "0")], "from 1 to 60");
    let two = [hook(&[]), hook(&[])].concat();
    refused(&two, &[], &["weir.toml:6: there is a webhook `w` already"]);
    let many: String = (0..17)
        .map(|n| hook(&[("name", &format!("\"w{n}\""))]))
        .collect();
    refused(
        &many,
        &[],
        &["weir.toml:65: there may be 16 webhooks, not 17"],
    );

    let bare = hook(&[("secret", "")]);
    let variables = [
        ("WEIR_WEBHOOKS_0_SECRET", SECRET.trim_matches('"')),
        ("WEIR_WEBHOOKS_0_EVENTS", "key.created, balance.low"),
    ];
    let (config, _) = read(&bare, &variables).unwrap();
    let kinds = [
        weir_accounts::EventKind::BalanceLow,
        weir_accounts::EventKind::KeyCreated,
    ];
    assert_eq!(config.webhooks()[0].kinds, kinds);
}

#[test]
fn models_are_whole_or_refused() {
    let free = MODEL.replace("input_price = 1", "input_price = 0");
    assert_eq!(read(&free, &[]).unwrap().0.models[0].input_price, 0);
    let price = "weir.toml:1: models[0] has no output_price; it needs a price (0 if it is free)";
    refused(&MODEL.replace("output_price = 2\n", ""), &[], &[price]);
    refused(
        &MODEL.replace("id = \"m\"\n", ""),
        &[],
        &["weir.toml:1: models[0] has no id; it needs a name"],
    );
    refused(
        &MODEL.replace("path = \"m.gguf\"\n", ""),
        &[],
        &["weir.toml:5: models[0].engines[0] has no path; it needs a GGUF file"],
    );
    refused(
        &MODEL[..MODEL.find("[[models.engines").unwrap()],
        &[],
        &["weir.toml:1: models[0] has no engine: add [[models.engines]] with a path"],
    );
    refused(
        &format!("{MODEL}{MODEL}"),
        &[],
        &["weir.toml:8: there is a model `m` already"],
    );
    refused(
        &MODEL.replace("id =", "cached_price = 2\nid ="),
        &[],
        &["weir.toml:2: cached_price must be at most input_price"],
    );
    refused(
        &format!("{MODEL}[[models.engines]]\npath = \"b\"\n"),
        &[],
        &["weir.toml:7: several engines of a model are not supported in this version"],
    );
}

#[test]
fn the_environment_wins_over_the_file() {
    let with =
        |variables: &[(&str, &str)]| read(&format!("listen = \"127.0.0.1:1\"\n{MODEL}"), variables);
    let (config, warnings) = with(&[
        ("WEIR_LISTEN", "[::1]:0"),
        ("WEIR_LIMITS_REQUESTS_PER_MINUTE", "7"),
        ("WEIR_MODELS_0_INPUT_PRICE", "9"),
        ("WEIR_MODELS_0_ENGINES_0_THREADS", "3"),
        ("WEIR_CORS_ORIGINS", "https://a.example, https://b.example"),
        ("WEIR_LOG", "debug"),
        ("WEIR_API_KEY", "sk_x"),
        ("WEIR_SERVICE_HOST", "10.0.0.1"),
        ("PATH", "/bin"),
    ])
    .unwrap();
    assert_eq!(config.listen, "[::1]:0".parse().unwrap());
    assert_eq!(config.limits.requests_per_minute, Some(7));
    assert_eq!(config.models[0].input_price, 9);
    assert_eq!(llama(&config, 0).threads, Some(3));
    assert_eq!(
        config.cors_origins(),
        ["https://a.example", "https://b.example"]
    );
    assert_eq!(config.log.filter.0, "debug");
    assert_eq!(
        warnings,
        ["WEIR_SERVICE_HOST is not a variable of Weir, and is ignored"]
    );

    let (config, _) = with(&[
        ("WEIR_MODELS_1_ENGINES_0_PATH", "/m/b.gguf"),
        ("WEIR_MODELS_1_ID", "b"),
        ("WEIR_MODELS_1_INPUT_PRICE", "0"),
        ("WEIR_MODELS_1_OUTPUT_PRICE", "0"),
    ])
    .unwrap();
    assert_eq!(llama(&config, 1).path, Path::new("/m/b.gguf"));

    refused(
        MODEL,
        &[("WEIR_LIMITS_REQUESTS_PER_MINUTE", "-1")],
        &[
            "WEIR_LIMITS_REQUESTS_PER_MINUTE: limits.requests_per_minute must be a whole number from 1 to 1000000, not `-1`",
        ],
    );
    refused(
        MODEL,
        &[("WEIR_MODELS_2_ID", "x")],
        &["WEIR_MODELS_2_ID: models[2] needs the entries before it, and `models` has 1"],
    );
    let bare = read("", &[("WEIR_MODELS_0_ID", "x")]).unwrap_err();
    assert_eq!(
        bare[0],
        "WEIR_MODELS_0_ID: models[0] has no input_price; it needs a price (0 if it is free)"
    );
}

/// A value of the key that isn't its default, as TOML and as an environment variable.
fn sample(key: &keys::Key) -> (String, String) {
    let quoted = |text: &str| (format!("\"{text}\""), text.to_owned());
    let bare = |text: String| (text.clone(), text);
    match (&*key.path, &key.kind) {
        ("models[].cached_price", _) => bare("0".to_owned()),
        (
            "http.body_bytes_in_flight_max" | "http.body_bytes_in_flight_per_key_max",
            Kind::Whole { max, .. },
        ) => bare(max.to_string()),
        ("listen", _) => quoted("127.0.0.1:9"),
        ("database", _) => quoted("postgres://h"),
        ("limits.store", _) => quoted("redis://h"),
        ("log.filter", _) => quoted("debug"),
        ("webhooks[].url", _) => quoted("https://b.example/"),
        ("webhooks[].secret", _) => quoted("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"),
        ("cors.origins", _) => (
            "[\"https://a.example\"]".to_owned(),
            "https://a.example".to_owned(),
        ),
        ("http.trusted_proxies", _) => (
            "[\"10.0.0.0/8\", \"::1\"]".to_owned(),
            "10.0.0.0/8,::1".to_owned(),
        ),
        (_, Kind::Whole { min, .. }) => bare((min + 3).to_string()),
        (_, Kind::Flag) => bare((key.default != Some(true.into())).to_string()),
        (_, Kind::Choice(words)) => {
            let other = words
                .iter()
                .find(|word| key.default != Some(word.as_str().into()));
            quoted(other.unwrap_or(&words[0]))
        }
        (_, Kind::List(words)) => (format!("[\"{}\"]", words[1]), words[1].clone()),
        (_, Kind::Text) => quoted("other"),
    }
}

/// Each key changes the config, and in the same way from the file and from the environment.
#[test]
fn every_key_counts() {
    let base = format!("[[limits.tiers]]\nname = \"T2\"\n{}{MODEL}", hook(&[]));
    let (before, _) = read(&base, &[]).unwrap();
    for key in keys() {
        let (toml, text) = sample(key);
        let (table, name) = key.path.rsplit_once('.').unwrap_or(("", &key.path));
        let line = format!("{name} = {toml}\n");
        let written = match table {
            "" => format!("{line}{base}"),
            "models[]" => replace_or_add(
                &base.replace("[[models]]\n", &format!("[[models]]\n{line}")),
                name,
                &line,
            ),
            "limits.tiers[]" => replace_or_add(
                &base.replace("[[limits.tiers]]\n", &format!("[[limits.tiers]]\n{line}")),
                name,
                &line,
            ),
            "webhooks[]" => base.replace(&hook(&[]), &hook(&[(name, &toml)])),
            "models[].engines[]" => replace_or_add(&format!("{base}{line}"), name, &line),
            table => format!("{base}[{table}]\n{line}"),
        };
        let from_file = read(&written, &[])
            .unwrap_or_else(|problems| panic!("{}: {problems:?}\n{written}", key.path))
            .0;
        let variable = key.variable().replace("<i>", "0").replace("<j>", "0");
        let from_environment = read(&base, &[(&variable, &text)]).unwrap().0;
        assert_eq!(from_file, from_environment, "{}", key.path);
        let single = matches!(&key.kind, Kind::Choice(words) if words.len() == 1);
        let gone = key.path == "models[].optional" && from_file.models.is_empty();
        assert!(
            single || gone || from_file != before,
            "{} changes nothing",
            key.path
        );
    }
}

/// The text with `line` in place of the line for `name`, or added.
fn replace_or_add(text: &str, name: &str, line: &str) -> String {
    let others = text
        .split_inclusive('\n')
        .filter(|other| *other == line || !other.starts_with(&format!("{name} =")));
    others.collect()
}

#[test]
fn without_a_file_it_says_what_it_assumes() {
    let directory = tempfile::tempdir().unwrap();
    let at = directory.path();
    let none = load(at, &Overrides::default(), std::iter::empty())
        .unwrap()
        .config;
    assert_eq!((none.models.len(), none.listen.port()), (0, 8080));

    std::fs::create_dir(at.join("models")).unwrap();
    for file in ["SmolLM2-135M-Instruct.Q4_1.gguf", "mine.gguf", "readme.txt"] {
        std::fs::write(at.join("models").join(file), "").unwrap();
    }
    let config = load(at, &Overrides::default(), std::iter::empty())
        .unwrap()
        .config;
    let found: Vec<_> = config
        .models
        .iter()
        .map(|model| (model.id.as_str(), model.input_price))
        .collect();
    assert_eq!(
        found,
        [("HuggingFaceTB/SmolLM2-135M-Instruct", 200), ("mine", 0)]
    );
    let Source::Assumed(said) = config.source else {
        panic!("there is no file")
    };
    assert_eq!(said.len(), 3, "{said:?}");
}

#[test]
fn the_command_line_wins() {
    let directory = tempfile::tempdir().unwrap();
    let at = directory.path();
    std::fs::create_dir(at.join("etc")).unwrap();
    std::fs::write(at.join("etc/weir.toml"), format!("data = \"d\"\n{MODEL}")).unwrap();
    let mut overrides = Overrides {
        config: Some("etc/weir.toml".into()),
        ..Overrides::default()
    };
    assert_eq!(
        load(at, &overrides, std::iter::empty())
            .unwrap()
            .config
            .data,
        at.join("etc/d")
    );
    overrides.data = Some("here".into());
    overrides.listen = Some("127.0.0.1:0".parse().unwrap());
    let config = load(at, &overrides, std::iter::empty()).unwrap().config;
    assert_eq!((config.data, config.listen.port()), (at.join("here"), 0));
    overrides.config = Some("missing.toml".into());
    assert!(
        load(at, &overrides, std::iter::empty())
            .unwrap_err()
            .to_string()
            .starts_with("can't read ")
    );
}

#[test]
fn docs_config_is_what_the_code_says() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/config.md");
    let page = reference::markdown();
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(&path, &page).unwrap();
    }
    assert!(
        std::fs::read_to_string(&path).is_ok_and(|written| written == page),
        "UPDATE_DOCS=1 cargo test -p weir --no-default-features docs"
    );
}

/// The defaults that the reference describes are those of the engine.
#[test]
fn the_engines_defaults_are_those_of_the_reference() {
    use weir_inference::constraint::{COMPILE_BURST, COMPILE_PER_SECOND, COMPILES_WAITING_MAX};
    use weir_inference::local::{INTER_TOKEN_TARGET, PROMPT_TOKENS_MIN, QUEUE_REQUESTS_MAX};
    let reference = reference::markdown();
    for (key, default) in [
        ("queue_requests_max", QUEUE_REQUESTS_MAX.to_string()),
        (
            "inter_token_target_ms",
            INTER_TOKEN_TARGET.as_millis().to_string(),
        ),
        ("prompt_tokens_min", PROMPT_TOKENS_MIN.to_string()),
        (
            "grammar_compiles_waiting_max",
            COMPILES_WAITING_MAX.to_string(),
        ),
        (
            "grammar_compile_burst_ms",
            COMPILE_BURST.as_millis().to_string(),
        ),
        (
            "grammar_compile_ms_per_second",
            COMPILE_PER_SECOND.as_millis().to_string(),
        ),
    ] {
        let line = reference
            .lines()
            .find(|line| line.starts_with(&format!("| `{key}`")));
        let said = format!("Absent: {default}.");
        assert!(line.is_some_and(|line| line.contains(&said)), "{line:?}");
    }
}

#[test]
fn limits_of_the_network_fit_each_other() {
    let read = |text: &str| read(&format!("{text}\n{MODEL}"), &[]);
    let (config, _) = read("[http]\nbody_bytes_max = 100_000_000").unwrap();
    let options = config.http.options(Vec::new());
    let in_flight = [
        options.body_bytes_in_flight_per_key_max,
        options.body_bytes_in_flight_max,
    ];
    assert_eq!(in_flight, [400_000_000, 1_600_000_000]);
    refused(
        "[http]\nbody_bytes_in_flight_max = 5000\ntrusted_proxies = [\"10.0.0.0/33\"]",
        &[],
        &[
            "weir.toml:3: http.trusted_proxies must be a list of addresses and networks, as [\"10.0.0.0/8\"], not `10.0.0.0/33`",
        ],
    );
    refused(
        "[http]\nbody_bytes_in_flight_max = 5000",
        &[],
        &[
            "weir.toml:2: http.body_bytes_in_flight_max must be at least http.body_bytes_max, which is 16777216",
        ],
    );
    for proxies in ["proxy.example", "10.0.0.1-10.0.0.9", ""] {
        let text = format!("[http]\ntrusted_proxies = [\"{proxies}\"]");
        assert!(read(&text).is_err(), "{proxies}");
    }
}

#[test]
fn lists_in_the_environment() {
    let read = |name: &str, text: &str| read(MODEL, &[(name, text)]);
    for origins in ["[\"*\"]", " [ '*', ] ", "*"] {
        let (config, _) = read("WEIR_CORS_ORIGINS", origins).unwrap();
        assert_eq!(config.cors_origins(), ["*"], "{origins}");
    }
    let both = ["10.0.0.0/8,::1", "[\"10.0.0.0/8\", \"::1\"]"]
        .map(|text| read("WEIR_HTTP_TRUSTED_PROXIES", text).unwrap().0.http);
    assert_eq!(both[0], both[1]);
    for wrong in ["[\"*\"", "[*]", "[1]", "[]", "", "[\"*\"]]"] {
        let problems = read("WEIR_CORS_ORIGINS", wrong).unwrap_err();
        assert!(
            problems[0].starts_with("WEIR_CORS_ORIGINS: cors.origins must be a list of origins"),
            "{problems:?}"
        );
    }
}

#[test]
fn passwords_are_percent_encoded() {
    for (text, line) in [
        ("database = \"postgres://weir:c4#nary@db/weir\"", 1),
        ("database = \"postgres://weir:12/c4nary@db/weir\"", 1),
        ("[limits]\nstore = \"redis://:c4/nary@db/0\"", 2),
    ] {
        let problems = read(text, &[]).unwrap_err();
        let [problem] = &problems[..] else {
            panic!("{problems:?}")
        };
        assert!(problem.starts_with(&format!("weir.toml:{line}: ")));
        assert!(
            problem.ends_with("write @ as %40, # as %23, / as %2F and ? as %3F"),
            "{problem}"
        );
        assert!(!problem.contains("nary"), "{problem}");
    }
}

#[test]
fn files_that_cannot_be_read() {
    let directory = tempfile::tempdir().unwrap();
    let at = directory.path();
    let error = || load(at, &Overrides::default(), std::iter::empty()).unwrap_err();
    std::fs::write(at.join("weir.toml"), b"# A comment\ndata = \"d\xfc\"\n").unwrap();
    assert_eq!(
        error().to_string(),
        "weir.toml:2: this line isn't UTF-8 (byte 0xFC): save the file in UTF-8, not in Latin-1 or UTF-16"
    );
    std::fs::write(at.join("weir.toml"), b"\xff\xfed\0a\0t\0a\0").unwrap();
    assert!(
        error()
            .to_string()
            .starts_with("weir.toml:1: this line isn't UTF-8")
    );
    std::fs::remove_file(at.join("weir.toml")).unwrap();
    std::os::unix::fs::symlink("gone.toml", at.join("weir.toml")).unwrap();
    let shown = at.join("weir.toml").display().to_string();
    assert_eq!(
        error().to_string(),
        format!("{shown} is a link to gone.toml, which doesn't exist")
    );
    std::fs::write(at.join("gone.toml"), MODEL).unwrap();
    let config = load(at, &Overrides::default(), std::iter::empty());
    assert_eq!(config.unwrap().config.models.len(), 1);
}

#[test]
fn options_of_serve_win() {
    let directory = tempfile::tempdir().unwrap();
    let at = directory.path();
    std::fs::write(
        at.join("weir.toml"),
        format!("listen = \"[::1]:1\"\n{MODEL}"),
    )
    .unwrap();
    std::fs::write(at.join("x.gguf"), "").unwrap();
    let load = |overrides: &Overrides| load(at, overrides, std::iter::empty());
    let overrides = Overrides {
        port: Some(7),
        models: vec!["x.gguf".into()],
        ..Overrides::default()
    };
    let Loaded {
        config, warnings, ..
    } = load(&overrides).unwrap();
    assert_eq!(config.listen, "[::1]:7".parse().unwrap());
    let [model] = &config.models[..] else {
        panic!("one model")
    };
    assert_eq!((&*model.id, model.output_price), ("x", 0));
    assert_eq!(llama(&config, 0).path, at.join("x.gguf"));
    assert!(warnings[0].starts_with("serving x from "), "{warnings:?}");
    let check = |host: &str, models: &[&str]| {
        load(&Overrides {
            host: Some(host.parse().unwrap()),
            models: models.iter().map(PathBuf::from).collect(),
            ..Overrides::default()
        })
    };
    let listen = check("0.0.0.0", &[]).unwrap().config.listen;
    assert_eq!(listen, "0.0.0.0:1".parse().unwrap());
    for (models, said) in [
        (&["no.gguf"][..], "--model: there is no file"),
        (&["x.gguf", "x.gguf"], "--model: two models are called x"),
    ] {
        let error = check("::1", models).unwrap_err().to_string();
        assert!(error.starts_with(said), "{error}");
    }
}
