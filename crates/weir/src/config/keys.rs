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
    /// Directives of the log's filter, such as `info,weir_inference=debug`.
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
    /// Whether a reload changes it while the server runs.
    pub(crate) live: bool,
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
        live: false,
    }
}

const fn live(key: Key) -> Key {
    Key { live: true, ..key }
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
        "Address and port on which the server listens, as `0.0.0.0:8080` (all addresses) or `localhost:8080`. A port alone is one \
         of 127.0.0.1. Port 0 takes a free port.",
    ),
    key(
        "data",
        Kind::Path,
        Some("data"),
        "Directory of the database. It is created if it is missing.",
    ),
    key(
        "database",
        Kind::Place {
            word: "sqlite",
            schemes: &["postgres://", "postgresql://"],
        },
        Some("sqlite"),
        "Where accounts, the ledger and usage records are stored: `sqlite` is a file in `data`, for one server process; a \
         PostgreSQL database may be shared by several. TLS is set by the parameters `sslmode` (`require`, `verify-full`) and \
         `sslrootcert` of the address.",
    ),
    key(
        "demo",
        Kind::Flag,
        None,
        "Whether the first start creates an account `demo` with 5 USD and shows its key: on stdout, or in the file `demo-key` in \
         `data` if stdout is the system's journal or `/dev/null`. Absent: only if stdout is a terminal.",
    ),
    key(
        "postgres.connections_max",
        whole(1, 1000),
        Some("8"),
        "Number of connections of a node that read; one more connection writes.",
    ),
    key(
        "postgres.timeout_seconds",
        whole(1, 600),
        Some("5"),
        "Longest wait for a connection, and for the answer to a statement. A request that needs the database gets 503 after at \
         most twice that time.",
    ),
    key(
        "node.name",
        Kind::Text,
        Some("local"),
        "Name of this node (one `weir serve` process) in the ledger, where several nodes share a PostgreSQL. Each process adds a \
         random part of its own.",
    ),
    key(
        "node.silence_seconds",
        whole(5, DAY),
        Some("30"),
        "A node that doesn't renew its lease in the database for this long counts as dead: another node ends its open requests \
         and charges the tokens that were delivered. A node that can't renew its lease ends its own streams with an error \
         earlier, after nine tenths of this time.",
    ),
    live(key(
        "limits.requests_per_minute",
        whole(1, REQUESTS_MAX),
        None,
        "Requests per minute of a key that has no such limit of its own. Absent: no limit.",
    )),
    live(key(
        "limits.tokens_per_minute",
        whole(1, TOKENS_MAX),
        None,
        "Tokens per minute (prompt and answer) of a key that has no such limit of its own. Absent: no limit.",
    )),
    live(key(
        "limits.concurrent_requests",
        whole(1, REQUESTS_MAX),
        None,
        "Requests that a key may have open at once, if it has no such limit of its own. Absent: no limit.",
    )),
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
        "Where the rate limits are counted: in this process (`memory`), or in a Valkey or Redis (not a cluster) that several \
         nodes share, as `redis://user:password@host:6379/0`; `rediss://` is with TLS.",
    ),
    key(
        "limits.store_timeout_ms",
        whole(1, 10_000),
        Some("100"),
        "Longest time that a request waits for the shared store. After a timeout the store counts as unreachable until it \
         answers again.",
    ),
    key(
        "limits.on_failure",
        Kind::Choice {
            now: &["local", "open", "closed"],
            later: &[],
        },
        Some("local"),
        "What happens while the shared store is unreachable: `local`, each node limits on its own; `open`, nothing is limited; \
         `closed`, requests are refused with 503.",
    ),
    live(key(
        "limits.tiers[].name",
        Kind::Choice {
            now: &["T1", "T2", "T3", "T4", "T5"],
            later: &[],
        },
        None,
        "The tier whose limits these are. Required. Without any tiers, accounts have no limits by default.",
    )),
    live(key(
        "limits.tiers[].top_up",
        whole(0, 1_000_000_000_000),
        None,
        "Least top-up of the tier, in 0.0001 USD. What counts is the largest sum that the account has paid in within one month, \
         of the current month and the two before. Absent: 0, 500001 (more than $50), 5000000 ($500), 30000000 ($3,000) and \
         100000000 ($10,000) for T1 to T5.",
    )),
    live(key(
        "limits.tiers[].requests_per_minute",
        whole(1, REQUESTS_MAX),
        None,
        "Requests per minute of an account in this tier, for each model. Absent: no limit.",
    )),
    live(key(
        "limits.tiers[].tokens_per_minute",
        whole(1, TOKENS_MAX),
        None,
        "Tokens per minute (prompt and answer) of an account in this tier, for each model. Absent: no limit.",
    )),
    live(key(
        "limits.tiers[].concurrent_requests",
        whole(1, REQUESTS_MAX),
        None,
        "Requests that an account in this tier may have open at once, for each model. Absent: no limit.",
    )),
    live(key(
        "limits.tiers[].weight",
        whole(1, 100),
        Some("1"),
        "Share of an embedded engine that an account in this tier gets while other accounts wait too: an account with weight 3 \
         gets three times as much as one with weight 1. An account that is alone gets the whole engine.",
    )),
    key(
        "models[].id",
        Kind::Text,
        None,
        "The model's name in the API. Required.",
    ),
    live(key(
        "models[].title",
        Kind::Text,
        None,
        "A name for people, in `GET models`. Absent: the id.",
    )),
    live(key(
        "models[].description",
        Kind::Text,
        None,
        "A sentence or two, in `GET models`.",
    )),
    live(key(
        "models[].input_price",
        whole(0, PRICE_MAX),
        None,
        "Price of prompt tokens in 0.0001 USD per million: 200 is $0.02. Required; write 0 for a free model.",
    )),
    live(key(
        "models[].output_price",
        whole(0, PRICE_MAX),
        None,
        "Price of generated tokens, in the same unit. Required; write 0 for a free model.",
    )),
    live(key(
        "models[].cached_price",
        whole(0, PRICE_MAX),
        None,
        "Price of prompt tokens that come from the prefix cache, at most `input_price`. Absent: `input_price`.",
    )),
    live(key(
        "models[].max_output_tokens",
        whole(1, U32),
        None,
        "The largest `max_tokens` that a request may ask for. Absent: the model's context.",
    )),
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
        "The program that computes the model: `llama` is the embedded engine (llama.cpp). In this version a model has exactly \
         one engine.",
    ),
    key(
        "models[].engines[].path",
        Kind::Path,
        None,
        "The model file, in the format GGUF. Required.",
    ),
    key(
        "models[].engines[].threads",
        whole(1, 512),
        None,
        "Number of threads that compute. Absent: as many as there are processors that this process may use.",
    ),
    key(
        "models[].engines[].threads_min",
        whole(1, 512),
        None,
        "Smallest number of threads that compute. While other processes use some of the cores, Weir computes with fewer threads, \
         because threads in excess of the free cores make each other wait. Absent: 1, or `threads` with `reproducible = true`.",
    ),
    key(
        "models[].engines[].context_tokens",
        whole(16, 16_777_216),
        None,
        "Largest number of tokens of prompt and answer together. Absent: the context that the model was trained for, limited by \
         `cells`.",
    ),
    key(
        "models[].engines[].cells",
        whole(64, 4_194_304),
        None,
        "Size of the KV cache, in tokens, over all requests: one KV cell holds the keys and values of one token. Absent: chosen \
         from the model's size.",
    ),
    key(
        "models[].engines[].sequences",
        whole(1, 256),
        None,
        "Number of sequences in the KV cache: answers that are generated at once, and prefixes that stay in the prefix cache. At \
         most 128 for a model with a sliding window. Absent: chosen from the model's size; 16 for recurrent and hybrid models, \
         where each sequence takes memory for its state.",
    ),
    key(
        "models[].engines[].reproducible",
        Kind::Flag,
        Some("false"),
        "The same request with the same seed gives the same text to the byte, alone or under load, as long as `threads` and the \
         machine stay the same. Each of the `sequences` (8 if absent) then has a share of `cells` of its own, which bounds the \
         context, and is computed alone: one stream is about as fast as without this key, several streams share the speed of \
         one.",
    ),
    key(
        "models[].engines[].kv_layout",
        Kind::Choice {
            now: &["unified", "split"],
            later: &[],
        },
        Some("unified"),
        "How sequences share the KV cache. `unified`: a request takes as many of the `cells` as it needs, and a prefix that \
         requests have in common is stored once. `split`: each of the `sequences` (8 if absent) has a share of `cells` of its \
         own, which bounds the context. `split` is faster with many requests at once, because attention doesn't pass over the \
         cells of other requests. A reproducible engine always uses `split`.",
    ),
    key(
        "models[].engines[].kv_format",
        Kind::Choice {
            now: &["f16", "q8_0", "f32"],
            later: &[],
        },
        Some("f16"),
        "Number format of the KV cache: `q8_0` takes half the memory of `f16`, `f32` twice as much. `f32` is more precise only \
         without flash attention, which rounds to 16 bits.",
    ),
    key(
        "models[].engines[].flash_attention",
        Kind::Choice {
            now: &["auto", "on", "off"],
            later: &[],
        },
        Some("auto"),
        "How attention is computed: by the fused kernel (`on`), or with a matrix of all scores (`off`, not with `q8_0`). On two \
         cores `on` was faster with 32 streams that have little in common; `off` was faster with few streams, with long \
         contexts, and with prompts that arrive beside streams. `auto` is `off`, except for models with a sliding window (cached \
         in `f16`), `reproducible` and `q8_0`, where it is `on`.",
    ),
    key(
        "models[].engines[].optimize",
        Kind::Choice {
            now: &["off", "speed"],
            later: &[],
        },
        Some("off"),
        "`speed`: if the file's weights are in a format without fast kernels on this machine, serve a copy of the file in a \
         format with fast kernels. The copy is made once, in the directory `requantized` in `data`, and takes up to twice the \
         disk space of the file. Its output differs by next to nothing; the difference is measured and logged.",
    ),
    key(
        "models[].engines[].checksum",
        Kind::Flag,
        Some("true"),
        "Whether the whole file is read after each start, at low priority, and its SHA-256 compared with the one of the first \
         time: a file that was damaged or exchanged is logged. Without the checksum, a served file that was only touched (a new \
         modification time, the same bytes) can't be told from one that was overwritten, and its model becomes unavailable.",
    ),
    key(
        "models[].engines[].embeddings",
        Kind::Choice {
            now: &["mean"],
            later: &[],
        },
        None,
        "Let a model that generates text give embeddings, too: `mean` is the mean over its tokens. A model that was made for \
         embeddings gives them in the way its file says, and generates no text.",
    ),
    key(
        "models[].engines[].embedding_tokens",
        whole(1, 16_777_216),
        None,
        "Largest number of tokens of a text to embed. Absent: the context that the model was trained for, 2048 at most.",
    ),
    key(
        "models[].engines[].matryoshka",
        Kind::Flag,
        Some("false"),
        "Whether the first values of an embedding are an embedding, too, so that requests may ask for fewer `dimensions`: a \
         property of the model's training.",
    ),
    key(
        "models[].engines[].queue_requests_max",
        whole(1, 100_000),
        None,
        "Number of requests that may wait for the engine; one more is refused with 503. Absent: 512.",
    ),
    key(
        "models[].engines[].grammar_compiles_max",
        whole(1, 1024),
        None,
        "Number of schemas, regular expressions and grammars that are compiled at once, at most one of each account. Absent: \
         half of the processors.",
    ),
    key(
        "models[].engines[].grammar_compiles_waiting_max",
        whole(1, 100_000),
        None,
        "Number of schemas, regular expressions and grammars of one account that may wait to be compiled; one more is refused \
         with 429. Absent: 16.",
    ),
    key(
        "models[].engines[].grammar_compile_burst_ms",
        whole(1, 3_600_000),
        None,
        "Processor time that an account may use for compiling at once, beyond `grammar_compile_ms_per_second`. After that, new \
         schemas, regular expressions and grammars of the account are refused with 429; those that are compiled already stay \
         usable. The time is estimated by counting steps of about a microsecond. \
         Enforcing a token counts, too, as far as it takes more than 2 ms; an account whose tokens alone have used that much time is refused compiled \
         ones as well. Absent: 6000.",
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
        "Target for the time between two tokens of a stream while prompts of other requests are computed: their chunks are cut \
         to meet it. The time may be up to twice as long where the prompts would hardly progress otherwise. Absent: 100.",
    ),
    key(
        "models[].engines[].prompt_tokens_min",
        whole(1, 128),
        None,
        "Prompt tokens that one step of the engine (one pass of the model over a batch of tokens) computes beside streams, even \
         if the step then takes longer than `inter_token_target_ms`; fewer where the step would take more than twice as long. A \
         lower value makes streams smoother, a higher one answers long prompts sooner. A reproducible engine computes prompts \
         alone. Absent: 32.",
    ),
    key(
        "models[].engines[].aside_tokens",
        whole(0, 16_777_216),
        Some("8192"),
        "Background prefill: if 256 or more of a prompt's first `aside_tokens` tokens aren't cached, they are computed in a \
         second context, in chunks of 256 tokens, with pauses for the steps of streams. A long prompt is then answered sooner, \
         and streams beside it go on. The second context takes a KV cache of this many cells (or of the longest context, if that \
         is shorter). With 0, or less than 512, prompts are computed in the steps of streams. There is no background prefill for \
         models with a sliding window, for recurrent and hybrid models, with `kv_layout = \"split\"`, `kv_format = \"f32\"`, \
         `flash_attention = \"off\"` or 256 `sequences`, and on reproducible engines.",
    ),
    key(
        "models[].engines[].prefix_cache",
        Kind::Choice {
            now: &["account", "everybody", "off"],
            later: &[],
        },
        Some("account"),
        "Which requests may reuse the cached prefix of another request: `account`, requests of the same account; `everybody`, \
         all requests (the time until the first token then tells a caller whether another caller has sent the same prefix); \
         `off`, only the choices of one request.",
    ),
    key(
        "models[].engines[].speculation",
        Kind::Choice {
            now: &["ngram", "off"],
            later: &[],
        },
        Some("ngram"),
        "Speculative decoding: with `ngram`, draft tokens are looked up where the last few tokens occurred before, in the prompt \
         or the answer, and are computed together with the next token. Answers that repeat something come faster, and the text \
         is the same. A reproducible engine, and answers in an enforced format, use no draft tokens.",
    ),
    live(key(
        "webhooks[].name",
        Kind::Text,
        None,
        "Name of the webhook in the log and in the database. Required.",
    )),
    live(key(
        "webhooks[].url",
        Kind::Hidden {
            what: "an https:// or http:// address",
        },
        None,
        "The address to which events are posted. Required. It must not contain a user name, and its host must be written so that \
         it can't be misread.",
    )),
    live(key(
        "webhooks[].secret",
        Kind::Hidden {
            what: "whsec_ and 24 to 64 random bytes in base64",
        },
        None,
        "The secret that signs events, as Standard Webhooks says: `echo whsec_$(openssl rand -base64 32)` makes one. Required; \
         best given by the environment variable.",
    )),
    live(key(
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
        "The events that this webhook gets. Absent: all.",
    )),
    live(key(
        "webhooks[].allow_private",
        Kind::Flag,
        Some("false"),
        "Whether the webhook's address may be outside of the public Internet: on this machine, or in a private network.",
    )),
    live(key(
        "webhooks[].timeout_seconds",
        whole(1, 60),
        Some("10"),
        "Time for one attempt, from the resolution of the host name to the status of the answer.",
    )),
    live(key(
        "webhooks[].give_up_hours",
        whole(1, 720),
        Some("72"),
        "An event that isn't delivered after this time is given up, and logged.",
    )),
    key(
        "http.body_bytes_max",
        whole(1024, 1_073_741_824),
        Some("16777216"),
        "Largest request body in bytes, and largest answer of `/tokenize` and `/detokenize`. A larger body is refused with 413, \
         a request with a larger answer with 400.",
    ),
    key(
        "http.body_bytes_in_flight_max",
        whole(1024, 1_099_511_627_776),
        None,
        "Bytes of request bodies that are being read, and of answers of `/tokenize` and `/detokenize` that are being sent, over \
         all keys. A request beyond it is refused with 503. Absent: 16 times `http.body_bytes_max`.",
    ),
    key(
        "http.body_bytes_in_flight_per_key_max",
        whole(1024, 1_099_511_627_776),
        None,
        "The same for one key. A request beyond it is refused with 429. Absent: 4 times `http.body_bytes_max`.",
    ),
    key(
        "http.header_timeout_seconds",
        whole(1, DAY),
        Some("15"),
        "Time in which the header of a request must arrive, counted from the end of the request before.",
    ),
    key(
        "http.body_idle_timeout_seconds",
        whole(1, DAY),
        Some("15"),
        "Longest pause while a request body arrives.",
    ),
    key(
        "http.body_timeout_seconds",
        whole(1, DAY),
        Some("300"),
        "Time in which the whole body of a request must arrive.",
    ),
    key(
        "http.write_timeout_seconds",
        whole(1, DAY),
        Some("30"),
        "Time after which the request of a client that reads nothing of its answer is cancelled.",
    ),
    key(
        "http.connections_max",
        whole(1, 1_000_000),
        Some("4096"),
        "Number of open connections. When all are taken, a new connection takes the place of the one that was idle for longest, \
         where connections without a valid key are closed first. If a request runs on each of them, new connections wait to be \
         accepted.",
    ),
    key(
        "http.connections_per_address_max",
        whole(1, 1_000_000),
        Some("1024"),
        "Number of open connections of one client address (for IPv6: of one /64), where requests that trusted proxies pass on \
         for the address count too. One connection more closes the idle connection of this address that was idle for longest; if \
         a request runs on each of them, the new one is answered with 429.",
    ),
    key(
        "http.connections_reserve",
        whole(0, 1_000_000),
        Some("64"),
        "Number of connections out of `http.connections_max`, at most a quarter of it, that are reserved for the moment when a \
         request runs on every other connection. Each of them serves one request: health checks and other short answers; half of \
         the reserve may serve requests with a key, an eighth those of one account.",
    ),
    key(
        "http.trusted_proxies",
        Kind::Networks,
        None,
        "Addresses and networks of the proxies in front of Weir, as `[\"10.0.0.0/8\", \"::1\"]`. Their connections don't count \
         for `http.connections_per_address_max`, and the header in which they name the client is believed. Absent: none.",
    ),
    key(
        "http.forwarded_header",
        Kind::Choice {
            now: &["any", "x-forwarded-for", "forwarded"],
            later: &[],
        },
        Some("any"),
        "The header in which trusted proxies name the client; it is ignored from all other addresses. `any` is \
         `X-Forwarded-For`, or `Forwarded` if that is missing. If your proxy writes only one of the two, a client can send the \
         other one: name the proxy's header here.",
    ),
    key(
        "usage.keep_days",
        whole(1, 36_500),
        None,
        "Usage records older than this are deleted, except for refunded ones. Sums by day stay, and with them the bills; refunds \
         and bills by hour need the records. Absent: records are kept for ever.",
    ),
    key(
        "usage.unsettled_requests_max",
        whole(1, 1_000_000),
        Some("4096"),
        "Number of running requests whose end can be noted in `data` (files `unsettled-…`) while the database can't be written. \
         They are settled later, if need be by the next start. Each takes 256 bytes, which are allocated at the start. An answer \
         whose end can be noted nowhere ends with an error.",
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
        "Format of the log, which goes to stderr.",
    ),
    live(key(
        "log.filter",
        Kind::Filter,
        Some("info"),
        "What is logged, as in `info,weir_inference=debug`. The environment variable `WEIR_LOG` does the same.",
    )),
    live(key(
        "cors.origins",
        Kind::Origins,
        None,
        "Web origins whose pages may call the API, as `[\"https://example.com\"]`; `[\"*\"]` is every origin. Absent: none.",
    )),
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
