//! Chooses the sizes of a model's KV cache and of its steps.

use std::thread::available_parallelism;

use weir_inference::model::{Batching, Forks};

use crate::options::{FlashAttention, KvFormat, KvLayout, LoadError, LoadOptions};

/// The properties of a model that sizes depend on.
#[derive(Debug)]
pub(crate) struct Traits {
    /// The longest sequence that the model was trained for, in tokens.
    pub(crate) context_trained: u32,
    pub(crate) vocabulary: u32,
    /// The sliding window in tokens; 0 without one.
    pub(crate) window: u32,
    pub(crate) memory: Memory,
    /// Weights of the layers, without the token embeddings and the output matrix.
    pub(crate) weights: u64,
    /// Numbers per token that attention compares, over all layers.
    pub(crate) compared: u64,
}

/// The contents of the cache for a sequence.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Memory {
    /// A KV cell for each token.
    Cells,
    /// A state of constant size, whatever the sequence's length: a recurrent model.
    State,
    /// Cells and a state: a hybrid model.
    CellsAndState,
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Sizes {
    pub(crate) threads: u32,
    pub(crate) threads_min: u32,
    pub(crate) cells: u32,
    pub(crate) context_tokens: u32,
    pub(crate) sequences: u32,
    pub(crate) rows: u32,
    pub(crate) outputs: u32,
    pub(crate) batching: Batching,
    pub(crate) forks: Forks,
    /// Whether all sequences take their cells from one pool.
    pub(crate) unified: bool,
    pub(crate) flash_attention: bool,
    /// Tokens of a prompt, from its beginning, that background prefill may compute.
    pub(crate) aside_tokens: Option<u32>,
}

/// The most tokens of a step. With more, prompts aren't faster on a CPU, and a step takes seconds.
const ROWS: u32 = 512;
/// Background prefill of fewer tokens isn't worth a second context.
const ASIDE_TOKENS_MIN: u32 = 512;
/// The most tokens of a step without flash attention, which then needs memory for a number per token, cell and head. Prompts
/// are no slower with steps of this size.
const ROWS_UNFUSED: u32 = 128;
/// ggml's limit of threads.
const THREADS_MAX: u32 = 512;
/// llama.cpp's limit of sequences per context.
const SEQUENCES_MAX: u32 = 256;
/// The default number of cells, at least: room for a few dozen streams, also with a short context.
const CELLS_FROM: u32 = 16 * 1024;
/// The default number of cells, at most: a long context doesn't take gigabytes unless asked for.
const CELLS_TO: u32 = 32 * 1024;
/// The largest cache that can be asked for, in cells. llama.cpp's book-keeping alone takes 50 bytes per cell, before it finds
/// out that the cell itself doesn't fit in memory.
const CELLS_MAX: u32 = 1 << 22;
/// Memory for logits. Each sequence needs a row of them, twice (in the graph and outside), so large vocabularies get fewer sequences.
const LOGITS_BYTES: u64 = 64 << 20;
const OUTPUTS_FROM: u64 = 32;
/// The default with split cells, where each sequence takes memory whether or not it is used.
const SEQUENCES_SPLIT: u32 = 8;
/// The default with recurrent states, each of which is as large as some hundred to some thousand cells.
const SEQUENCES_STATES: u32 = 16;
/// The most tokens of a step with one sequence per step (`reproducible`): the chunk size of its prompts. Each may be an output.
const ROWS_ALONE: u32 = 64;
/// From this many tokens of a batch on, ggml's fused attention goes through the cache in tiles. With fewer it goes token by
/// token, which takes longer than a whole tile.
const TILE_ROWS: u32 = 64;
/// llama.cpp rounds each sequence's share of cells up to this.
pub(crate) const SHARE_ALIGNED: u32 = 256;
/// Without flash attention, values are cached in rows with a number per cell. If the rows are a multiple of this many cells long, and
/// so whole pages apart, they compete for the same few lines of the first-level cache, and attention takes up to half as long again.
const CELLS_ALIASED: u32 = 2048;

