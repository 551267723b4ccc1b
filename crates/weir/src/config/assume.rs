//! Assumptions that replace a missing config file, and models that only the command line names. Each is printed.

use std::path::{Path, PathBuf};

use super::models::{EngineSection, Model};
use super::problem::Invalid;
use super::root::{Config, Source};
use crate::model_file;

/// A model file that `make models` fetches.
struct Known {
    file: &'static str,
    id: &'static str,
    title: &'static str,
    input_price: u64,
    output_price: u64,
}

const KNOWN: &[Known] = &[
    Known {
        file: "SmolLM2-135M-Instruct.Q4_1.gguf",
        id: "HuggingFaceTB/SmolLM2-135M-Instruct",
        title: "SmolLM2 135M Instruct",
        input_price: 200,
        output_price: 400,
    },
    Known {
        file: "gemma-3-270m-q4_k_m.gguf",
        id: "google/gemma-3-270m",
        title: "Gemma 3 270M",
        input_price: 300,
        output_price: 600,
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
    let (id, input, output) = (&model.id, model.input_price, model.output_price);
    let EngineSection::Llama(llama) = model.engine();
    let path = llama.path.display();
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
    let id = known.map_or_else(|| name.trim_end_matches(".gguf"), |known| known.id);
    Some(Model {
        title: known.map(|known| known.title.to_owned()),
        input_price: known.map_or(0, |known| known.input_price),
        output_price: known.map_or(0, |known| known.output_price),
        ..Model::new(id.to_owned(), path.clone())
    })
}
