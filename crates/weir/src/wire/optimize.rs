//! `optimize = "speed"`: opens the requantized copy of a model file, and logs what it is.

use std::path::Path;

use weir_llama::{KL_MEAN_MAX, ModelFile, Requantized, SpeedOptions, for_speed};

/// Opens the faster copy of a file. If there is none, or anything is wrong with it, the file itself is opened.
pub(crate) fn open(
    path: &Path,
    folder: &Path,
    threads: Option<u32>,
) -> Result<ModelFile, weir_llama::LoadError> {
    let options = SpeedOptions {
        folder: folder.to_owned(),
        threads,
        kl_mean_max: KL_MEAN_MAX,
    };
    let copy = match for_speed(path, &options) {
        Ok(Requantized::Copy {
            path,
            formats,
            difference,
            new,
        }) => {
            tracing::info!(
                formats,
                copy = %path.display(),
                new,
                tokens = difference.tokens,
                kl_mean = %format!("{:.5}", difference.kl_mean),
                same_best_percent = %format!("{:.1}", difference.same_best * 100.0),
                "serving a requantized copy, which differs so much from the file"
            );
            Some(path)
        }
        Ok(Requantized::AsItIs { why }) => {
            tracing::info!(why, "optimize = \"speed\" changes nothing");
            None
        }
        Ok(Requantized::TooDifferent { difference }) => {
            tracing::warn!(
                tokens = difference.tokens,
                kl_mean = %format!("{:.5}", difference.kl_mean),
                kl_mean_max = KL_MEAN_MAX,
                "a requantized copy would differ too much: the file is served as it is"
            );
            None
        }
        Err(error) => {
            tracing::warn!(%error, "there is no requantized copy: the file is served as it is");
            None
        }
    };
    let opened = copy.and_then(|copy| {
        let failed = |error| tracing::warn!(%error, "the file is served as it is");
        weir_llama::open(&copy).map_err(failed).ok()
    });
    opened.map_or_else(|| weir_llama::open(path), Ok)
}
