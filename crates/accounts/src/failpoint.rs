//! Places where a test lets the process die, in the middle of what it does.
//!
//! They are there only with the feature `failpoints`, which the product never has.

#[cfg(feature = "failpoints")]
static STRIKE: std::sync::OnceLock<fn(&'static str)> = std::sync::OnceLock::new();

/// All of them.
#[cfg(feature = "failpoints")]
pub const PLACES: [&str; 12] = [
    "migration",
    "recovery-begun",
    "recovery-committed",
    "hold-written",
    "hold-committed",
    "extension-written",
    "extension-committed",
    "checkpoint-written",
    "checkpoint-committed",
    "settlement-begun",
    "usage-written",
    "settlement-committed",
];

/// Calls this wherever the process passes one of [`PLACES`]. Only the first call counts.
#[cfg(feature = "failpoints")]
pub fn at_each_place(strike: fn(&'static str)) {
    // A second one would be a test that contradicts itself; the first one goes on.
    let _ = STRIKE.set(strike);
}

#[cfg(feature = "failpoints")]
pub(crate) fn pass(place: &'static str) {
    if let Some(strike) = STRIKE.get() {
        strike(place);
    }
}

#[cfg(not(feature = "failpoints"))]
pub(crate) fn pass(_place: &'static str) {}
