//! `weir tune`: finds the settings with which a model is fastest on this machine.

mod search;
mod write;

use std::path::{Path, PathBuf};
use std::thread::available_parallelism;

use anyhow::bail;
use serde_json::json;
use toml_edit::Value;

use self::search::{Choices, Measured, Settings, Trial, search};
use crate::cli::Tune;
use crate::config::models::{KvLayout, Optimize};
use crate::config::types::word;
use crate::config::{Config, EngineSection, Llama, Source};
use crate::{model_file, output};

/// Measures settings, prints the results, and with `--write` writes the best to the config.
pub(crate) fn tune(config: &Config, command: &Tune) -> anyhow::Result<()> {
    let place = Place::find(config, command)?;
    model_file::check(&place.engine.path)?;
    let cores = available_parallelism().map_or(1, |cores| u32::try_from(cores.get()).unwrap_or(1));
    let mut bench = bench::Bench::new(&place.engine, command, config)?;
    let choices = Choices {
        base: &place.engine,
        cores,
        splits: bench.splits(),
        optimize: command.optimize,
    };
    let (tried, best) = search(choices, |settings| {
        output::note(&format!("measuring {settings}"));
        bench.measure(settings)
    })?;
    let keys = keys(&best.settings, command, place.engine.context_tokens);
    print(command, bench.depth(), &tried, &best.settings, &keys)?;
    if best.settings.kv_layout == KvLayout::Split {
        let bound = best.context_tokens;
        output::note(&format!(
            "with split cells a request has {bound} tokens at most, prompt and answer: see context_tokens and cells"
        ));
    }
    if let (true, Some(file)) = (command.write, &place.file) {
        write::write(file, &command.model, &keys)?;
        output::note(&format!("written to {}", file.display()));
    }
    Ok(())
}

/// The engine that is measured, and the config file that has it, if any.
struct Place {
    engine: Llama,
    file: Option<PathBuf>,
}

impl Place {
    fn find(config: &Config, command: &Tune) -> anyhow::Result<Self> {
        let name = &command.model;
        let model = config.models.iter().find(|model| model.id == *name);
        let file = match &config.source {
            Source::File(path) => model.map(|_| path.clone()),
            Source::Assumed(_) => None,
        };
        if command.write && file.is_none() {
            bail!("--write needs a model of a config file, and {name} is in none");
        }
        let engine = match model {
            Some(model) => {
                let EngineSection::Llama(llama) = model.engine();
                llama.clone()
            }
            None if Path::new(name).is_file() => Llama::at(PathBuf::from(name)),
            None => bail!("{name} is neither a model of the config nor a file"),
        };
        Ok(Place { engine, file })
    }
}

/// The config keys for these settings.
fn keys(
    best: &Settings,
    command: &Tune,
    context_tokens: Option<u32>,
) -> Vec<(&'static str, Value)> {
    let mut keys = vec![
        ("threads", i64::from(best.threads).into()),
        ("flash_attention", word(best.flash_attention).into()),
        ("kv_layout", word(best.kv_layout).into()),
    ];
    if best.kv_layout == KvLayout::Split {
        keys.push(("sequences", i64::from(command.streams).into()));
        // The length that the split cells were measured with.
        if let (None, Some(tokens)) = (context_tokens, command.tokens) {
            keys.push(("context_tokens", i64::from(tokens).into()));
        }
    }
    if best.optimize == Optimize::Speed {
        keys.push(("optimize", word(best.optimize).into()));
    }
    keys
}

fn print(
    command: &Tune,
    depth: u32,
    tried: &[Trial],
    best: &Settings,
    keys: &[(&str, Value)],
) -> anyhow::Result<()> {
    if command.output.json {
        let all = json!({ "model": command.model, "streams": command.streams, "depth": depth, "tried": tried, "best": best });
        output::one(command.output, &all, "")?;
        return Ok(());
    }
    let streams = format!("{} STREAMS", command.streams);
    let head = [
        "",
        "THREADS",
        "KV_LAYOUT",
        "FLASH_ATTENTION",
        "OPTIMIZE",
        "CONTEXT",
        "PROMPT",
        "1 STREAM",
        &streams,
    ];
    output::list(command.output, &head, tried, |trial| {
        let Trial {
            settings,
            context_tokens,
            tokens_per_second: speed,
        } = trial;
        let mark = if settings == best { "best" } else { "" };
        let mut cells = vec![
            mark.to_owned(),
            settings.threads.to_string(),
            word(settings.kv_layout),
            word(settings.flash_attention),
            word(settings.optimize),
            context_tokens.to_string(),
        ];
        let speeds = [speed.prompt, speed.one_stream, speed.streams];
        cells.extend(speeds.map(|speed| format!("{speed:.1}")));
        cells
    })?;
    output::line(&format!(
        "(tokens per second, of streams behind {depth} tokens)\n\n[[models.engines]]"
    ))?;
    for (name, value) in keys {
        output::line(&format!("{name} = {value}"))?;
    }
    Ok(())
}

