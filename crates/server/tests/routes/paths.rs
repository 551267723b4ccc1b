//! Base paths, slashes, encodings and methods: every request goes through the table of routes.

use http::{Method, Request};
use serde_json::json;
use weir_accounts::KeyRole::{self, Admin, Billing, Viewer};
use weir_server::{Auth, BASES, Under, routes};
use weir_testkit::{TestApp, body};

use crate::{chat, completion};

const READS: Auth = Auth::Admin(&[Admin, Billing, Viewer]);
const MOVES_MONEY: Auth = Auth::Admin(&[Admin, Billing]);
const ADMINISTERS: Auth = Auth::Admin(&[Admin]);

/// The routes that this file and `auth.rs` test. A new route has to be added here, with the keys that may use it.
const KNOWN: &[(&str, &str, Auth)] = &[
    ("POST", "/chat/completions", Auth::Key),
    ("POST", "/completions", Auth::Key),
    ("POST", "/embeddings", Auth::Key),
    ("POST", "/tokenize", Auth::Key),
    ("POST", "/detokenize", Auth::Key),
    ("POST", "/count", Auth::Key),
    ("GET", "/key", Auth::AnyKey),
    ("GET", "/v3/user", Auth::AnyKey),
    ("GET", "/openapi/v1/billing/balance/detail", Auth::AnyKey),
    ("GET", "/openapi/v1/billing/bill/list", Auth::AnyKey),
    ("GET", "/openapi/v1/billing/monthly/bill", Auth::AnyKey),
    ("GET", "/models", Auth::Open),
    ("GET", "/models/{*id}", Auth::Open),
    ("GET", "/health", Auth::Open),
    ("GET", "/ready", Auth::Open),
    ("GET", "/admin/v1/accounts", READS),
    ("POST", "/admin/v1/accounts", ADMINISTERS),
    ("GET", "/admin/v1/accounts/{account}", READS),
    ("PATCH", "/admin/v1/accounts/{account}", ADMINISTERS),
    ("DELETE", "/admin/v1/accounts/{account}", ADMINISTERS),
    ("GET", "/admin/v1/accounts/{account}/keys", READS),
    ("POST", "/admin/v1/accounts/{account}/keys", ADMINISTERS),
    ("GET", "/admin/v1/keys/{key}", READS),
    ("PATCH", "/admin/v1/keys/{key}", ADMINISTERS),
    ("POST", "/admin/v1/keys/{key}/rotate", ADMINISTERS),
    ("POST", "/admin/v1/keys/{key}/revoke", ADMINISTERS),
    ("POST", "/admin/v1/accounts/{account}/credits", MOVES_MONEY),
    ("POST", "/admin/v1/accounts/{account}/promos", MOVES_MONEY),
    (
        "POST",
        "/admin/v1/accounts/{account}/adjustments",
        MOVES_MONEY,
    ),
    ("POST", "/admin/v1/refunds", MOVES_MONEY),
    ("GET", "/admin/v1/accounts/{account}/usage", READS),
    ("GET", "/admin/v1/accounts/{account}/ledger", READS),
    ("GET", "/admin/v1/audit", READS),
    ("GET", "/admin/v1/usage/export", READS),
    ("POST", "/admin/v1/reload", ADMINISTERS),
    ("GET", "/admin/v1/openapi.json", READS),
];

#[test]
fn every_route_is_in_the_matrix() {
    let routes: Vec<_> = routes()
        .map(|route| (route.method.as_str(), route.path, route.auth))
        .collect();
    assert_eq!(routes, KNOWN);
    let administers = |role: &KeyRole| *role != KeyRole::Inference;
    for (_, path, auth) in KNOWN {
        let admin = path.starts_with("/admin/");
        let roles = matches!(auth, Auth::Admin(roles) if roles.iter().all(administers));
        assert_eq!(admin, roles, "{path}");
    }
}

/// All ways to write a path under a base path.
fn spellings(path: &str) -> [String; 5] {
    let inner = path.trim_start_matches('/');
    [
        format!("/{inner}"),
        format!("//{inner}"),
        format!("/{inner}/"),
        format!("///{inner}//"),
        format!("/{inner}?a=b&c=//"),
    ]
}

#[tokio::test]
async fn every_base_and_slash() {
    let app = TestApp::new().await;
    for base in BASES {
        for path in spellings("/chat/completions") {
            let answer = app
                .post(&format!("{base}{path}"), chat(json!({"max_tokens": 1})))
                .await;
            assert_eq!(answer.status, 200, "{base}{path}: {}", answer.text());
        }
        for path in spellings("/completions") {
            let answer = app
                .post(
                    &format!("{base}{path}"),
                    completion(json!({"max_tokens": 1})),
                )
                .await;
            assert_eq!(answer.status, 200, "{base}{path}: {}", answer.text());
        }
        for path in [
            spellings("/models"),
            spellings("/models/sim/chat"),
            spellings("/models/sim%2Fchat"),
        ]
        .concat()
        {
            let answer = app.get(&format!("{base}{path}")).await;
            assert_eq!(answer.status, 200, "{base}{path}: {}", answer.text());
            assert_eq!(
                app.get(&format!("/{}{path}", base.replace('/', "//")))
                    .await
                    .status,
                200
            );
        }
    }
}

