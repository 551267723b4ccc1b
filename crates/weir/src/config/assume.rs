//! Assumptions that replace a missing config file, and models that only the command line names. Each is printed.

use std::path::{Path, PathBuf};

use super::{Config, Invalid, Llama, Model, Price, Source};
use crate::model_file;

/// A model file that `make models` fetches.
struct Known {
    file: &'static str,
    id: &'static str,
    title: &'static str,
    price: Price,
}

const KNOWN: &[Known] = &[
    Known {
        file: "SmolLM2-135M-Instruct.Q4_1.gguf",
        id: "HuggingFaceTB/SmolLM2-135M-Instruct",
        title: "SmolLM2 135M Instruct",
        price: Price {
            input: 200,
            output: 400,
            cached: None,
        },
    },
    Known {
        file: "gemma-3-270m-q4_k_m.gguf",
        id: "google/gemma-3-270m",
        title: "Gemma 3 270M",
        price: Price {
            input: 300,
            output: 600,
            cached: None,
        },
    },
];

/// Adds the models of the folder `models/`, unless the environment has named some, and notes every assumption.
pub(crate) fn fill_in(config: &mut Config, directory: &Path) {
    let mut said = vec![format!(
        "no config file: listening on {}, data in {}",
        config.listen,
        config.data.display()
    )];
    if config.models.is_empty() {
        config.models = found(&directory.join("models"));
        said.extend(config.models.iter().map(served));
    }
    config.source = Source::Assumed(said);
}

/// The sentence about a model that no config describes.
pub(super) fn served(model: &Model) -> String {
    let Price { input, output, .. } = model.price;
    let path = model.engine.path.display();
    let id = &model.id;
    format!(
        "serving {id} from {path}, price {input} in, {output} out (0.0001 USD per million tokens)"
    )
}

/// The models of files that the command line names.
pub(super) fn models(directory: &Path, files: &[PathBuf]) -> Result<Vec<Model>, Invalid> {
    let mut models: Vec<Model> = Vec::new();
    for file in files {
        let path = directory.join(file);
        model_file::check(&path).map_err(|error| Invalid::from(format!("--model: {error}")))?;
        let model = model(path);
        let model = model
            .ok_or_else(|| Invalid::from(format!("--model: {} has no name", file.display())))?;
        if models.iter().any(|other| other.id == model.id) {
            let message = format!("--model: two models are called {}", model.id);
            return Err(Invalid::from(message));
        }
        models.push(model);
    }
    Ok(models)
}

fn found(directory: &Path) -> Vec<Model> {
    let entries = std::fs::read_dir(directory)
        .into_iter()
        .flatten()
        .filter_map(Result::ok);
    let mut files: Vec<PathBuf> = entries
        .map(|entry| entry.path())
        .filter(|path| {
            path.extension()
                .is_some_and(|extension| extension == "gguf")
        })
        .collect();
    files.sort();
    files.into_iter().filter_map(model).collect()
}

fn model(path: PathBuf) -> Option<Model> {
    let name = path.file_name()?.to_str()?;
    let known = KNOWN.iter().find(|known| known.file == name);
    Some(Model {
        id: known.map_or_else(
            || name.trim_end_matches(".gguf").to_owned(),
            |known| known.id.to_owned(),
        ),
        title: known.map(|known| known.title.to_owned()),
        description: None,
        price: known.map_or(
            Price {
                input: 0,
                output: 0,
                cached: None,
            },
            |known| known.price,
        ),
        output_tokens_max: None,
        engine: Llama::at(path),
    })
}
