//! Tests of the administrative API. Every answer is validated against the OpenAPI document.

mod accounts;
mod export;
mod keys;
mod money;
mod openapi;
pub(crate) mod reload;

use http::{Request, header};
use serde_json::{Value, json};
use weir_accounts::{KeyOptions, KeyRole};
use weir_testkit::{Answer, TestApp, body, now};

const ROOT: &str = "/admin/v1";

/// An app and the key of an administrator. Values that differ between runs are shown by names: `ACCT1` is the app's
/// account, `KEY0` its key, `ADMIN` the administrator's key, `ACCT2` that key's account.
struct Desk {
    app: TestApp,
    key: String,
    names: Vec<(String, String)>,
    document: Value,
}

impl Desk {
    async fn new() -> Self {
        Desk::of(TestApp::new().await).await
    }

    async fn of(app: TestApp) -> Self {
        let options = KeyOptions {
            role: KeyRole::Admin,
            ..KeyOptions::default()
        };
        let office = app.accounts.add_account("office", now()).await.unwrap().id;
        let key = app
            .accounts
            .add_key_with(&office, options, now())
            .await
            .unwrap();
        let key = key.secret.expose().to_owned();
        let mut desk = Desk {
            names: Vec::new(),
            document: Value::Null,
            key,
            app,
        };
        desk.document = desk.send("GET /openapi.json", "").await.json();
        let [key, admin] = [&desk.app.key, &desk.key].map(|key| public(key).to_owned());
        desk.name(key, "KEY0");
        desk.name(admin, "ADMIN");
        desk.name(desk.app.account.id.to_string(), "ACCT1");
        desk.name(office.to_string(), "ACCT2");
        desk
    }

    fn name(&mut self, real: String, name: impl Into<String>) {
        self.names.push((real, name.into()));
    }

    /// Sends a call such as `POST /refunds #once`: method, path and an optional idempotency key.
    async fn send(&self, call: &str, sent: impl Into<String>) -> Answer {
        let (call, once) = call.split_once(" #").unwrap_or((call, ""));
        let (method, path) = call.split_once(' ').unwrap();
        let mut request = Request::builder()
            .method(method)
            .uri(format!("{ROOT}{}", self.real(path)))
            .header(header::AUTHORIZATION, format!("Bearer {}", self.key));
        if !once.is_empty() {
            request = request.header("idempotency-key", once);
        }
        let sent = self.real(&sent.into());
        let answer = self.app.send(request.body(body(sent)).unwrap()).await;
        if !self.document.is_null() {
            self.hold_to_document(method, path, &answer);
        }
        answer
    }

    /// The answer on one line: its body, or for an error the status, reason, field and message.
    async fn ask(&mut self, call: &str, sent: Value) -> String {
        let sent = if sent.is_null() {
            String::new()
        } else {
            sent.to_string()
        };
        let answer = self.send(call, sent).await;
        let file = !answer
            .header("content-type")
            .starts_with("application/json");
        let json = if file { Value::Null } else { answer.json() };
        if let Some(key) = json["key"].as_str().filter(|key| key.starts_with("sk_")) {
            let made = self
                .names
                .iter()
                .filter(|(_, name)| name.starts_with("KEY"))
                .count();
            if !self.names.iter().any(|(real, _)| real == public(key)) {
                self.name(public(key).to_owned(), format!("KEY{made}"));
            }
            self.names.insert(
                0,
                (
                    key.rsplit('_').next().unwrap().to_owned(),
                    "SECRET".to_owned(),
                ),
            );
        }
        if let Some(id) = json["id"].as_str().filter(|id| id.starts_with("acct_"))
            && !self.names.iter().any(|(real, _)| real == id)
        {
            let made = self
                .names
                .iter()
                .filter(|(_, name)| name.starts_with("ACCT"))
                .count()
                + 1;
            self.name(id.to_owned(), format!("ACCT{made}"));
        }
        let error = &json["error"];
        let line = match answer.status.as_u16() {
            200 if file => answer.text().replace('\r', "␍").replace('\n', "␊"),
            200 => answer.text().to_owned(),
            status => format!(
                "{status} {} {} {}",
                json["reason"].as_str().unwrap(),
                error["param"],
                error["message"].as_str().unwrap()
            ),
        };
        let named = self.names.iter();
        named.fold(line, |line, (real, name)| line.replace(real, name))
    }

    fn real(&self, text: &str) -> String {
        let named = self.names.iter().rev();
        named.fold(text.to_owned(), |text, (real, name)| {
            text.replace(name, real)
        })
    }

    /// Makes the calls one after the other, and compares the answers.
    async fn check(&mut self, rows: &[(&str, Value, &str)]) {
        let mut differ = String::new();
        for (call, sent, expected) in rows {
            let found = self.ask(call, sent.clone()).await;
            if found != *expected {
                differ += &format!("{call} {sent}\n expected: {expected}\n    found: {found}\n");
            }
        }
        assert!(differ.is_empty(), "\n{differ}");
    }

    fn hold_to_document(&self, method: &str, path: &str, answer: &Answer) {
        let path = format!("{ROOT}{}", path.split('?').next().unwrap());
        let path = self.real(&path);
        let fits = |pattern: &str| {
            let (ours, theirs) = (path.split('/'), pattern.split('/'));
            ours.clone().count() == theirs.clone().count()
                && ours
                    .zip(theirs)
                    .all(|(ours, theirs)| ours == theirs || theirs.starts_with('{'))
        };
        let paths = self.document["paths"].as_object().unwrap();
        let Some((_, operations)) = paths.iter().find(|(pattern, _)| fits(pattern)) else {
            panic!("{path} is not in the document");
        };
        let responses = &operations[method.to_lowercase()]["responses"];
        let response = match answer.status.as_u16() {
            200 => &responses["200"],
            _ => &responses["default"],
        };
        let media_type = answer.header("content-type").split(';').next().unwrap();
        let mut schema = response["content"][media_type]["schema"].clone();
        assert!(
            schema.is_object() || schema == true,
            "{method} {path}: {responses}"
        );
        if let Some(schema) = schema.as_object_mut() {
            schema.insert("components".to_owned(), self.document["components"].clone());
        }
        let validator = jsonschema::draft202012::options()
            .should_validate_formats(true)
            .build(&schema)
            .unwrap();
        let json = match media_type {
            "application/json" => vec![answer.json()],
            "application/x-ndjson" => {
                let lines = answer.text().lines();
                lines
                    .map(|line| serde_json::from_str(line).unwrap())
                    .collect()
            }
            _ => vec![answer.text().into()],
        };
        let errors: Vec<_> = json
            .iter()
            .flat_map(|json| validator.iter_errors(json))
            .map(|error| error.to_string())
            .collect();
        assert!(errors.is_empty(), "{method} {path}: {errors:?} in {json:?}");
    }
}

fn public(key: &str) -> &str {
    key.split('_').nth(1).unwrap()
}

/// A call without a body.
fn none() -> Value {
    json!(null)
}