/// A wrong method gets 405 with `Allow`, with and without a key. HEAD works like GET.
#[tokio::test]
async fn methods() {
    let app = TestApp::new().await;
    for route in routes() {
        let same = routes().filter(|other| other.path == route.path);
        let methods: Vec<_> = same.map(|route| route.method.as_str()).collect();
        let allowed = methods.join(",").replace("GET", "GET,HEAD");
        for base in route.under.bases() {
            let path = format!("{base}{}", route.path.replace("{*id}", "sim/chat"));
            for method in [
                Method::GET,
                Method::HEAD,
                Method::POST,
                Method::PUT,
                Method::DELETE,
                Method::PATCH,
                Method::OPTIONS,
            ] {
                if allowed.contains(method.as_str()) {
                    continue;
                }
                let request = Request::builder()
                    .method(&method)
                    .uri(&path)
                    .body(body(""))
                    .unwrap();
                let answer = app.send(request).await;
                assert_eq!(answer.status, 405, "{method} {path}");
                assert_eq!(answer.header("allow"), allowed, "{method} {path}");
                if method != Method::HEAD {
                    assert_eq!(answer.json()["reason"], "METHOD_NOT_ALLOWED");
                }
            }
        }
    }
    let head = Request::head("/v1/models").body(body("")).unwrap();
    let head = app.send(head).await;
    assert_eq!((head.status.as_u16(), head.body.len()), (200, 0));
}

/// No way to write a path reaches a handler except through its route.
#[tokio::test]
async fn unknown_paths() {
    let app = TestApp::new().await;
    let paths = [
        "/",
        "//",
        "/v1",
        "/v1/",
        "/v2/models",
        "/v3/models",
        "/v3/v1/models",
        "/chat/completions",
        "/models",
        "/v1/health",
        "/v1%2Fmodels",
        "/v1/chat%2Fcompletions",
        "/v1/chat/completions;x",
        "/v1;x/models",
        "/V1/models",
        "/v1/Models",
        "/v1/./models",
        "/v1/chat/../completions",
        "/v1/chat/completions/x",
        "/v1/models%00",
        "/v1\\models",
        "/health/x",
        "/v1/chat",
        "/v1/chat/completions.json",
        "/%76%31%2Fmodels",
        "/v1/completions%20",
        "/v1/engines/x/completions",
    ];
    for path in paths {
        let Ok(request) = Request::get(path).body(body("")) else {
            continue;
        };
        let answer = app.send(request).await;
        assert_eq!(
            (answer.status.as_u16(), &answer.json()["reason"]),
            (404, &json!("NOT_FOUND")),
            "{path}"
        );
        let answer = app.post(path, chat(json!({}))).await;
        assert_eq!(
            (answer.status.as_u16(), &answer.json()["reason"]),
            (404, &json!("NOT_FOUND")),
            "POST {path}"
        );
    }
}

/// Neither the authority of a URI nor the `Host` header affects routing or authentication.
#[tokio::test]
async fn hosts() {
    let app = TestApp::new().await;
    for authority in [
        "http://evil.example",
        "http://evil.example:1",
        "http://127.0.0.1",
    ] {
        for host in ["evil.example", "a/../v1/models", "", "localhost/v1/models?"] {
            let send = |method: Method, path: &str| {
                let request = Request::builder()
                    .method(method)
                    .uri(format!("{authority}{path}"))
                    .header("host", host);
                app.send(request.body(body(chat(json!({})))).unwrap())
            };
            assert_eq!(send(Method::GET, "//v1//models").await.status, 200);
            assert_eq!(send(Method::POST, "/v1/chat/completions").await.status, 401);
            assert_eq!(
                send(Method::POST, "/v1/models/../chat/completions")
                    .await
                    .status,
                405
            );
        }
    }
    let star = Request::options("*").body(body("")).unwrap();
    assert_eq!(app.send(star).await.status, 404);
    let connect = Request::builder()
        .method(Method::CONNECT)
        .uri("evil.example:443")
        .body(body(""))
        .unwrap();
    assert!(app.send(connect).await.status.is_client_error());
}

#[test]
fn bases_are_those_of_the_contract() {
    assert_eq!(
        BASES,
        [
            "/v3/openai",
            "/v3/openai/v1",
            "/openai",
            "/openai/v1",
            "/v1"
        ]
    );
    assert_eq!(Under::Root.bases(), [""]);
    assert_eq!(Under::Both.bases(), [&BASES[..], &[""]].concat());
}
