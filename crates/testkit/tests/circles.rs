//! No circle of more than three files in a crate, so that each part of it can be read and changed without all others.
//!
//! A file uses another one if its product code names an item of that file: in a `use`, or as a path such as
//! `crate::money::Nanos`, `super::Book` or `clock::note`. The rules:
//!
//! * An item counts for the file that defines it, also where the name comes through a re-export.
//! * A re-export (`pub use`) is no use, and neither is `mod x;` nor the import of a module: only the items named through
//!   it are. A parent that only lists its children depends on none of them.
//! * Unit tests don't count: everything after an unindented `#[cfg(test)]`, and files that are modules of tests.

#![expect(
    clippy::unwrap_used,
    reason = "a test fails where it can't read the sources"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

const FILES_MAX: usize = 3;

/// A larger circle that may stay for now.
struct Exception {
    krate: &'static str,
    /// The path of each file of the circle begins with one of these.
    paths: &'static [&'static str],
    /// Why the circle is there.
    #[expect(dead_code, reason = "for readers of this file")]
    reason: &'static str,
}

const EXCEPTIONS: &[Exception] = &[
    Exception {
        krate: "inference",
        paths: &["scheduler"],
        reason: "the parts of the scheduler are methods of one type, until it is split into parts of its own",
    },
    Exception {
        krate: "inference",
        paths: &["constraint/schema"],
        reason: "a schema's parts are schemas: its compiler is one recursion over several files",
    },
    Exception {
        krate: "inference",
        paths: &["local"],
        reason: "the engine's options stand in the file that starts its thread",
    },
];

/// The path of a module in its crate; empty for the crate's root.
type Module = Vec<String>;

/// A `use` of one name: the path, and the name that it has in the file.
#[derive(Debug, Clone)]
struct Import {
    path: Vec<String>,
    name: String,
    exported: bool,
}

/// A file's product code, without comments and without its imports.
#[derive(Debug, Default)]
struct Source {
    code: String,
    imports: Vec<Import>,
}

impl Source {
    fn read(text: &str) -> Self {
        let product = text.lines().take_while(|line| *line != "#[cfg(test)]");
        let mut code = String::new();
        for line in product {
            code.push_str(line.split("//").next().unwrap());
            code.push('\n');
        }
        let mut source = Source::default();
        let mut rest = code.as_str();
        while let Some((before, import, after)) = next_import(rest) {
            source.code.push_str(before);
            let exported = before.trim_end().ends_with("pub") || before.trim_end().ends_with(')');
            flatten(import, &[], &mut |path, name| {
                source.imports.push(Import {
                    path,
                    name,
                    exported,
                });
            });
            rest = after;
        }
        source.code.push_str(rest);
        source
    }

    fn import(&self, name: &str) -> Option<&Import> {
        self.imports.iter().find(|import| import.name == name)
    }
}

/// The code before the next `use`, its tree, and the code after it.
fn next_import(code: &str) -> Option<(&str, &str, &str)> {
    let mut from = 0;
    loop {
        let at = from + code.get(from..)?.find("use ")?;
        let line = code[..at].rsplit('\n').next().unwrap().trim();
        if line.is_empty() || line == "pub" || line.starts_with("pub(") && line.ends_with(')') {
            let end = at + code[at..].find(';')?;
            return Some((&code[..at], &code[at + "use ".len()..end], &code[end + 1..]));
        }
        from = at + "use ".len();
    }
}

/// Calls `found` with the path and the name of each import in a tree such as `crate::a::{self, b as c}`.
fn flatten(tree: &str, parents: &[String], found: &mut dyn FnMut(Vec<String>, String)) {
    let (head, inner) = match tree.trim().split_once('{') {
        Some((head, inner)) => (head, Some(inner.trim_end().strip_suffix('}').unwrap())),
        None => (tree.trim(), None),
    };
    let (head, alias) = head.split_once(" as ").unwrap_or((head, ""));
    let steps = head.split("::").map(str::trim);
    let mut path = parents.to_vec();
    path.extend(steps.filter(|step| !step.is_empty()).map(str::to_owned));
    if let Some(inner) = inner {
        for branch in branches(inner) {
            flatten(branch, &path, found);
        }
        return;
    }
    if path.last().is_some_and(|last| last == "self") && path.len() > 1 {
        path.pop();
    }
    if let Some(last) = path.last() {
        let name = if alias.is_empty() { last } else { alias.trim() };
        found(path.clone(), name.to_owned());
    }
}

