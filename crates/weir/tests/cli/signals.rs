//! Signals to a server.

use rustix::process::Signal;
use tempfile::TempDir;

use crate::WITHOUT_ITS_MODEL;
use crate::server::Server;

#[test]
fn signals_that_mean_nothing_end_nothing() {
    let home = TempDir::new().unwrap();
    let mut server = Server::start(home.path(), WITHOUT_ITS_MODEL, |_| {});
    let harmless = [
        Signal::HUP,
        Signal::USR1,
        Signal::USR2,
        Signal::ALARM,
        Signal::XFSZ,
        Signal::PIPE,
        Signal::WINCH,
        Signal::CONT,
    ];
    for signal in harmless {
        server.signal(signal);
        assert!(
            server.get("/health").starts_with("HTTP/1.1 200 "),
            "{signal:?}"
        );
    }
    server.signal(Signal::TERM);
    assert_eq!(server.event()["event"], "draining");
    // Ignored signals don't count as the second signal to stop, which would cut answers.
    server.signal(Signal::HUP);
    assert!(server.wait().success());
    let log = server.log();
    for name in ["SIGHUP", "SIGUSR1", "SIGUSR2", "SIGALRM", "SIGXFSZ"] {
        assert!(log.contains(&format!("signal={name}")), "{name}: {log}");
    }
    assert!(!log.contains("running answers are cut"), "{log}");
}

#[test]
fn signals_that_stop_do_so_in_order() {
    for (signal, name) in [
        (Signal::INT, "SIGINT"),
        (Signal::TERM, "SIGTERM"),
        (Signal::QUIT, "SIGQUIT"),
    ] {
        let home = TempDir::new().unwrap();
        let mut server = Server::start(home.path(), WITHOUT_ITS_MODEL, |_| {});
        server.signal(signal);
        assert_eq!(server.event()["event"], "draining");
        assert!(server.wait().success(), "{name}");
        assert!(
            server.log().contains(&format!("signal=\"{name}\"")),
            "{name}"
        );
    }
}
