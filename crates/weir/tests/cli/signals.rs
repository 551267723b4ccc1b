//! Signals to a server.

use std::process::Command;

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
        Signal::XCPU,
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
    // Real-time signals, which have no names here: kill sends them by number.
    let process = server.process.id().to_string();
    for number in 34..=64 {
        let sent = Command::new("kill")
            .args([&format!("-{number}"), &process])
            .status();
        assert!(sent.unwrap().success(), "{number}");
        assert!(
            server.get("/health").starts_with("HTTP/1.1 200 "),
            "{number}"
        );
    }
    server.signal(Signal::TERM);
    assert_eq!(server.event()["event"], "draining");
    // Ignored signals don't count as the second signal to stop, which would cut answers.
    server.signal(Signal::HUP);
    assert!(server.wait().success());
    let log = server.log();
    // The first SIGHUP is a reload (`reload.rs`), the one while the server drains is nothing.
    for name in ["SIGUSR1", "SIGUSR2", "SIGALRM", "SIGXFSZ", "SIGXCPU"] {
        assert!(log.contains(&format!("signal={name}")), "{name}: {log}");
    }
    for number in 34..=64 {
        assert!(
            log.contains(&format!("signal=SIG{number}")),
            "{number}: {log}"
        );
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
