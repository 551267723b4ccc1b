//! Failpoints: named places in the code where a test makes the process die.
//!
//! They exist only with the feature `failpoints`, which releases never have.

#[cfg(feature = "failpoints")]
static STRIKE: std::sync::OnceLock<fn(&'static str)> = std::sync::OnceLock::new();

/// The names of all failpoints.
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

/// Makes the process call `strike` at each of [`PLACES`] that it passes. Only the first call counts.
#[cfg(feature = "failpoints")]
pub fn at_each_place(strike: fn(&'static str)) {
    // A second `strike` is a mistake of the test; the first one stays.
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