/// Splits at commas that are in no inner braces.
fn branches(inner: &str) -> Vec<&str> {
    let (mut depth, mut from, mut found) = (0u32, 0, Vec::new());
    for (at, letter) in inner.char_indices() {
        match letter {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 0 => {
                found.push(&inner[from..at]);
                from = at + 1;
            }
            _ => {}
        }
    }
    found.push(&inner[from..]);
    found.retain(|branch| !branch.trim().is_empty());
    found
}

/// Every path in the code with at least two steps, such as `clock::note`.
fn paths(code: &str) -> BTreeSet<Vec<String>> {
    let is_word = |letter: char| letter.is_alphanumeric() || letter == '_';
    let words = code.split(|letter: char| !is_word(letter) && letter != ':');
    let paths = words.map(|word| word.trim_matches(':').split("::"));
    let paths = paths.map(|steps| steps.map(str::to_owned).collect::<Vec<_>>());
    let whole = |steps: &Vec<String>| steps.len() > 1 && steps.iter().all(|step| is_name(step));
    paths.filter(whole).collect()
}

fn is_name(step: &str) -> bool {
    !step.is_empty() && !step.contains(':')
}

/// The files of a crate by their modules.
struct Crate(BTreeMap<Module, Source>);

impl Crate {
    fn read(src: &Path) -> Self {
        let mut texts = BTreeMap::new();
        for path in files(src) {
            let text = fs::read_to_string(&path).unwrap();
            texts.insert(module(src, &path), text);
        }
        let tests: Vec<_> = texts
            .iter()
            .flat_map(|(module, text)| test_modules(module, text))
            .collect();
        texts.retain(|module, _| !tests.iter().any(|test| module.starts_with(test)));
        let sources = texts.iter();
        Crate(
            sources
                .map(|(module, text)| (module.clone(), Source::read(text)))
                .collect(),
        )
    }

    fn child(&self, module: &Module, name: &str) -> Option<Module> {
        let child = [module.as_slice(), &[name.to_owned()]].concat();
        self.0.contains_key(&child).then_some(child)
    }

    /// The module of the file that defines the item which a path in `module` names. `None` for items of other crates,
    /// and for paths that end at a module.
    fn definition(&self, module: &Module, path: &[String], depth: usize) -> Option<Module> {
        let (first, mut rest) = path.split_first()?;
        let mut at = match first.as_str() {
            "crate" => Module::new(),
            "self" => module.clone(),
            "super" => {
                let supers = path.iter().take_while(|step| *step == "super").count();
                rest = &path[supers..];
                module[..module.len().checked_sub(supers)?].to_vec()
            }
            name => match self.child(module, name) {
                Some(child) => child,
                None => {
                    let import = self.0[module].import(name).filter(|_| depth < 20)?;
                    let path = [&import.path, rest].concat();
                    let is_own_name = import.path.len() == 1;
                    return (!is_own_name)
                        .then(|| self.definition(module, &path, depth + 1))
                        .flatten();
                }
            },
        };
        while let Some((step, steps)) = rest.split_first() {
            let Some(child) = self.child(&at, step) else {
                break;
            };
            (at, rest) = (child, steps);
        }
        let item = rest.first()?;
        match self.0.get(&at)?.import(item) {
            Some(import) if depth < 20 => {
                let path = [&import.path, &rest[1..]].concat();
                self.definition(&at, &path, depth + 1)
            }
            Some(_) => None,
            None => Some(at),
        }
    }

    /// The files that a file uses.
    fn uses(&self, module: &Module) -> BTreeSet<Module> {
        let source = &self.0[module];
        let imports = source.imports.iter().filter(|import| !import.exported);
        let imports = imports.map(|import| import.path.clone());
        let named = imports.chain(paths(&source.code));
        let used = named.filter_map(|path| self.definition(module, &path, 0));
        used.filter(|used| used != module).collect()
    }

    /// The sets of files that use each other, directly or through others.
    fn circles(&self) -> BTreeSet<Vec<Module>> {
        let files = self.0.keys();
        let uses = files.map(|file| (file.clone(), self.uses(file))).collect();
        let files = self.0.keys();
        let reached: BTreeMap<_, _> = files.map(|file| (file, reach(&uses, file))).collect();
        let circles = reached.iter().map(|(file, own)| {
            let circle = own.iter().filter(|other| reached[other].contains(*file));
            circle.cloned().collect()
        });
        circles.filter(|circle: &Vec<_>| circle.len() > 1).collect()
    }
}

/// The files that can be reached from a file by uses.
fn reach(uses: &BTreeMap<Module, BTreeSet<Module>>, file: &Module) -> BTreeSet<Module> {
    let mut reached = BTreeSet::new();
    let mut next = vec![file];
    while let Some(file) = next.pop() {
        for used in &uses[file] {
            if reached.insert(used.clone()) {
                next.push(used);
            }
        }
    }
    reached
}