/// The cost of a product in unfused attention, relative to a product with a weight.
const UNFUSED_COST: u64 = 8;
/// The least result of [`Sizes::ttl_tokens`]: with small models, too, the prefix of one request is there for the next.
const KEEP_ROWS_MIN: u32 = 256;

impl Sizes {
    pub(crate) fn choose(options: &LoadOptions, traits: &Traits) -> Result<Self, LoadError> {
        if traits.memory != Memory::Cells {
            if options.reproducible {
                return Err(LoadError::States("reproducible = true"));
            }
            if options.kv_layout == KvLayout::Split {
                return Err(LoadError::States("kv_layout = \"split\""));
            }
        }
        match (options.reproducible, options.kv_layout) {
            (false, KvLayout::Unified) => Self::unified(options, traits),
            (false, KvLayout::Split) => Self::split(options, traits, Batching::Together),
            (true, _) => Self::split(options, traits, Batching::OneSequence),
        }
    }

    /// The number of cells that the context is made with: more than are used, where that is faster.
    pub(crate) fn cells_allocated(&self) -> u32 {
        let shares = if self.unified { 1 } else { self.sequences };
        if self.flash_attention || !(self.cells / shares).is_multiple_of(CELLS_ALIASED) {
            return self.cells;
        }
        self.cells + shares * SHARE_ALIGNED
    }

    /// The number of tokens of a batch from which attention is computed in tiles, or 1. With split cells attention isn't computed
    /// for the whole batch at once, and sequences are short.
    pub(crate) fn tile_rows(&self, kv_format: KvFormat) -> u32 {
        if self.flash_attention && self.unified && kv_format != KvFormat::Q8_0 {
            TILE_ROWS
        } else {
            1
        }
    }

    /// How long the prefix cache may keep an unused cell, in tokens that streams compute meanwhile (`Model::ttl_tokens`). Computing a
    /// cell takes as many products as the model has weights; each token that passes over the cell takes `compared` products. Fused
    /// attention only reads the mask of another sequence's cell; without, such a product takes some eight times as long as one with a
    /// weight (measured on three models with heads of 64, 128 and 256: decision 0014).
    pub(crate) fn ttl_tokens(&self, traits: &Traits) -> Option<u32> {
        if !self.unified || traits.memory == Memory::State {
            return None;
        }
        let rows = traits.weights / traits.compared.max(1);
        let rows = if self.flash_attention {
            rows
        } else {
            rows / UNFUSED_COST
        };
        Some(u32::try_from(rows).unwrap_or(u32::MAX).max(KEEP_ROWS_MIN))
    }

    fn unified(options: &LoadOptions, traits: &Traits) -> Result<Self, LoadError> {
        let sequences_max = sequences_max(traits);
        let wants_aside = wants_aside(options, traits);
        let (sequences, forks) = match traits.memory {
            // One more sequence is needed to put chunks from background prefill into the cache.
            Memory::Cells => (
                outputs(traits).min(sequences_max - u32::from(wants_aside)),
                Forks::Anywhere,
            ),
            Memory::State | Memory::CellsAndState => (SEQUENCES_STATES, Forks::AtEnd),
        };
        let sequences = pick("sequences", options.sequences, sequences, sequences_max)?;
        let cells = match traits.memory {
            Memory::Cells | Memory::CellsAndState => {
                traits.context_trained.clamp(CELLS_FROM, CELLS_TO)
            }
            // A recurrent model's cells are only counted, and take no memory.
            Memory::State => traits
                .context_trained
                .saturating_mul(sequences)
                .clamp(CELLS_FROM, CELLS_MAX),
        };
        let cells = pick("cells", options.cells, cells, CELLS_MAX)?;
        let context = traits.context_trained.min(cells).max(1);
        let flash_attention = flash_attention(options, traits);
        let threads = threads(options.threads)?;
        let context_tokens = pick("context_tokens", options.context_tokens, context, u32::MAX)?;
        let context_tokens = context_tokens.min(context);
        let aside_tokens = options.aside_tokens.min(context_tokens);
        let has_aside =
            wants_aside && sequences < sequences_max && aside_tokens >= ASIDE_TOKENS_MIN;
        Ok(Sizes {
            threads,
            threads_min: threads_min(options.threads_min, threads, 1)?,
            cells,
            context_tokens,
            sequences,
            rows: rows(flash_attention, sequences).min(cells),
            outputs: sequences,
            batching: Batching::Together,
            forks,
            unified: true,
            flash_attention,
            aside_tokens: has_aside.then_some(aside_tokens),
        })
    }

