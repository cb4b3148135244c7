//! Who may know whom, where `unsafe` may be, and how large a file may grow: read from the sources.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

#[path = "architecture/rules.rs"]
mod rules;
#[path = "architecture/scan.rs"]
mod scan;

use std::fs;
use std::path::{Path, PathBuf};

/// Code lines a file may have.
const LINES: usize = 500;

/// Files past that bound, each with its reason.
const LARGE: &[(&str, &str)] = &[("include/ceiba.h", "written by cbindgen from ffi/src")];

/// Names that say nothing of what is inside.
const EMPTY_NAMES: &[&str] = &["util", "utils", "helper", "helpers", "common", "manager", "misc"];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

// Files below a folder of the workspace, by path from the root. A missing folder is an error: a moved one must
// not end a check in silence.
fn files(folder: &str, endings: &[&str]) -> Vec<(String, String)> {
    fn walk(folder: &Path, endings: &[&str], found: &mut Vec<PathBuf>) {
        let entries = fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
        for entry in entries {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            let left_out = ["target", "build", "dist", "node_modules", "__pycache__", "venv"];
            if name.starts_with('.') || left_out.contains(&name.as_str()) {
                continue;
            }
            if path.is_dir() {
                walk(&path, endings, found);
            } else if endings.iter().any(|ending| name.ends_with(ending)) {
                found.push(path);
            }
        }
    }
    let root = root();
    let mut found = Vec::new();
    walk(&root.join(folder), endings, &mut found);
    found.sort();
    let read = |path: &PathBuf| {
        let name = path.strip_prefix(&root).unwrap().to_string_lossy().into_owned();
        (name, String::from_utf8_lossy(&fs::read(path).unwrap()).into_owned())
    };
    found.iter().map(read).collect()
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

// The module of a file below core/src; none for lib.rs.
fn module_of(file: &str) -> Vec<String> {
    let path = file.strip_prefix("core/src/").unwrap().strip_suffix(".rs").unwrap();
    let mut module: Vec<String> = path.split('/').map(str::to_owned).collect();
    if matches!(module.last().map(String::as_str), Some("mod" | "lib")) {
        module.pop();
    }
    module
}

fn providers() -> Vec<String> {
    let mut names: Vec<String> = files("core/src/provider", &[".rs"])
        .iter()
        .filter_map(|(file, _)| module_of(file).get(1).cloned())
        .collect();
    names.dedup();
    // Pieces that several share: it may know none of them.
    names.retain(|name| !["socket", "http"].contains(&name.as_str()));
    names
}

fn none(wrong: &[String]) {
    assert!(wrong.is_empty(), "{} breaches of the rules:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn modules_of_the_core_know_only_whom_they_may() {
    let providers = providers();
    assert!(providers.contains(&"memory".to_owned()), "{providers:?}");
    let sources = files("core/src", &[".rs"]);
    assert!(sources.len() > 20, "only {} files read", sources.len());
    let mut wrong = Vec::new();
    for (file, source) in &sources {
        wrong.extend(rules::core(file, &module_of(file), source, &providers));
    }
    none(&wrong);
}

#[test]
fn the_core_has_a_rule_for_each_module() {
    let lib = read("core/src/lib.rs");
    let tokens = scan::tokens(&lib);
    let mut modules = Vec::new();
    for pair in tokens.windows(2) {
        if pair[0].text == "mod" {
            modules.push(pair[1].text.clone());
        }
    }
    assert!(modules.len() > 10, "{modules:?}");
    let without: Vec<&String> =
        modules.iter().filter(|name| !rules::CORE.iter().any(|(known, _)| known == name)).collect();
    assert!(without.is_empty(), "no rule for {without:?}");
}

#[test]
fn bindings_and_the_program_know_the_core_alone() {
    let mut wrong = Vec::new();
    for folder in ["ffi", "python", "cli"] {
        let sources = files(&format!("{folder}/src"), &[".rs"]);
        assert!(!sources.is_empty(), "{folder}");
        for (file, source) in &sources {
            wrong.extend(rules::binding(file, source));
        }
        let file = format!("{folder}/Cargo.toml");
        wrong.extend(rules::manifest(&file, &read(&file), &["ceiba-core"]));
    }
    wrong.extend(rules::manifest("core/Cargo.toml", &read("core/Cargo.toml"), &[]));
    none(&wrong);
}

/// The limiters over Redis have a module of their own, so that who does not use them does not get its client.
const GO_LIMITERS: &str = "ffi/go/limiter/";

#[test]
fn the_go_package_imports_the_standard_library_alone() {
    let mut wrong = Vec::new();
    let mut modules = files("ffi/go", &["go.mod"]);
    modules.retain(|(file, _)| !file.starts_with(GO_LIMITERS));
    assert_eq!(modules.len(), 1);
    let module = modules
        .iter()
        .flat_map(|(_, text)| text.lines())
        .find_map(|line| line.strip_prefix("module "))
        .unwrap_or_default()
        .trim()
        .to_owned();
    for (file, text) in &modules {
        if text.lines().any(|line| line.trim_start().starts_with("require")) {
            wrong.push(format!("{file}: requires another module"));
        }
    }
    let sources = files("ffi/go", &[".go"]);
    assert!(!sources.is_empty());
    for (file, source) in &sources {
        let limiter = file.starts_with(GO_LIMITERS);
        let mut found = rules::go_imports(file, source, &module);
        found.retain(|wrong| !(limiter && wrong.ends_with("imports `github.com/redis/go-redis/v9`")));
        wrong.extend(found);
    }
    none(&wrong);
}

#[test]
fn unsafe_code_stands_only_where_it_may() {
    let workspace = read("Cargo.toml");
    assert!(workspace.lines().any(|line| line.trim() == r#"unsafe_code = "forbid""#));
    for manifest in ["core/Cargo.toml", "cli/Cargo.toml", "tests/Cargo.toml"] {
        let text = read(manifest);
        let lints = text.split("[lints]").nth(1).unwrap_or_else(|| panic!("{manifest} has no [lints]"));
        assert!(
            lints.trim_start().starts_with("workspace = true"),
            "{manifest} leaves the lints of the workspace"
        );
    }
    let mut wrong = Vec::new();
    for folder in ["core/src", "cli/src", "ffi/src"] {
        for (file, source) in files(folder, &[".rs"]) {
            if file != "ffi/src/boundary.rs" {
                wrong.extend(rules::unsafe_code(&file, &source));
            }
        }
    }
    none(&wrong);
}

#[test]
fn files_hold_one_thing_and_say_which() {
    let mut wrong = Vec::new();
    let folders = ["core", "ffi", "python", "cli", "tests", "include", "benches", "examples", "fuzz"];
    for folder in folders.into_iter().filter(|folder| root().join(folder).exists()) {
        for (file, source) in files(folder, &[".rs", ".go", ".py", ".pyi", ".c", ".h", ".hpp", ".sh"]) {
            let python = file.ends_with(".py") || file.ends_with(".pyi") || file.ends_with(".sh");
            let lines = scan::lines_of_code(&source, if python { &["#"] } else { &["//", "/*", "*"] });
            if lines > LINES && !LARGE.iter().any(|(known, _)| *known == file) {
                wrong.push(format!("{file}: {lines} lines of code, past {LINES}: split it"));
            }
            for part in file.split('/') {
                let stem = part.split('.').next().unwrap_or_default();
                if EMPTY_NAMES.contains(&stem) {
                    wrong.push(format!("{file}: `{stem}` does not say what is inside"));
                }
            }
        }
    }
    none(&wrong);
}

fn path(names: &str) -> Vec<String> {
    names.split("::").filter(|name| !name.is_empty()).map(str::to_owned).collect()
}

fn refused(module: &str, source: &str) -> Vec<String> {
    rules::core("x.rs", &path(module), source, &path("memory::kapokmq"))
}

#[test]
fn a_wrong_import_is_refused_in_every_form() {
    let wrong = [
        ("message", "use crate::client::Context;"),
        ("error", "use crate::message::Message;"),
        ("wire::kapokmq", "use crate::secret::Secret;"),
        ("wire::kapokmq", "fn f() { crate::runtime::handle(); }"),
        ("wire::kapokmq::send", "use super::super::super::client;"),
        ("registry", "use crate::{error::Error, client::Producer};"),
        ("registry", "use crate::{\n    error::{Error, Kind},\n    client::{Consumer, Producer},\n};"),
        ("broker::front", "use crate::provider::kapokmq;"),
        ("broker", "use crate::registry::Registry;"),
        ("strategy::retry", "use crate::provider::memory;"),
        ("strategy::retry", "use crate::outbox::Store;"),
        ("outbox", "use crate::strategy::retry;"),
        ("provider::memory", "use super::kapokmq::Thing;"),
        ("provider::memory", "use crate::provider::{Setup, kapokmq};"),
        ("provider::memory", "use crate::open;"),
        ("provider::memory", "use crate::broker::Broker;"),
        ("provider::kapokmq::dial", "mod tests { use super::super::super::memory::Topics; }"),
        ("open", "use crate::registry::Registry;"),
        ("message", "type T = Vec<crate::client::Context>;"),
        ("message", "use crate::Producer;"),
        ("new_module", "use crate::error::Error;"),
    ];
    for (module, source) in wrong {
        assert_eq!(refused(module, source).len(), 1, "{module}: {source}: {:?}", refused(module, source));
    }
    let line = refused("message", "//! a\n\nuse crate::error::Error;\nuse crate::open;\n");
    assert_eq!(line, ["x.rs:4: `message` may not know `open`"]);
}

#[test]
fn a_right_import_passes() {
    let right = [
        ("message", "use crate::error::{Error, Kind, Result};"),
        (
            "message",
            "// use crate::client\n/* crate::client /* x */ crate::open */ const A: &str = \"crate::open::x\";",
        ),
        ("message", "const A: &str = r#\"crate::open::x \" crate::calls::y\"#; const B: char = '\"';"),
        ("message", "fn f<'a>(a: &'a str) -> char { '\\'' }"),
        ("provider::memory", "use super::Setup; mod tests { use super::*; use super::super::Setup; }"),
        (
            "provider::kapokmq::dial",
            "use super::section::Target; use crate::tls; use crate::wire::kapokmq::Push;",
        ),
        ("provider", "pub mod kapokmq; use self::kapokmq::Config;"),
        ("broker", "use crate::wire::kapokmq::{self, Node}; use crate::{error::Error, runtime};"),
        ("open", "use crate::provider::{Setup, kapokmq, memory}; pub(in crate::open) fn f() {}"),
        ("intake", "let room = Vec::<crate::client::Context>::new();"),
    ];
    for (module, source) in right {
        none(&refused(module, source));
    }
}

#[test]
fn the_other_checks_can_fail_too() {
    assert_eq!(rules::binding("x.rs", "use ceiba_core::calls; use ceiba_ffi::queue;").len(), 1);
    none(&rules::binding("x.rs", "use ceiba_core::calls; // ceiba_cli::x"));
    none(&rules::binding("cli/src/main.rs", "fn main() { ceiba_cli::main() }"));
    assert_eq!(rules::binding("cli/src/lib.rs", "fn main() { ceiba_cli::main() }").len(), 1);
    let manifest = "[dependencies]\nceiba-core.workspace = true\nceiba-ffi = { path = \"../ffi\" }\n";
    assert_eq!(rules::manifest("x", manifest, &["ceiba-core"]).len(), 1);
    assert_eq!(rules::manifest("x", manifest, &[]).len(), 2);

    let exported = "#[unsafe(no_mangle)] pub unsafe extern \"C\" fn f() {}";
    none(&rules::unsafe_code("x.rs", exported));
    for source in ["fn f() { unsafe { g() } }", "unsafe impl Send for X {}", "unsafe fn f() {}"] {
        assert_eq!(rules::unsafe_code("x.rs", source).len(), 1, "{source}");
    }

    let go = "package x\nimport \"C\"\nimport (\n\t\"log/slog\"\n\tws \"github.com/gorilla/websocket\"\n\t\"example.org/a/b\"\n)\n";
    assert_eq!(rules::go_imports("x.go", go, "example.org/a").len(), 1);
    assert_eq!(rules::go_imports("x.go", go, "example.org/ab").len(), 2);

    assert_eq!(scan::lines_of_code("a\n\n  // b\nc // d\n", &["//"]), 2);
    assert_eq!(module_of("core/src/provider/mod.rs"), path("provider"));
    assert_eq!(module_of("core/src/lib.rs"), path(""));
}