impl std::fmt::Display for Settings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "threads = {}, kv_layout = {}, flash_attention = {}, optimize = {}",
            self.threads,
            word(self.kv_layout),
            word(self.flash_attention),
            word(self.optimize)
        )
    }
}

#[cfg(feature = "llama")]
mod bench {
    use anyhow::Context;
    use weir_inference::model::Model;
    use weir_llama::{ModelFile, Workload};

    use super::search::Speed;
    use super::{Config, KvLayout, Llama, Measured, Optimize, Settings, Tune};
    use crate::wire::{self, model_files::ModelFiles};

    /// Loads the model anew for each of the settings, and measures it.
    pub(super) struct Bench<'a> {
        base: &'a Llama,
        file: ModelFile,
        streams: u32,
        tokens: Option<u32>,
        config: &'a Config,
        /// The workload, which is the same for all settings.
        workload: Option<Workload>,
    }

    impl<'a> Bench<'a> {
        pub(super) fn new(
            base: &'a Llama,
            command: &Tune,
            config: &'a Config,
        ) -> anyhow::Result<Self> {
            let known = ModelFiles::open(&config.data);
            known.admit(&base.path, &wire::serve_options(base))?;
            Ok(Bench {
                base,
                file: weir_llama::open(&base.path)?,
                streams: command.streams,
                tokens: command.tokens,
                config,
                workload: None,
            })
        }

        pub(super) fn splits(&self) -> bool {
            !self.file.has_states()
        }

        /// Tokens before each measured stream.
        pub(super) fn depth(&self) -> u32 {
            self.workload.map_or(0, |workload| workload.depth)
        }

        pub(super) fn measure(&mut self, settings: Settings) -> anyhow::Result<Measured> {
            let Settings {
                threads,
                kv_layout,
                flash_attention,
                optimize,
            } = settings;
            let split = kv_layout == KvLayout::Split;
            let llama = Llama {
                threads: Some(threads),
                // The number of threads that is compared must not change during a measurement.
                threads_min: Some(threads),
                kv_layout,
                flash_attention,
                optimize,
                // Steps are measured, not background prefill.
                aside_tokens: 0,
                // With split cells, a sequence gets as many cells as a measured request needs.
                context_tokens: match (self.base.context_tokens, self.tokens) {
                    (None, Some(tokens)) if split => Some(tokens),
                    (asked, _) => asked,
                },
                // With split cells, the number that is measured and recommended.
                sequences: match self.base.sequences {
                    _ if split => Some(self.streams),
                    Some(sequences) => Some(sequences.max(self.streams)),
                    // The default is higher than the number of measured streams, except for models with recurrent states.
                    None => self.file.has_states().then_some(self.streams),
                },
                ..self.base.clone()
            };
            let options = wire::load_options(&llama);
            let mut model = match optimize {
                Optimize::Off => self.file.model(&options)?,
                Optimize::Speed => {
                    wire::open(&llama, &wire::requantized(self.config))?.model(&options)?
                }
            };
            let workload = match self.workload {
                Some(workload) => workload,
                None => {
                    *self
                        .workload
                        .insert(Workload::fit(&mut model, self.streams, self.tokens)?)
                }
            };
            let speed = workload.measure(&mut model).context("measuring")?;
            Ok(Measured {
                speed: Speed {
                    prompt: speed.prompt,
                    one_stream: speed.one,
                    streams: speed.many,
                },
                context_tokens: model.facts().context_tokens,
                took: speed.took,
            })
        }
    }
}

#[cfg(not(feature = "llama"))]
mod bench {
    use super::{Config, Llama, Measured, Settings, Tune};

    pub(super) struct Bench;

    impl Bench {
        pub(super) fn new(
            _base: &Llama,
            _command: &Tune,
            _config: &Config,
        ) -> anyhow::Result<Self> {
            anyhow::bail!("this program was built without the embedded engine")
        }

        pub(super) fn splits(&self) -> bool {
            false
        }

        pub(super) fn depth(&self) -> u32 {
            0
        }

        pub(super) fn measure(&mut self, _settings: Settings) -> anyhow::Result<Measured> {
            unreachable!("there is nothing to measure with")
        }
    }
}
