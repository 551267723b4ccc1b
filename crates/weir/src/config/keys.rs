//! The table of all config keys. The parser, the environment variables and `docs/config.md` are derived from it.

/// The valid values of a key. A value is checked when it is read, so that an error can name its line.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Kind {
    Text,
    /// A path, relative to the folder of the config file.
    Path,
    /// An address with a port, such as `127.0.0.1:8080` or `[::]:8080`.
    Address,
    Whole {
        min: u64,
        max: u64,
    },
    Flag,
    /// A word of `now`. Values that begin like one of `later` are planned, and refused with an error that says so.
    Choice {
        now: &'static [&'static str],
        later: &'static [&'static str],
    },
    /// The word, or an address that begins with one of the schemes. An address may hold a password, so errors never repeat it.
    Place {
        word: &'static str,
        schemes: &'static [&'static str],
    },
    /// A text that is, or holds, a secret. Errors only say what it should be.
    Hidden {
        what: &'static str,
    },
    /// A list of some of these words.
    Words {
        among: &'static [&'static str],
    },
    /// Directives of the log's filter, such as `info,weir_engine=debug`.
    Filter,
    /// A list of web origins, or `*`.
    Origins,
    /// A list of addresses and networks.
    Networks,
}

#[derive(Debug)]
pub(crate) struct Key {
    /// The path of the key, with `[]` for the number of an entry.
    pub(crate) path: &'static str,
    pub(crate) kind: Kind,
    /// The default, in the notation of environment variables.
    pub(crate) default: Option<&'static str>,
    pub(crate) doc: &'static str,
}

const fn whole(min: u64, max: u64) -> Kind {
    Kind::Whole { min, max }
}

const fn key(
    path: &'static str,
    kind: Kind,
    default: Option<&'static str>,
    doc: &'static str,
) -> Key {
    Key {
        path,
        kind,
        default,
        doc,
    }
}

/// The largest price: a thousand dollars per token.
const PRICE_MAX: u64 = 10_000_000_000_000;
const REQUESTS_MAX: u64 = 1_000_000;
const TOKENS_MAX: u64 = 1_000_000_000_000;
const DAY: u64 = 86_400;
const U32: u64 = 4_294_967_295;

