//! Writes settings to a config file, and leaves the rest of the file as it is.

use std::fs;
use std::io::Write;
use std::path::Path;

use anyhow::Context;
use toml_edit::{DocumentMut, Item, Table, Value, value};

/// Sets keys of the model's engine.
pub(crate) fn write(path: &Path, model: &str, settings: &[(&str, Value)]) -> anyhow::Result<()> {
    // Replaces the file that a symbolic link points to, not the link.
    let path = fs::canonicalize(path).with_context(|| path.display().to_string())?;
    let shown = || path.display().to_string();
    let text = fs::read_to_string(&path).with_context(shown)?;
    let text = set(&text, model, settings).with_context(shown)?;
    let folder = path.parent().unwrap_or(Path::new("/"));
    let mut file = tempfile::NamedTempFile::new_in(folder).with_context(shown)?;
    file.write_all(text.as_bytes()).with_context(shown)?;
    let permissions = fs::metadata(&path).with_context(shown)?.permissions();
    fs::set_permissions(file.path(), permissions).with_context(shown)?;
    file.as_file().sync_all().with_context(shown)?;
    file.persist(&path).with_context(shown)?;
    Ok(())
}

fn set(text: &str, model: &str, settings: &[(&str, Value)]) -> anyhow::Result<String> {
    let mut document: DocumentMut = text.parse()?;
    let engine = engine_of(&mut document, model)
        .with_context(|| format!("there is no [[models.engines]] of {model} to write to"))?;
    for (name, new) in settings {
        engine.insert(name, value(new.clone()));
    }
    Ok(document.to_string())
}

fn engine_of<'a>(document: &'a mut DocumentMut, model: &str) -> Option<&'a mut Table> {
    let models = document.get_mut("models")?.as_array_of_tables_mut()?;
    let model = models
        .iter_mut()
        .find(|table| table.get("id").and_then(Item::as_str) == Some(model))?;
    model
        .get_mut("engines")?
        .as_array_of_tables_mut()?
        .get_mut(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONFIG: &str = r#"# mine
listen = "127.0.0.1:1" # here

[[models]]
id = "a"
[[models.engines]]
path = "a.gguf"

[[models]]
id = "b"
[[models.engines]]
path = "b.gguf" # the large one
threads = 8 # all
# the end
"#;

    fn settings() -> [(&'static str, Value); 2] {
        [("threads", 2.into()), ("kv_layout", "split".into())]
    }

    #[test]
    fn only_the_settings_change() {
        let got = set(CONFIG, "b", &settings()).expect("b has an engine");
        let expected = CONFIG.replace(
            "threads = 8 # all\n",
            "threads = 2\nkv_layout = \"split\"\n",
        );
        assert_eq!(got, expected);
        let got = set(CONFIG, "a", &settings()).expect("a has an engine");
        let new = "path = \"a.gguf\"\nthreads = 2\nkv_layout = \"split\"\n";
        assert_eq!(got, CONFIG.replace("path = \"a.gguf\"\n", new));
    }

    #[test]
    fn what_has_no_place_is_an_error() {
        let check = |text: &str, model| {
            let error = set(text, model, &settings()).expect_err(text);
            let expected = format!("there is no [[models.engines]] of {model} to write to");
            assert_eq!(error.to_string(), expected);
        };
        check(CONFIG, "c");
        check("", "a");
        check("models = [{ id = \"a\" }]", "a");
        check("[[models]]\nid = \"a\"\n", "a");
    }

    #[test]
    fn a_file_is_replaced_as_a_whole_and_a_link_stays_one() {
        let folder = tempfile::tempdir().expect("a directory");
        let (file, link) = (folder.path().join("weir.toml"), folder.path().join("link"));
        fs::write(&file, CONFIG).expect("it can be written");
        std::os::unix::fs::symlink(&file, &link).expect("a link");
        let mode = {
            use std::os::unix::fs::PermissionsExt;
            fs::set_permissions(&file, fs::Permissions::from_mode(0o640)).expect("it is ours");
            || {
                fs::metadata(&file)
                    .expect("it is there")
                    .permissions()
                    .mode()
                    & 0o777
            }
        };
        write(&link, "b", &settings()).expect("b has an engine");
        let text = fs::read_to_string(&file).expect("it is there");
        assert!(text.contains("kv_layout = \"split\""), "{text}");
        assert!(link.is_symlink());
        assert_eq!(mode(), 0o640);
        write(&link, "c", &settings()).expect_err("c isn't there");
        assert_eq!(fs::read_to_string(&file).expect("it is there"), text);
        assert_eq!(fs::read_dir(folder.path()).expect("a directory").count(), 2);
    }
}
