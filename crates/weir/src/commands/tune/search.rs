//! The search for the best settings. Kinds of settings are tried one after the other, each with the best settings of the
//! kinds before.
//!
//! A machine's speed changes from minute to minute. So candidates are measured in turns, and the best settings so far once
//! more among them.

use std::time::Duration;

use serde::Serialize;

use crate::config::Llama;
use crate::config::models::{FlashAttention, KvFormat, KvLayout, Optimize};

/// The least improvement: measurements differ by some percent, and a smaller gain isn't worth a setting.
const BETTER: f64 = 1.05;
/// The most rounds of measurements: more hardly change a median.
const ROUNDS_MAX: usize = 5;
/// The time for the candidates of one kind. There is only one round if a round takes longer.
const KIND: Duration = Duration::from_secs(40);

/// The settings that the search may change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub(crate) struct Settings {
    pub(crate) threads: u32,
    pub(crate) kv_layout: KvLayout,
    pub(crate) flash_attention: FlashAttention,
    pub(crate) optimize: Optimize,
}

/// Results in tokens per second.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(crate) struct Speed {
    /// Prefill of prompts.
    pub(crate) prompt: f64,
    pub(crate) one_stream: f64,
    /// Decode of all streams together.
    pub(crate) streams: f64,
}

impl Speed {
    /// The geometric mean: doubling any of the three speeds counts the same.
    fn score(self) -> f64 {
        (self.prompt * self.one_stream * self.streams).cbrt()
    }

    fn median(rounds: &[Speed]) -> Speed {
        let median = |of: fn(&Speed) -> f64| {
            let mut all: Vec<f64> = rounds.iter().map(of).collect();
            all.sort_by(f64::total_cmp);
            // The mean of the two middle values, which are the same one if their number is odd.
            f64::midpoint(all[(all.len() - 1) / 2], all[all.len() / 2])
        };
        Speed {
            prompt: median(|speed| speed.prompt),
            one_stream: median(|speed| speed.one_stream),
            streams: median(|speed| speed.streams),
        }
    }
}

/// The result of one measurement.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Measured {
    pub(crate) speed: Speed,
    /// The longest request with these settings, in tokens.
    pub(crate) context_tokens: u32,
    pub(crate) took: Duration,
}

/// Settings with their measured speed.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(crate) struct Trial {
    #[serde(flatten)]
    pub(crate) settings: Settings,
    pub(crate) context_tokens: u32,
    /// Medians over the rounds.
    pub(crate) tokens_per_second: Speed,
}

/// The limits of the search.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Choices<'a> {
    /// The other settings of the model, which stay. They may rule choices out.
    pub(crate) base: &'a Llama,
    /// The cores that this process may use.
    pub(crate) cores: u32,
    /// Whether the model supports split cells.
    pub(crate) splits: bool,
    /// Whether a requantized copy is tried.
    pub(crate) optimize: bool,
}

/// Returns all trials, and the best one. Figures of different kinds are from different minutes.
pub(crate) fn search(
    choices: Choices<'_>,
    mut measure: impl FnMut(Settings) -> anyhow::Result<Measured>,
) -> anyhow::Result<(Vec<Trial>, Trial)> {
    let mut tried: Vec<Trial> = Vec::new();
    let mut best: Option<Trial> = None;
    for kind in [threads, attention, optimize] {
        let new = kind(choices, best.map(|best| best.settings));
        if new.is_empty() {
            continue;
        }
        // The best settings so far come first: a candidate must beat them.
        let before = best.map(|best| best.settings);
        let rivals: Vec<_> = before.into_iter().chain(new).collect();
        let trials = in_turns(&rivals, &mut measure)?;
        let winner = trials.iter().reduce(|best, trial| {
            let (new, old) = (trial.tokens_per_second, best.tokens_per_second);
            if is_better(new, old) { trial } else { best }
        });
        best = winner.copied();
        for trial in trials {
            match tried.iter_mut().find(|it| it.settings == trial.settings) {
                Some(before) => *before = trial,
                None => tried.push(trial),
            }
        }
    }
    let best = best.expect("some number of threads is always tried");
    Ok((tried, best))
}