fn root() -> PathBuf {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"));
    folder.ancestors().nth(2).unwrap().to_path_buf()
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => found.extend(files(&path)),
            false if path.extension().is_some_and(|extension| extension == "rs") => {
                found.push(path);
            }
            false => {}
        }
    }
    found
}

fn module(src: &Path, path: &Path) -> Module {
    let path = path.strip_prefix(src).unwrap().with_extension("");
    let steps = path.iter().map(|step| step.to_str().unwrap().to_owned());
    let mut module: Module = steps.collect();
    if module == ["lib"] || module == ["main"] {
        module.clear();
    }
    module
}

/// The modules that a file declares for tests only, each in a file of its own.
fn test_modules(module: &Module, text: &str) -> Vec<Module> {
    let after = text.split("#[cfg(test)]\n").skip(1);
    let after = after.chain(text.split("#[cfg(all(test").skip(1));
    let declared = after.filter_map(|after| {
        let lines = after.lines().skip_while(|line| !line.contains("mod "));
        let line = lines.into_iter().next()?;
        let name = line.trim().strip_suffix(';')?.rsplit(' ').next()?;
        Some([module.as_slice(), &[name.to_owned()]].concat())
    });
    declared.collect()
}

fn name(module: &Module) -> String {
    match module.is_empty() {
        true => "the crate's root".to_owned(),
        false => format!("{}.rs", module.join("/")),
    }
}

impl Exception {
    fn covers(&self, krate: &str, circle: &[Module]) -> bool {
        let listed = |module: &Module| self.paths.iter().any(|path| name(module).starts_with(path));
        self.krate == krate && circle.iter().all(listed)
    }
}

/// The circles of more than three files, with their crates.
fn large_circles() -> Vec<(String, Vec<Module>)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(root().join("crates")).unwrap() {
        let folder = entry.unwrap().path();
        let krate = folder.file_name().unwrap().to_str().unwrap();
        let circles = Crate::read(&folder.join("src")).circles().into_iter();
        let large = circles.filter(|circle| circle.len() > FILES_MAX);
        found.extend(large.map(|circle| (krate.to_owned(), circle)));
    }
    found
}

#[test]
fn circles_of_files_are_small() {
    let mut found = large_circles();
    found.retain(|(krate, circle)| {
        let mut exceptions = EXCEPTIONS.iter();
        !exceptions.any(|exception| exception.covers(krate, circle))
    });
    let words = found.iter().map(|(krate, circle)| {
        let files: Vec<_> = circle.iter().map(name).collect();
        format!(
            "{krate}: {} files use each other: {}",
            files.len(),
            files.join(", ")
        )
    });
    let words: Vec<_> = words.collect();
    assert!(words.is_empty(), "{}", words.join("\n"));
}

#[test]
fn every_exception_is_needed() {
    let found = large_circles();
    for exception in EXCEPTIONS {
        let mut circles = found.iter();
        assert!(
            circles.any(|(krate, circle)| exception.covers(krate, circle)),
            "no circle in {} of {:?} any more: remove the exception",
            exception.krate,
            exception.paths
        );
    }
}

/// The files of a made-up crate, each with its text.
fn made_up(files: &[(&str, &str)]) -> Crate {
    let files = files.iter().map(|(path, text)| {
        let module = module(Path::new(""), Path::new(path));
        (module, Source::read(text))
    });
    Crate(files.collect())
}

#[test]
fn uses_are_found_in_imports_and_in_code() {
    let krate = made_up(&[
        ("lib.rs", "mod a;\nmod b;\npub use crate::a::A;\n"),
        ("a.rs", "use crate::b::{self, B as C};\npub struct A(C);\n"),
        (
            "b.rs",
            "// crate::a::A\npub struct B(Box<crate::A>);\n#[cfg(test)]\nuse crate::c::D;\n",
        ),
        (
            "c.rs",
            "use crate::b;\npub struct D(b::B);\nfn d() { super::a::A::new() }\n",
        ),
    ]);
    let uses = |file: &str| -> Vec<_> {
        let used = krate.uses(&module(Path::new(""), Path::new(file)));
        used.iter().map(name).collect()
    };
    assert!(uses("lib.rs").is_empty());
    assert_eq!(uses("a.rs"), ["b.rs"]);
    assert_eq!(uses("b.rs"), ["a.rs"]);
    assert_eq!(uses("c.rs"), ["a.rs", "b.rs"]);
    let circles: Vec<Vec<_>> = krate
        .circles()
        .iter()
        .map(|circle| circle.iter().map(name).collect())
        .collect();
    assert_eq!(circles, [["a.rs", "b.rs"]]);
}