pub(crate) const KEYS: &[Key] = &[
    key(
        "listen",
        Kind::Address,
        Some("127.0.0.1:8080"),
        "Where the server listens. Port 0 takes a free one.",
    ),
    key(
        "data",
        Kind::Path,
        Some("data"),
        "Directory of the database. Made if it is missing.",
    ),
    key(
        "database",
        Kind::Place {
            word: "sqlite",
            schemes: &["postgres://", "postgresql://"],
        },
        Some("sqlite"),
        "Where accounts, ledger and usage are kept: `sqlite` is a file in `data`, for one process; a PostgreSQL may \
         be shared by several. TLS is by the parameters `sslmode` (`require`, `verify-full`) and `sslrootcert`.",
    ),
    key(
        "demo",
        Kind::Flag,
        None,
        "Whether the first start makes an account `demo` with 5 USD, and shows its key: on stdout, or in the file `demo-key` \
         in `data` where stdout is the system's journal or `/dev/null`. Absent: only if stdout is a terminal.",
    ),
    key(
        "postgres.connections_max",
        whole(1, 1000),
        Some("8"),
        "Connections of a node that read; one more writes.",
    ),
    key(
        "postgres.timeout_seconds",
        whole(1, 600),
        Some("5"),
        "Longest wait for a connection, and for the answer to a statement. A request that needs the database gets \
         503 after at most twice that.",
    ),
    key(
        "node.name",
        Kind::Text,
        Some("local"),
        "What this node is called in the ledger, where several share a PostgreSQL; each process adds a part of its own.",
    ),
    key(
        "node.silence_seconds",
        whole(5, DAY),
        Some("30"),
        "A node that doesn't renew its lease for so long is dead: another one ends its open requests, charged for what was \
         delivered. A node that can't renew its lease ends its streams with an error before, after nine tenths of that.",
    ),
    key(
        "limits.requests_per_minute",
        whole(1, REQUESTS_MAX),
        None,
        "Requests per minute of a key that has no such limit of its own. Absent: no limit.",
    ),
    key(
        "limits.tokens_per_minute",
        whole(1, TOKENS_MAX),
        None,
        "Tokens per minute of a key, prompt and answer, if it has no such limit of its own. Absent: no limit.",
    ),
    key(
        "limits.concurrent_requests",
        whole(1, REQUESTS_MAX),
        None,
        "Requests of a key that may be open at once, if it has no such limit of its own. Absent: no limit.",
    ),
    key(
        "limits.store",
        Kind::Place {
            word: "memory",
            schemes: &[
                "redis://",
                "rediss://",
                "valkey://",
                "valkeys://",
                "unix://",
            ],
        },
        Some("memory"),
        "Where the counts of the limits are kept: in this process, or in a Valkey or Redis (not a cluster) that several nodes share, as `redis://user:password@host:6379/0`; `rediss://` is with TLS.",
    ),
    key(
        "limits.store_timeout_ms",
        whole(1, 10_000),
        Some("100"),
        "The longest that a request waits for the shared store; then the store counts as out of reach, until it answers again.",
    ),
    key(
        "limits.on_failure",
        Kind::Choice {
            now: &["local", "open", "closed"],
            later: &[],
        },
        Some("local"),
        "While the shared store is out of reach: `local`, each node limits on its own; `open`, nothing is limited; `closed`, requests are refused with 503.",
    ),
    key(
        "limits.tiers[].name",
        Kind::Choice {
            now: &["T1", "T2", "T3", "T4", "T5"],
            later: &[],
        },
        None,
        "The tier whose limits these are. Required. Without any tiers nothing is limited by account.",
    ),
    key(
        "limits.tiers[].top_up",
        whole(0, 1_000_000_000_000),
        None,
        "An account is in the tier if its highest monthly top-up, of this month and the two before, is at least this, in 0.0001 USD. Absent: 0, 500001 (more than $50), 5000000 ($500), 30000000 ($3,000) and 100000000 ($10,000) for T1 to T5.",
    ),
    key(
        "limits.tiers[].requests_per_minute",
        whole(1, REQUESTS_MAX),
        None,
        "Requests per minute of an account in this tier for each model. Absent: no limit.",
    ),
    key(
        "limits.tiers[].tokens_per_minute",
        whole(1, TOKENS_MAX),
        None,
        "Tokens per minute of an account in this tier for each model, prompt and answer. Absent: no limit.",
    ),
    key(
        "limits.tiers[].concurrent_requests",
        whole(1, REQUESTS_MAX),
        None,
        "Requests of an account in this tier that may be open at once for each model. Absent: no limit.",
    ),
    key(
        "limits.tiers[].weight",
        whole(1, 100),
        Some("1"),
        "What part of an embedded engine an account in this tier has while others wait, too: with 3 it has three times as much as one with 1. Without others each has all of it.",
    ),
    key(
        "models[].id",
        Kind::Text,
        None,
        "The model's name in the API. Required.",
    ),
    key(
        "models[].title",
        Kind::Text,
        None,
        "A name for people, in `GET models`. Absent: the id.",
    ),
    key(
        "models[].description",
        Kind::Text,
        None,
        "A sentence or two, in `GET models`.",
    ),
    key(
        "models[].input_price",
        whole(0, PRICE_MAX),
        None,
        "Price of prompt tokens in 0.0001 USD per million: 200 is $0.02. Required; free is a written 0.",
    ),
    key(
        "models[].output_price",
        whole(0, PRICE_MAX),
        None,
        "Price of generated tokens, in the same unit. Required; free is a written 0.",
    ),
    key(
        "models[].cached_price",
        whole(0, PRICE_MAX),
        None,
        "Price of prompt tokens that come from the prefix cache, at most `input_price`. Absent: `input_price`.",
    ),
    key(
        "models[].max_output_tokens",
        whole(1, U32),
        None,
        "The largest `max_tokens` that a request may ask for. Absent: the model's context.",
    ),
    key(
        "models[].optional",
        Kind::Flag,
        Some("false"),
        "Leave the model out while its files are missing, instead of listing it as not available.",
    ),
    key(
        "models[].engines[].kind",
        Kind::Choice {
            now: &["llama"],
            later: &["openai"],
        },
        Some("llama"),
        "What computes the model: `llama` is the embedded engine. A model has exactly one engine in this version.",
    ),
    key(
        "models[].engines[].path",
        Kind::Path,
        None,
        "The GGUF file. Required.",
    ),
    key(
        "models[].engines[].threads",
        whole(1, 512),
        None,
        "Threads that compute. Absent: the processors that this process may use.",
    ),
    key(
        "models[].engines[].threads_min",
        whole(1, 512),
        None,
        "While other processes take cores, fewer threads compute, but so many at least: more than there are cores for make each other wait. Absent: 1, or `threads` with `reproducible = true`.",
    ),
    key(
        "models[].engines[].context_tokens",
        whole(16, 16_777_216),
        None,
        "Longest prompt and answer together. Absent: what the model was trained for, as far as `cells` allow.",
    ),
    key(
        "models[].engines[].cells",
        whole(64, 4_194_304),
        None,
        "Tokens that the KV cache holds, over all requests. Absent: chosen from the model's size.",
    ),
    key(
        "models[].engines[].sequences",
        whole(1, 256),
        None,
        "Answers that are generated at once, with beginnings that are kept; a model with a sliding window takes 128 at most. Absent: chosen from the model's size; 16 for recurrent and hybrid models, of which each takes memory for a state.",
    ),
    key(
        "models[].engines[].reproducible",
        Kind::Flag,
        Some("false"),
        "Same request and seed, same text to the byte, alone or under load, as long as `threads` and the machine stay the same. Each of `sequences` (8 if absent) then has its own share of `cells`, which bounds the context, and is computed alone: one stream is about as fast as without, several share the speed of one.",
    ),
    key(
        "models[].engines[].kv_layout",
        Kind::Choice {
            now: &["unified", "split"],
            later: &[],
        },
        Some("unified"),
        "How sequences have their part of the KV cache. `unified`: a request takes as much of `cells` as it needs, and what requests begin with in common is there once. `split`: each of `sequences` (8 if absent) has its own share of `cells`, which bounds the context. Faster with many requests at once, since no row passes over the others' cells. A reproducible engine's is always split.",
    ),
    key(
        "models[].engines[].kv_format",
        Kind::Choice {
            now: &["f16", "q8_0", "f32"],
            later: &[],
        },
        Some("f16"),
        "Format of the KV cache: `q8_0` takes half the memory of `f16`, `f32` twice, which counts only without flash attention: it rounds to 16 bits.",
    ),
    key(
        "models[].engines[].flash_attention",
        Kind::Choice {
            now: &["auto", "on", "off"],
            later: &[],
        },
        Some("auto"),
        "How attention is computed: by the fused kernel (`on`), or with a matrix of all scores (`off`, not with `q8_0`). On two cores `on` was faster with 32 streams that have little in common, `off` with few streams, long contexts, and prompts that arrive beside streams. `auto` is `off`, but for models with a sliding window (cached in `f16`), `reproducible` and `q8_0`.",
    ),
    key(
        "models[].engines[].optimize",
        Kind::Choice {
            now: &["off", "speed"],
            later: &[],
        },
        Some("off"),
        "`speed`: serve a copy whose weights are in a format that this machine is fast at, where the file's isn't. It is made once, in `requantized` in `data`, takes up to twice the file's room, and differs by next to nothing, which is measured and logged.",
    ),
    key(
        "models[].engines[].checksum",
        Kind::Flag,
        Some("true"),
        "Whether the file is read as a whole after each start, at low priority, and its SHA-256 compared with that of the first time: a \
         file that was damaged or exchanged is logged. Without it a file that is only touched while it is served can't be told from \
         one that is written over, and its model is not available any more.",
    ),
    key(
        "models[].engines[].embeddings",
        Kind::Choice {
            now: &["mean"],
            later: &[],
        },
        None,
        "Let a model that generates give embeddings, too: the mean over its tokens. A model that was made for embeddings gives them as its file says, and nothing else.",
    ),
    key(
        "models[].engines[].embedding_tokens",
        whole(1, 16_777_216),
        None,
        "The longest text whose embedding is given. Absent: what the model was trained for, 2048 at most.",
    ),
    key(
        "models[].engines[].matryoshka",
        Kind::Flag,
        Some("false"),
        "Whether the beginning of an embedding is one, too, so that requests may ask for fewer `dimensions`: a property of the model's training.",
    ),
    key(
        "models[].engines[].queue_requests_max",
        whole(1, 100_000),
        None,
        "Requests that may wait; one more is refused with 503. Absent: 512.",
    ),
    key(
        "models[].engines[].grammar_compiles_max",
        whole(1, 1024),
        None,
        "Schemas, expressions and grammars that are compiled at once, one of each account. Absent: half of the processors.",
    ),
    key(
        "models[].engines[].grammar_compiles_waiting_max",
        whole(1, 100_000),
        None,
        "Schemas, expressions and grammars of one account that may wait until they are compiled; one more is refused with 429. Absent: 16.",
    ),
    key(
        "models[].engines[].grammar_compile_burst_ms",
        whole(1, 3_600_000),
        None,
        "Processor time that compiling may take an account at once, beyond `grammar_compile_ms_per_second`; then new schemas, \
         expressions and grammars are refused with 429, and those in use go on. It is counted in steps that take about a microsecond. \
         Absent: 6000.",
    ),
    key(
        "models[].engines[].grammar_compile_ms_per_second",
        whole(1, 1_000_000),
        None,
        "Processor time for compiling that an account gets back each second. Absent: 120.",
    ),
    key(
        "models[].engines[].inter_token_target_ms",
        whole(1, 60_000),
        None,
        "Time between two tokens of a stream that prompts beside it are cut to fit; up to twice as much where they would hardly \
         get on otherwise. Absent: 100.",
    ),
    key(
        "models[].engines[].prompt_tokens_min",
        whole(1, 128),
        None,
        "Tokens of prompts that a step computes beside streams, even if it takes longer than `inter_token_target_ms`, but fewer \
         where it would take more than twice as long. With fewer streams are smoother, with more a long prompt is answered sooner. \
         A reproducible engine computes prompts alone. Absent: 32.",
    ),
    key(
        "models[].engines[].aside_tokens",
        whole(0, 16_777_216),
        Some("8192"),
        "So many tokens of a prompt, from its beginning, are computed aside if they are 256 or more that aren't cached: 256 at a time, \
         with pauses for the steps of streams. So a long prompt is answered sooner, and streams beside it get on. It takes a second KV \
         cache of so many cells (of the longest context, if that is shorter); with 0, or less than 512, prompts are computed in the steps of \
         streams. Models with a sliding window, recurrent and hybrid ones, `kv_layout = \"split\"`, `kv_format = \"f32\"`, \
         `flash_attention = \"off\"`, 256 `sequences` and reproducible engines go without.",
    ),
    key(
        "models[].engines[].prefix_cache",
        Kind::Choice {
            now: &["account", "everybody", "off"],
            later: &[],
        },
        Some("account"),
        "Who may begin with what was computed for a request: requests of the same account, everybody (from how fast an answer comes one can tell that somebody has sent the same beginning), or only the choices of the request itself.",
    ),
    key(
        "models[].engines[].speculation",
        Kind::Choice {
            now: &["ngram", "off"],
            later: &[],
        },
        Some("ngram"),
        "Whether tokens are guessed from what followed the last few where they were before, in the prompt or the answer, and computed along with the next one: faster where an answer repeats something, and the same text. A reproducible engine and answers in an enforced format go without.",
    ),
    key(
        "webhooks[].name",
        Kind::Text,
        None,
        "What the webhook is called in the log and in the database. Required.",
    ),
    key(
        "webhooks[].url",
        Kind::Hidden {
            what: "an https:// or http:// address",
        },
        None,
        "Where its events are posted. Required. It has no user, and its host is written so that it can't be misread.",
    ),
    key(
        "webhooks[].secret",
        Kind::Hidden {
            what: "whsec_ and 24 to 64 random bytes in base64",
        },
        None,
        "Signs what is sent, as Standard Webhooks says: `echo whsec_$(openssl rand -base64 32)` makes one. Required; best given by the variable.",
    ),
    key(
        "webhooks[].events",
        Kind::Words {
            among: &[
                "balance.low",
                "balance.exhausted",
                "credit.added",
                "key.created",
            ],
        },
        None,
        "The events that it gets. Absent: all.",
    ),
    key(
        "webhooks[].allow_private",
        Kind::Flag,
        Some("false"),
        "Whether its address may be one that isn't of the public Internet: this machine, a network of one's own.",
    ),
    key(
        "webhooks[].timeout_seconds",
        whole(1, 60),
        Some("10"),
        "Time for one attempt, from the name's resolution to the answer's status.",
    ),
    key(
        "webhooks[].give_up_hours",
        whole(1, 720),
        Some("72"),
        "What isn't delivered by then is given up, and logged.",
    ),
    key(
        "http.body_bytes_max",
        whole(1024, 1_073_741_824),
        Some("16777216"),
        "The longest request body, and the longest answer of `/tokenize` and `/detokenize`; a longer one is 413, or 400.",
    ),
    key(
        "http.body_bytes_in_flight_max",
        whole(1024, 1_099_511_627_776),
        None,
        "Bytes of request bodies that are being read, and of answers of `/tokenize` and `/detokenize` that are being sent, over all \
         keys; beyond them it is 503. Absent: 16 times `http.body_bytes_max`.",
    ),
    key(
        "http.body_bytes_in_flight_per_key_max",
        whole(1024, 1_099_511_627_776),
        None,
        "The same of one key; beyond them it is 429. Absent: 4 times `http.body_bytes_max`.",
    ),
    key(
        "http.header_timeout_seconds",
        whole(1, DAY),
        Some("15"),
        "Time for a request's header to arrive, from the end of the request before.",
    ),
    key(
        "http.body_idle_timeout_seconds",
        whole(1, DAY),
        Some("15"),
        "Time that a request's body may pause.",
    ),
    key(
        "http.body_timeout_seconds",
        whole(1, DAY),
        Some("300"),
        "Time for the whole body of a request.",
    ),
    key(
        "http.write_timeout_seconds",
        whole(1, DAY),
        Some("30"),
        "Time that a client may take nothing of an answer before its request is cancelled.",
    ),
    key(
        "http.connections_max",
        whole(1, 1_000_000),
        Some("4096"),
        "Open connections. When they are all taken, the one that was idle for longest is closed for a new one, those without a \
         valid key first; where a request runs on each, more wait to be accepted.",
    ),
    key(
        "http.connections_per_address_max",
        whole(1, 1_000_000),
        Some("1024"),
        "Open connections from one address (of IPv6: from one /64), and requests that trusted proxies pass on for it. One more closes \
         the address's own connection that was idle for longest; where a request runs on each, it is answered with 429.",
    ),
    key(
        "http.connections_reserve",
        whole(0, 1_000_000),
        Some("64"),
        "Of `http.connections_max`, a quarter at most: connections that are kept for when a request runs on all others. Each serves one \
         request: health checks, other short answers, and on half of them requests with a key, an eighth for one account.",
    ),
    key(
        "http.trusted_proxies",
        Kind::Networks,
        None,
        "Addresses and networks of the proxies in front, as `[\"10.0.0.0/8\", \"::1\"]`: they have no share of connections, and \
         are believed for which client they ask. Absent: none.",
    ),
    key(
        "http.forwarded_header",
        Kind::Choice {
            now: &["any", "x-forwarded-for", "forwarded"],
            later: &[],
        },
        Some("any"),
        "The header by which trusted proxies name the client; it is ignored from all others. `any` is `X-Forwarded-For`, or \
         `Forwarded` where that is missing. A proxy that only writes one of them lets the client write the other: name it here.",
    ),
    key(
        "usage.keep_days",
        whole(1, 36_500),
        None,
        "Usage records that are older are deleted, except for refunded ones. Sums by day, and with them bills, stay; refunds and \
         bills by hour need the records. Absent: they are kept for ever.",
    ),
    key(
        "usage.unsettled_requests_max",
        whole(1, 1_000_000),
        Some("4096"),
        "While the database can't be written, ends of so many running requests are noted in `data` (files `unsettled-…`), to be \
         settled later, by the next start if need be. Each takes 256 bytes, of which the room is taken at the start. An \
         answer whose end can be noted nowhere ends with an error.",
    ),
    key(
        "shutdown.grace_seconds",
        whole(0, DAY),
        Some("30"),
        "Time for running answers to finish after SIGTERM or Ctrl-C. A second signal ends them at once.",
    ),
    key(
        "log.format",
        Kind::Choice {
            now: &["text", "json"],
            later: &[],
        },
        Some("text"),
        "Form of the log, which goes to stderr.",
    ),
    key(
        "log.filter",
        Kind::Filter,
        Some("info"),
        "What is logged, as in `info,weir_engine=debug`. `WEIR_LOG` says the same.",
    ),
    key(
        "cors.origins",
        Kind::Origins,
        None,
        "Web origins whose pages may call the API, as `[\"https://example.com\"]`; `[\"*\"]` is every one. Absent: none.",
    ),
];

/// Environment variables of Weir that aren't config keys.
pub(crate) const VARIABLES: &[(&str, &str)] = &[
    ("WEIR_CONFIG", "the config file, as `--config`"),
    ("WEIR_LOG", "what is logged, as `log.filter`"),
    ("WEIR_API_KEY", "the key of `weir chat`"),
    (
        "WEIR_BASE_URL",
        "the server of `weir chat`, as `--base-url`",
    ),
    (
        "WEIR_TEST_MODELS",
        "the directory of model files, for tests",
    ),
];

pub(crate) fn find(pattern: &str) -> Option<&'static Key> {
    KEYS.iter().find(|key| key.path == pattern)
}

impl Key {
    /// The name of the key's environment variable; `<i>` and `<j>` stand for the numbers of entries, from 0.
    pub(crate) fn variable(&self) -> String {
        let mut index = ["<i>", "<j>"].into_iter();
        let words = self
            .path
            .split('.')
            .map(|word| match word.strip_suffix("[]") {
                Some(name) => format!(
                    "{}_{}",
                    name.to_uppercase(),
                    index.next().expect("at most two levels of entries")
                ),
                None => word.to_uppercase(),
            });
        format!("WEIR_{}", words.collect::<Vec<_>>().join("_"))
    }
}
