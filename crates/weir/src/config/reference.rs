//! `docs/config.md`, written from the keys.

use super::keys::{Key, VARIABLES, keys};

const HEAD: &str = "\
# Config

<!-- Written by the code, from the types of the sections in crates/weir/src/config. To update:
     UPDATE_DOCS=1 cargo test -p weir --no-default-features docs -->

`weir serve` reads the config file that `--config` or `WEIR_CONFIG` names, else `weir.toml` in the current
directory. Without a config file it serves the model files in `./models` and prints the settings that it assumes.
`weir.toml` in this repository is a commented example; `make serve` uses it. Terms such as KV cache, prefix cache
and step are explained in [glossary.md](glossary.md).

* A key that isn't listed here, or a value that doesn't fit, is an error that names file and line.
* Paths are relative to the directory of the config file.
* Money is whole numbers: prices are in 0.0001 USD per million tokens, so 3900 is $0.39. A model
  without a price can't be served; write 0 if it is free.
* Every value can be overridden by the environment variable in its row, where `<i>` and `<j>` are the
  numbers of the entries, from 0. The options of `weir serve` (`--listen`, `--host`, `--port`, `--model`) and `--data`
  override both. An unknown variable that begins with `WEIR_` is named in a warning.
* A list in a variable is written as in the file, `[\"a\", \"b\"]`, or with commas: `a,b`.
* SIGHUP or `POST /admin/v1/reload` has a running server read the config again: new values of keys marked *live* are used
  at once, those marked *restart* after a restart. An invalid config changes nothing.
* With an invalid config, `weir` ends with exit status 2. `weir config check` names every problem, and starts nothing.
";

pub(crate) fn markdown() -> String {
    let mut page = HEAD.to_owned();
    let mut section = None;
    for key in keys() {
        let (table, name) = key.path.rsplit_once('.').unwrap_or(("", &key.path));
        if section != Some(table) {
            page.push_str(&heading(table));
            section = Some(table);
        }
        page.push_str(&entry(key, name));
    }
    page.push_str("\n## Other environment variables\n\n| variable | what it is |\n|---|---|\n");
    for (name, what) in VARIABLES {
        page.push_str(&format!("| `{name}` | {what} |\n"));
    }
    page
}

fn heading(table: &str) -> String {
    let title = match table {
        "" => "Top".to_owned(),
        list if list.ends_with("[]") => format!("`[[{}]]`", list.replace("[]", "")),
        table => format!("`[{table}]`"),
    };
    format!(
        "\n## {title}\n\n| key | value | default | variable | change | |\n|---|---|---|---|---|---|\n"
    )
}

fn entry(key: &Key, name: &str) -> String {
    let default = match &key.default {
        Some(default) => format!("`{default}`"),
        None => "–".to_owned(),
    };
    format!(
        "| `{name}` | {} | {default} | `{}` | {} | {} |\n",
        key.expected,
        key.variable(),
        if key.live { "live" } else { "restart" },
        key.doc
    )
}