    /// Each sequence has an equal share of the cells, which holds its whole context.
    fn split(
        options: &LoadOptions,
        traits: &Traits,
        batching: Batching,
    ) -> Result<Self, LoadError> {
        let sequences = pick(
            "sequences",
            options.sequences,
            SEQUENCES_SPLIT,
            SEQUENCES_MAX,
        )?;
        let trained = traits.context_trained.max(1);
        let context =
            pick("context_tokens", options.context_tokens, trained, u32::MAX)?.min(trained);
        let shares = |share: u32| {
            let share = share.div_ceil(SHARE_ALIGNED).saturating_mul(SHARE_ALIGNED);
            share.saturating_mul(sequences).min(CELLS_MAX)
        };
        let default = match options.context_tokens {
            Some(_) => shares(context),
            None => shares(context.min(CELLS_TO / sequences)),
        };
        let cells = shares(pick("cells", options.cells, default, CELLS_MAX)?.div_ceil(sequences));
        let flash_attention = flash_attention(options, traits);
        let (rows, outputs) = match batching {
            Batching::Together => (rows(flash_attention, sequences), outputs(traits)),
            Batching::OneSequence => (ROWS_ALONE, ROWS_ALONE),
        };
        let threads = threads(options.threads)?;
        let fewest = match batching {
            Batching::Together => 1,
            // The order in which attention adds up depends on the number of threads.
            Batching::OneSequence => threads,
        };
        Ok(Sizes {
            threads,
            threads_min: threads_min(options.threads_min, threads, fewest)?,
            cells,
            context_tokens: context.min(cells / sequences),
            sequences,
            rows,
            outputs: outputs.min(rows).max(sequences),
            batching,
            forks: Forks::Anywhere,
            unified: false,
            flash_attention,
            aside_tokens: None,
        })
    }
}

/// Whether background prefill is possible: its attention is fused, which isn't exact enough for a cache in `F32`, and must not be
/// used where it was turned off. Handing over sliding windows and recurrent states isn't implemented.
fn wants_aside(options: &LoadOptions, traits: &Traits) -> bool {
    options.aside_tokens > 0
        && options.flash_attention != FlashAttention::Off
        && options.kv_format != KvFormat::F32
        && traits.memory == Memory::Cells
        && !traits.needs_keeper()
}

fn rows(flash_attention: bool, sequences: u32) -> u32 {
    if flash_attention {
        ROWS
    } else {
        ROWS_UNFUSED.max(sequences)
    }
}

/// The number of logit rows that there is memory for.
fn outputs(traits: &Traits) -> u32 {
    let row_bytes = u64::from(traits.vocabulary).max(1) * 4;
    let rows = (LOGITS_BYTES / row_bytes).clamp(OUTPUTS_FROM, u64::from(SEQUENCES_MAX));
    u32::try_from(rows).expect("no more than SEQUENCES_MAX")
}

/// `Auto` uses the fused kernel where it can skip cells outside of a window, but not where its rounding of 32-bit caches to
/// 16 bits would matter.
fn flash_attention(options: &LoadOptions, traits: &Traits) -> bool {
    match options.flash_attention {
        FlashAttention::On => true,
        FlashAttention::Off => false,
        FlashAttention::Auto => match options.kv_format {
            KvFormat::Q8_0 => true,
            KvFormat::F16 => options.reproducible || traits.needs_keeper(),
            KvFormat::F32 => options.reproducible,
        },
    }
}

pub(crate) fn threads(asked: Option<u32>) -> Result<u32, LoadError> {
    let cores = available_parallelism()
        .map_or(1, |cores| u32::try_from(cores.get()).unwrap_or(THREADS_MAX));
    pick("threads", asked, cores.min(THREADS_MAX), THREADS_MAX)
}

