//! Real processes are killed at all points of their work, again and again, and the books are checked each time.
//!
//! `WEIR_TORTURE_KILLS` and `WEIR_TORTURE_SEED` set the number of kills and the seed; `make torture` is a long run.
#![expect(clippy::unwrap_used, reason = "a test that can't go on fails")]

#[path = "../../../accounts/tests/accounts/cluster.rs"]
mod cluster;
mod journal;
mod judge;
mod life;
mod world;

use std::io::Write;

use tokio::time::Instant;

use crate::world::{Tally, World};

/// The number of kills after which a new, empty database is used.
const KILLS_PER_WORLD: u64 = 20;

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().unwrap())
}

fn torture(kills: u64, nodes: u64, database: impl Fn(&tempfile::TempDir) -> String) {
    let (kills, first) = (
        setting("WEIR_TORTURE_KILLS", kills),
        setting("WEIR_TORTURE_SEED", 1),
    );
    let (began, mut tally) = (Instant::now(), Tally::default());
    let mut seeds = first..;
    while tally.kills() < kills {
        let (seed, folder) = (seeds.next().unwrap(), tempfile::tempdir().unwrap());
        let mut world = World::new(seed, database(&folder), nodes);
        let until = kills.min(tally.kills() + KILLS_PER_WORLD);
        while tally.kills() < until {
            world.episode(&mut tally);
        }
    }
    let took = began.elapsed().as_secs();
    let seeds = format!("{first}..{}", seeds.start);
    let mut out = std::io::stdout();
    writeln!(out, "{nodes} at once, seeds {seeds}, {took} s: {tally}").unwrap();
}

#[test]
fn on_sqlite() {
    torture(40, 1, |folder| {
        folder.path().join("weir.db").to_str().unwrap().to_owned()
    });
}

#[test]
fn three_nodes_on_postgres() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    torture(15, 3, |_| runtime.block_on(cluster::create()));
}
