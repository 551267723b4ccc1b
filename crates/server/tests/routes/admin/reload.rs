//! Tests of `POST /admin/v1/reload`.

use tokio::task::JoinSet;
use weir_server::{Problems, Reload, Reloaded};
use weir_testkit::TestApp;

use super::{Desk, none};

/// Answers every request for a reload with this result, until the value is dropped.
pub(crate) fn answer(app: &mut TestApp, result: Result<Reloaded, Problems>) -> JoinSet<()> {
    let (reload, mut requests) = Reload::channel();
    app.app = app.app.clone().with_reload(reload);
    let mut answering = JoinSet::new();
    answering.spawn(async move {
        while let Some(request) = requests.recv().await {
            request.send(result.clone()).unwrap();
        }
    });
    answering
}

#[tokio::test]
async fn the_config_is_read_again() {
    let mut desk = Desk::new().await;
    let once = "POST /reload";
    let without = "501 NOT_IMPLEMENTED null this server was started without a config";
    desk.check(&[(once, none(), without)]).await;

    let reloaded = Reloaded {
        changed: vec!["log.filter".to_owned()],
        restart: vec!["models[m].engines[0].path".to_owned()],
        warnings: Vec::new(),
    };
    let _answering = answer(&mut desk.app, Ok(reloaded));
    let told =
        r#"{"changed":["log.filter"],"restart":["models[m].engines[0].path"],"warnings":[]}"#;
    desk.check(&[(once, none(), told)]).await;

    let wrong = vec!["weir.toml:1: unknown key `a`".to_owned()];
    let _answering = answer(&mut desk.app, Err(wrong));
    let refused = "409 CONFIG_INVALID null weir.toml:1: unknown key `a`";
    desk.check(&[(once, none(), refused)]).await;

    let (reload, requests) = Reload::channel();
    desk.app.app = desk.app.app.clone().with_reload(reload);
    drop(requests);
    let stops =
        "503 SERVICE_NOT_AVAILABLE null the server stops, and doesn't read its config any more";
    desk.check(&[(once, none(), stops)]).await;
}