/// The least number of threads: `fewest`, unless more are asked for.
pub(crate) fn threads_min(asked: Option<u32>, threads: u32, fewest: u32) -> Result<u32, LoadError> {
    Ok(pick("threads_min", asked, fewest, threads)?.max(fewest))
}

fn sequences_max(traits: &Traits) -> u32 {
    if traits.needs_keeper() {
        SEQUENCES_MAX / 2
    } else {
        SEQUENCES_MAX
    }
}

impl Traits {
    /// Whether each sequence takes a second id to hold the cells of a sliding window (see `LlamaModel::keep`). Recurrent and hybrid
    /// models fork only at a sequence's end, where the window is complete.
    pub(crate) fn needs_keeper(&self) -> bool {
        self.window > 0 && self.memory == Memory::Cells
    }
}

fn pick(name: &'static str, asked: Option<u32>, default: u32, max: u32) -> Result<u32, LoadError> {
    match asked {
        None => Ok(default),
        Some(value) if (1..=max).contains(&value) => Ok(value),
        Some(value) => Err(LoadError::Option { name, value, max }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Traits of SmolLM2-135M.
    const TRAITS: Traits = Traits {
        context_trained: 8_192,
        vocabulary: 49_152,
        window: 0,
        memory: Memory::Cells,
        weights: 106_000_000,
        compared: 17_280,
    };

    fn check(
        traits: (u32, u32, u32),
        options: LoadOptions,
        expected: Result<(u32, u32, u32), &str>,
    ) {
        let (context_trained, vocabulary, window) = traits;
        let options = LoadOptions {
            threads: Some(2),
            ..options
        };
        let sizes = Sizes::choose(
            &options,
            &Traits {
                context_trained,
                vocabulary,
                window,
                ..TRAITS
            },
        );
        let got = sizes
            .map(|s| (s.cells, s.context_tokens, s.sequences))
            .map_err(|error| error.to_string());
        assert_eq!(
            got,
            expected.map_err(str::to_owned),
            "{traits:?} {options:?}"
        );
    }

    #[test]
    fn a_reproducible_context_is_a_share_of_the_cells() {
        let asked = |cells, context_tokens, sequences| LoadOptions {
            cells,
            context_tokens,
            sequences,
            reproducible: true,
            ..LoadOptions::default()
        };
        let small = (8_192, 49_152, 0);
        check(small, asked(None, None, None), Ok((32_768, 4_096, 8)));
        check(
            (2_048, 32_000, 512),
            asked(None, None, None),
            Ok((16_384, 2_048, 8)),
        );
        check(
            small,
            asked(None, Some(8_192), None),
            Ok((65_536, 8_192, 8)),
        );
        check(
            small,
            asked(None, Some(1_000), Some(3)),
            Ok((3_072, 1_000, 3)),
        );
        check(
            small,
            asked(Some(4_096), None, Some(4)),
            Ok((4_096, 1_024, 4)),
        );
        // Rounded up to 256 cells per sequence, as llama.cpp does.
        check(
            small,
            asked(Some(1_000), None, Some(3)),
            Ok((1_536, 512, 3)),
        );
        check(
            small,
            asked(Some(4_096), Some(8_192), Some(4)),
            Ok((4_096, 1_024, 4)),
        );
        check(
            (32_768, 262_144, 512),
            asked(None, None, Some(256)),
            Ok((65_536, 256, 256)),
        );
        let wrong = "sequences must be between 1 and 256, got 257";
        check(small, asked(None, None, Some(257)), Err(wrong));
    }

    #[test]
    fn without_flash_attention_steps_are_short_but_all_streams_fit() {
        let check = |sequences, flash_attention, expected| {
            let options = LoadOptions {
                threads: Some(2),
                sequences: Some(sequences),
                flash_attention,
                ..LoadOptions::default()
            };
            let sizes = Sizes::choose(&options, &TRAITS).expect("they fit");
            assert_eq!((sizes.rows, sizes.flash_attention), expected, "{options:?}");
        };
        check(8, FlashAttention::Auto, (128, false));
        check(8, FlashAttention::Off, (128, false));
        check(200, FlashAttention::Auto, (200, false));
        check(8, FlashAttention::On, (512, true));
    }

    #[test]
    fn cells_are_kept_for_as_long_as_they_are_worth_it() {
        let check = |options: LoadOptions, window, memory, expected| {
            let options = LoadOptions {
                threads: Some(2),
                ..options
            };
            let traits = Traits {
                window,
                memory,
                ..TRAITS
            };
            let sizes = Sizes::choose(&options, &traits).expect("they fit");
            assert_eq!(
                sizes.ttl_tokens(&traits),
                expected,
                "{options:?} {traits:?}"
            );
        };
        let with = |flash_attention| LoadOptions {
            flash_attention,
            ..LoadOptions::default()
        };
        let split = LoadOptions {
            kv_layout: KvLayout::Split,
            ..LoadOptions::default()
        };
        use Memory::{Cells, CellsAndState, State};
        check(with(FlashAttention::Auto), 0, Cells, Some(766));
        check(with(FlashAttention::On), 0, Cells, Some(6_134));
        // With a sliding window, `Auto` means fused attention.
        check(with(FlashAttention::Auto), 512, Cells, Some(6_134));
        check(with(FlashAttention::Off), 512, Cells, Some(766));
        check(with(FlashAttention::Auto), 512, CellsAndState, Some(766));
        let exact = LoadOptions {
            kv_format: KvFormat::F32,
            ..LoadOptions::default()
        };
        check(exact, 512, Cells, Some(766));
        // Attention never passes over cells that are only kept.
        check(split, 0, Cells, None);
        check(with(FlashAttention::Auto), 0, State, None);
        // With a small model something is kept, too.
        let small = Traits {
            weights: 1_000,
            compared: 100,
            ..TRAITS
        };
        let sizes = Sizes::choose(&LoadOptions::default(), &small).expect("they fit");
        assert_eq!(sizes.ttl_tokens(&small), Some(KEEP_ROWS_MIN));
    }

    #[test]
    fn rows_of_values_are_not_pages_apart() {
        let check = |kv_layout, cells, flash_attention, expected: (u32, u32)| {
            let options = LoadOptions {
                threads: Some(2),
                cells: Some(cells),
                sequences: Some(4),
                kv_layout,
                flash_attention,
                ..LoadOptions::default()
            };
            let sizes = Sizes::choose(&options, &TRAITS).expect("they fit");
            assert_eq!(
                (sizes.cells, sizes.cells_allocated()),
                expected,
                "{options:?}"
            );
        };
        use FlashAttention::{Auto, On};
        check(KvLayout::Unified, 16_384, Auto, (16_384, 16_640));
        check(KvLayout::Unified, 16_384, On, (16_384, 16_384));
        check(KvLayout::Unified, 5_000, Auto, (5_000, 5_000));
        check(KvLayout::Split, 16_384, Auto, (16_384, 17_408));
        check(KvLayout::Split, 16_000, Auto, (16_384, 17_408));
        check(KvLayout::Split, 15_360, Auto, (15_360, 15_360));
    }

    #[test]
    fn split_cells_are_shares_and_rows_of_all_go_together() {
        let check = |vocabulary, options: LoadOptions, expected: (u32, u32, u32, u32, u32)| {
            let options = LoadOptions {
                threads: Some(2),
                kv_layout: KvLayout::Split,
                ..options
            };
            let traits = Traits {
                vocabulary,
                ..TRAITS
            };
            let it = Sizes::choose(&options, &traits).expect("they fit");
            let got = (
                it.cells,
                it.context_tokens,
                it.sequences,
                it.rows,
                it.outputs,
            );
            assert_eq!(got, expected, "{options:?}");
            assert_eq!((it.unified, it.batching), (false, Batching::Together));
        };
        check(49_152, LoadOptions::default(), (32_768, 4_096, 8, 128, 128));
        let many = LoadOptions {
            context_tokens: Some(1_000),
            sequences: Some(200),
            ..LoadOptions::default()
        };
        check(262_144, many, (204_800, 1_000, 200, 200, 200));
        let fused = LoadOptions {
            flash_attention: FlashAttention::On,
            ..LoadOptions::default()
        };
        check(262_144, fused, (32_768, 4_096, 8, 512, 64));
    }

    #[test]
    fn states_are_few_and_a_recurrent_model_has_cells_for_nothing() {
        use Memory::{CellsAndState, State};
        let check = |memory, options: LoadOptions, expected: Result<(u32, u32, u32), &str>| {
            let traits = Traits {
                context_trained: 4_096,
                vocabulary: 65_536,
                memory,
                ..TRAITS
            };
            let options = LoadOptions {
                threads: Some(2),
                ..options
            };
            let sizes = Sizes::choose(&options, &traits);
            let got = sizes.map_err(|error| error.to_string()).map(|it| {
                assert_eq!((it.forks, it.unified), (Forks::AtEnd, true));
                (it.cells, it.context_tokens, it.sequences)
            });
            assert_eq!(got, expected.map_err(str::to_owned), "{options:?}");
        };
        let none = LoadOptions::default;
        check(State, none(), Ok((65_536, 4_096, 16)));
        check(CellsAndState, none(), Ok((16_384, 4_096, 16)));
        let many = LoadOptions {
            cells: Some(8_192),
            sequences: Some(100),
            ..none()
        };
        check(State, many.clone(), Ok((8_192, 4_096, 100)));
        check(CellsAndState, many, Ok((8_192, 4_096, 100)));
        let split = LoadOptions {
            kv_layout: KvLayout::Split,
            ..none()
        };
        let wrong = "kv_layout = \"split\" isn't possible with a recurrent or hybrid model";
        check(CellsAndState, split, Err(wrong));
        let reproducible = LoadOptions {
            reproducible: true,
            ..none()
        };
        let wrong = "reproducible = true isn't possible with a recurrent or hybrid model";
        check(State, reproducible, Err(wrong));
    }

    #[test]
    fn sizes_follow_the_model_unless_asked() {
        let none = LoadOptions::default;
        let small = (8_192, 49_152, 0);
        check(small, none(), Ok((16_384, 8_192, 256)));
        check((131_072, 128_256, 0), none(), Ok((32_768, 32_768, 130)));
        check((32_768, 262_144, 512), none(), Ok((32_768, 32_768, 64)));
        check((2_048, 32_000, 512), none(), Ok((16_384, 2_048, 128)));
        check((2_048, 1_000_000, 0), none(), Ok((16_384, 2_048, 32)));
        check((0, 0, 0), none(), Ok((16_384, 1, 256)));
        check(
            small,
            LoadOptions {
                cells: Some(1_000),
                ..none()
            },
            Ok((1_000, 1_000, 256)),
        );
        check(
            small,
            LoadOptions {
                context_tokens: Some(100),
                ..none()
            },
            Ok((16_384, 100, 256)),
        );
        check(
            small,
            LoadOptions {
                context_tokens: Some(100_000),
                ..none()
            },
            Ok((16_384, 8_192, 256)),
        );
        check(
            small,
            LoadOptions {
                sequences: Some(3),
                ..none()
            },
            Ok((16_384, 8_192, 3)),
        );
        let wrong = "sequences must be between 1 and 256, got 257";
        check(
            small,
            LoadOptions {
                sequences: Some(257),
                ..none()
            },
            Err(wrong),
        );
        let wrong = "sequences must be between 1 and 128, got 129";
        check(
            (8_192, 49_152, 512),
            LoadOptions {
                sequences: Some(129),
                ..none()
            },
            Err(wrong),
        );
        let wrong = "cells must be between 1 and 4194304, got 0";
        check(
            small,
            LoadOptions {
                cells: Some(0),
                ..none()
            },
            Err(wrong),
        );
        let wrong = "context_tokens must be between 1 and 4294967295, got 0";
        check(
            small,
            LoadOptions {
                context_tokens: Some(0),
                ..none()
            },
            Err(wrong),
        );
    }
}