/// Measures the candidates in rounds, as many as there is time for, and returns the medians.
fn in_turns(
    rivals: &[Settings],
    measure: &mut impl FnMut(Settings) -> anyhow::Result<Measured>,
) -> anyhow::Result<Vec<Trial>> {
    let mut rounds: Vec<Vec<Measured>> = Vec::new();
    let mut spent = Duration::ZERO;
    loop {
        let round: anyhow::Result<Vec<_>> = rivals.iter().map(|&rival| measure(rival)).collect();
        let round = round?;
        let took: Duration = round.iter().map(|measured| measured.took).sum();
        spent += took;
        rounds.push(round);
        if rounds.len() == ROUNDS_MAX || spent + took > KIND {
            break;
        }
    }
    let trials = rivals.iter().enumerate().map(|(rival, &settings)| {
        let speeds: Vec<_> = rounds.iter().map(|round| round[rival].speed).collect();
        Trial {
            settings,
            context_tokens: rounds[0][rival].context_tokens,
            tokens_per_second: Speed::median(&speeds),
        }
    });
    Ok(trials.collect())
}

fn is_better(new: Speed, best: Speed) -> bool {
    new.score() > best.score() * BETTER
}

/// Numbers of threads to try: all cores first, which is the default. Fewer can be faster with two hardware threads per core.
fn threads(choices: Choices<'_>, _best: Option<Settings>) -> Vec<Settings> {
    let Choices { base, cores, .. } = choices;
    let kv_layout = if base.reproducible {
        KvLayout::Split
    } else {
        KvLayout::Unified
    };
    let fused = base.reproducible || base.kv_format == KvFormat::Q8_0;
    let flash_attention = if fused {
        FlashAttention::On
    } else {
        FlashAttention::Off
    };
    let mut counts = vec![cores, cores - cores / 4, cores.div_ceil(2)];
    counts.dedup();
    counts
        .into_iter()
        .map(|threads| Settings {
            threads,
            kv_layout,
            flash_attention,
            optimize: base.optimize,
        })
        .collect()
}

/// Layouts and kernels to try. None for a reproducible model: its cache is split, and only the fused kernel was proven to
/// give the same bits. A cache in `q8_0` requires the fused kernel.
fn attention(choices: Choices<'_>, best: Option<Settings>) -> Vec<Settings> {
    let Some(best) = best.filter(|_| !choices.base.reproducible) else {
        return vec![];
    };
    let layouts = [KvLayout::Unified, KvLayout::Split];
    let kernels = [FlashAttention::Off, FlashAttention::On];
    let all = layouts.into_iter().flat_map(|kv_layout| {
        kernels.map(|flash_attention| Settings {
            kv_layout,
            flash_attention,
            ..best
        })
    });
    let may = |settings: &Settings| {
        let fused = settings.flash_attention == FlashAttention::On;
        let unified = settings.kv_layout == KvLayout::Unified;
        (fused || choices.base.kv_format != KvFormat::Q8_0) && (unified || choices.splits)
    };
    all.filter(|settings| may(settings) && *settings != best)
        .collect()
}

