//! A running server reads its config again.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;

use rustix::process::Signal;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::server::Server;
use crate::{WITHOUT_ITS_MODEL, json as run_json};

/// Asks for a reload; the answer's status and body.
fn reload(server: &Server, key: &str) -> (u16, Value) {
    let address = server.url.strip_prefix("http://").unwrap();
    let mut stream = TcpStream::connect(address).unwrap();
    let request = format!(
        "POST /admin/v1/reload HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {key}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    (status, serde_json::from_str(body).unwrap())
}

fn admin_key(at: &Path) -> String {
    let key = run_json(at, "key add demo --role admin");
    key["key"].as_str().unwrap().to_owned()
}

#[test]
fn live_keys_change_and_others_wait() {
    let home = TempDir::new().unwrap();
    let mut server = Server::start(home.path(), WITHOUT_ITS_MODEL, |_| {});
    let key = admin_key(home.path());
    let write = |text: &str| std::fs::write(home.path().join("weir.toml"), text).unwrap();
    let told = |changed: &[&str], restart: &[&str]| {
        (
            200,
            json!({"changed": changed, "restart": restart, "warnings": []}),
        )
    };
    assert_eq!(reload(&server, &key), told(&[], &[]));

    let changed = WITHOUT_ITS_MODEL
        .replace("input_price = 0", "input_price = 7\ntitle = \"T\"")
        .replace("missing.gguf", "other.gguf")
        .replace("127.0.0.1:0", "127.0.0.1:1");
    let changed = format!(
        "{changed}[[models]]\nid = \"new\"\ninput_price = 0\noutput_price = 0\n[[models.engines]]\npath = \"n.gguf\"\n\
         [[limits.tiers]]\nname = \"T1\"\n[cors]\norigins = [\"*\"]\n[log]\nfilter = \"warn\"\n\
         [[webhooks]]\nname = \"w\"\nurl = \"https://a.example\"\nsecret = \"whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw\"\n"
    );
    write(&changed);
    let waiting = ["models[new]", "listen", "models[m].engines[0].path"];
    let live = [
        "limits.tiers[T1]",
        "webhooks[w]",
        "cors.origins",
        "log.filter",
        "models[m].input_price",
        "models[m].title",
    ];
    assert_eq!(reload(&server, &key), told(&live, &waiting));
    assert_eq!(reload(&server, &key), told(&[], &waiting));
    let models = server.get("/v1/models");
    assert!(models.contains(r#""title":"T""#), "{models}");
    assert!(!models.contains(r#""id":"new""#), "{models}");
    assert!(models.contains("access-control-allow-origin: *"));

    // An invalid config changes nothing.
    write(&format!("lisen = 1\n{WITHOUT_ITS_MODEL}"));
    let (status, body) = reload(&server, &key);
    assert_eq!((status, &body["reason"]), (409, &json!("CONFIG_INVALID")));
    let message = body["message"].as_str().unwrap();
    assert!(
        message.starts_with("weir.toml:1: unknown key `lisen`"),
        "{message}"
    );
    assert!(server.get("/v1/models").contains(r#""title":"T""#));

    // A key that is changed back doesn't wait for a restart any more.
    write(WITHOUT_ITS_MODEL);
    assert_eq!(reload(&server, &key), told(&live, &[]));
    assert!(server.get("/v1/models").contains(r#""title":"m""#));
    let user = run_json(home.path(), "key add demo")["key"].clone();
    assert_eq!(reload(&server, user.as_str().unwrap()).0, 403);

    server.signal(Signal::TERM);
    assert!(server.wait().success());
    let log = server.log();
    let (info, error) = ("the config was reloaded", "unknown key `lisen`");
    assert_eq!(log.matches(info).count(), 2, "the filter was `warn`: {log}");
    assert_eq!(log.matches(error).count(), 1, "{log}");
}

#[test]
fn a_hangup_reloads() {
    let home = TempDir::new().unwrap();
    let mut server = Server::start(home.path(), WITHOUT_ITS_MODEL, |_| {});
    let titled = WITHOUT_ITS_MODEL.replace("id = ", "title = \"T\"\nid = ");
    std::fs::write(home.path().join("weir.toml"), titled).unwrap();
    server.signal(Signal::HUP);
    while !server.get("/v1/models").contains(r#""title":"T""#) {}
    server.signal(Signal::TERM);
    assert!(server.wait().success());
    let log = server.log();
    let told = r#"the config was reloaded changed=["models[m].title"] restart=[]"#;
    assert_eq!(log.matches(told).count(), 1, "{log}");
}
