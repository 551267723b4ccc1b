//! Condenses many measured times to a few figures.

use std::time::Duration;

use serde_json::{Value, json};

/// Durations whose distribution is reported.
#[derive(Debug, Default)]
pub(super) struct Times(Vec<Duration>);

impl Times {
    pub(super) fn add(&mut self, time: Duration) {
        self.0.push(time);
    }

    pub(super) fn extend(&mut self, times: impl IntoIterator<Item = Duration>) {
        self.0.extend(times);
    }

    /// The figures in milliseconds; `null` if nothing was measured.
    pub(super) fn figures(mut self) -> Value {
        self.0.sort_unstable();
        json!({
            "count": self.0.len(),
            "p50": self.quantile(50),
            "p99": self.quantile(99),
            "max": self.quantile(100),
        })
    }

    /// The smallest time that at least this percentage of the times doesn't exceed, in milliseconds.
    fn quantile(&self, percent: usize) -> Option<f64> {
        let rank = (self.0.len() * percent).div_ceil(100).max(1);
        let time = self.0.get(rank - 1)?;
        Some((time.as_secs_f64() * 1e5).round() / 100.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_by_nearest_rank() {
        let check = |times: &[u64], p50: Value, p99: Value, max: Value| {
            let mut all = Times::default();
            all.extend(times.iter().map(|ms| Duration::from_millis(*ms)));
            let figures = all.figures();
            assert_eq!(figures["count"], times.len());
            assert_eq!(figures["p50"], p50, "{times:?}");
            assert_eq!(figures["p99"], p99, "{times:?}");
            assert_eq!(figures["max"], max, "{times:?}");
        };
        check(&[], Value::Null, Value::Null, Value::Null);
        check(&[7], json!(7.0), json!(7.0), json!(7.0));
        check(&[3, 1, 2, 4], json!(2.0), json!(4.0), json!(4.0));
        let hundred: Vec<u64> = (1..=100).rev().collect();
        check(&hundred, json!(50.0), json!(99.0), json!(100.0));
    }
}