fn optimize(choices: Choices<'_>, best: Option<Settings>) -> Vec<Settings> {
    let best = best.filter(|best| choices.optimize && best.optimize == Optimize::Off);
    best.into_iter()
        .map(|best| Settings {
            optimize: Optimize::Speed,
            ..best
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn base() -> Llama {
        Llama::at("model.gguf".into())
    }

    fn measured(speed: f64, took: Duration) -> Measured {
        Measured {
            speed: Speed {
                prompt: speed,
                one_stream: speed,
                streams: speed,
            },
            context_tokens: 512,
            took,
        }
    }

    fn run(
        base: &Llama,
        cores: u32,
        speed: impl Fn(Settings) -> f64,
    ) -> (Vec<(u32, KvLayout, FlashAttention, Optimize)>, Settings) {
        let choices = Choices {
            base,
            cores,
            splits: true,
            optimize: true,
        };
        let (tried, best) =
            search(choices, |settings| Ok(measured(speed(settings), KIND))).expect("nothing fails");
        let tried = tried.iter().map(|trial| {
            let it = trial.settings;
            (it.threads, it.kv_layout, it.flash_attention, it.optimize)
        });
        (tried.collect(), best.settings)
    }

    #[test]
    fn each_kind_goes_on_from_the_best_before_it() {
        use FlashAttention::{Off, On};
        use KvLayout::{Split, Unified};
        let (tried, best) = run(&base(), 8, |it| {
            let threads = if it.threads == 6 { 100.0 } else { 80.0 };
            let split = if it.kv_layout == Split { 1.2 } else { 1.0 };
            // A gain within the noise of measurements.
            let on = if it.flash_attention == On { 1.04 } else { 1.0 };
            threads * split * on
        });
        let expected = [
            (8, Unified, Off, Optimize::Off),
            (6, Unified, Off, Optimize::Off),
            (4, Unified, Off, Optimize::Off),
            (6, Unified, On, Optimize::Off),
            (6, Split, Off, Optimize::Off),
            (6, Split, On, Optimize::Off),
            (6, Split, Off, Optimize::Speed),
        ];
        assert_eq!(tried, expected);
        let expected = Settings {
            threads: 6,
            kv_layout: Split,
            flash_attention: Off,
            optimize: Optimize::Off,
        };
        assert_eq!(best, expected);
    }

    #[test]
    fn what_the_cache_leaves_no_choice_of_is_not_tried() {
        let check = |base: &Llama, cores, expected: &[(u32, KvLayout, FlashAttention)]| {
            let (tried, _) = run(base, cores, |_| 1.0);
            let got: Vec<_> = tried
                .into_iter()
                .filter(|it| it.3 == Optimize::Off)
                .map(|(threads, layout, attention, _)| (threads, layout, attention))
                .collect();
            assert_eq!(got, expected, "{base:?}");
        };
        use FlashAttention::On;
        use KvLayout::{Split, Unified};
        let reproducible = Llama {
            reproducible: true,
            ..base()
        };
        check(&reproducible, 2, &[(2, Split, On), (1, Split, On)]);
        let q8_0 = Llama {
            kv_format: KvFormat::Q8_0,
            ..base()
        };
        check(&q8_0, 1, &[(1, Unified, On), (1, Split, On)]);
    }

    /// The machine is half as fast in every second round. Measured in turns, candidates are affected alike.
    #[test]
    fn rivals_are_measured_in_turns() {
        let check = |seconds: u64, rounds: usize, expected: [f64; 3]| {
            let rivals = threads(
                Choices {
                    base: &base(),
                    cores: 4,
                    splits: true,
                    optimize: false,
                },
                None,
            );
            let mut order = Vec::new();
            let trials = in_turns(&rivals, &mut |settings| {
                let round = order.len() / rivals.len();
                order.push(settings);
                let slow = if round % 2 == 1 { 2.0 } else { 1.0 };
                let speed = f64::from(settings.threads) / slow;
                Ok(measured(speed, Duration::from_secs(seconds)))
            })
            .expect("nothing fails");
            assert_eq!(order, rivals.repeat(rounds));
            let speeds: Vec<_> = trials
                .iter()
                .map(|trial| trial.tokens_per_second.prompt)
                .collect();
            assert_eq!(speeds, expected);
        };
        check(60, 1, [4.0, 3.0, 2.0]);
        check(6, 2, [3.0, 2.25, 1.5]);
        check(4, 3, [4.0, 3.0, 2.0]);
        check(2, 5, [4.0, 3.0, 2.0]);
    }

    /// If the config serves a requantized copy, the copy is measured.
    #[test]
    fn a_copy_that_is_served_already_is_what_is_measured() {
        let base = Llama {
            optimize: Optimize::Speed,
            ..base()
        };
        let (tried, best) = run(&base, 2, |_| 1.0);
        assert!(tried.iter().all(|it| it.3 == Optimize::Speed), "{tried:?}");
        assert_eq!((tried.len(), best.optimize), (5, Optimize::Speed));
    }
}
