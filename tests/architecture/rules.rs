//! The rules of who may know whom, and the checks of a source against them.

use crate::scan::{references, tokens};

/// What each module of the core may name, beside itself. `lib.rs` is the map of the crate and names them all.
pub(crate) const CORE: &[(&str, &[&str])] = &[
    ("error", &[]),
    ("secret", &[]),
    ("message", &["error", "random"]),
    ("wire", &["message", "error"]),
    ("tls", &["error"]),
    ("log_line", &[]),
    ("clock", &[]),
    ("random", &[]),
    ("template", &["message", "error"]),
    ("metrics", &[]),
    ("runtime", &["error"]),
    ("registry", &["error"]),
    ("completion", &["message", "error"]),
    ("client", &["message", "error", "intake", "completion"]),
    ("intake", &["message", "error", "client", "completion"]),
    ("config", &["error", "secret", "intake"]),
    (
        "provider",
        &[
            "wire",
            "clock",
            "random",
            "template",
            "client",
            "config",
            "intake",
            "completion",
            "log_line",
            "tls",
            "secret",
            "message",
            "error",
        ],
    ),
    ("strategy", &["client", "config", "message", "error", "intake", "random", "runtime", "secret", "tls"]),
    ("outbox", &["client", "config", "message", "error", "intake"]),
    ("broker", &["wire", "message", "error", "runtime", "secret"]),
    ("settings", &["broker", "config", "wire", "secret", "error"]),
    ("open", &["provider", "strategy", "outbox", "client", "config", "intake", "message", "error"]),
    ("fuzzing", &["wire", "config", "provider", "open", "broker", "log_line"]),
    (
        "calls",
        &[
            "open",
            "metrics",
            "provider",
            "registry",
            "runtime",
            "client",
            "config",
            "intake",
            "completion",
            "message",
            "error",
        ],
    ),
];

/// The crates of the workspace, as Rust names them.
const CRATES: &[&str] = &["ceiba", "_ceiba", "ceiba_ffi", "ceiba_python", "ceiba_cli", "ceiba_tests"];

/// What the file `file` of the core's module `module` names against the rules. `providers` are the modules
/// below `provider`.
pub(crate) fn core(file: &str, module: &[String], source: &str, providers: &[String]) -> Vec<String> {
    let Some(own) = module.first() else { return Vec::new() };
    let Some((_, allowed)) = CORE.iter().find(|(name, _)| name == own) else {
        return vec![format!(
            "{file}: the module `{own}` has no rule yet: say in the table what it may know"
        )];
    };
    let mut wrong = Vec::new();
    for reference in references(source, module) {
        let Some(target) = reference.path.first() else { continue };
        let place = format!("{file}:{}", reference.line);
        if !CORE.iter().any(|(name, _)| name == target) {
            wrong
                .push(format!("{place}: `crate::{target}` is no module with a rule: name the module itself"));
        } else if target != own && !allowed.contains(&target.as_str()) {
            wrong.push(format!("{place}: `{own}` may not know `{target}`"));
        } else if target == "provider"
            && let (Some(from), Some(to)) = (module.get(1), reference.path.get(1))
            && own == "provider"
            && from != to
            && providers.contains(to)
        {
            wrong.push(format!("{place}: the provider `{from}` may not know the provider `{to}`"));
        }
    }
    wrong.dedup();
    wrong
}

/// What a source of `ffi`, `python` or `cli` names against the rules: of ours it may know `ceiba_core` alone, and the
/// program's `main` its own library.
pub(crate) fn binding(file: &str, source: &str) -> Vec<String> {
    let own = if file == "cli/src/main.rs" { "ceiba_cli" } else { "" };
    let tokens = tokens(source);
    let mut wrong = Vec::new();
    for pair in tokens.windows(2) {
        let name = pair[0].text.as_str();
        if pair[1].text == "::" && name != own && CRATES.contains(&name) {
            wrong.push(format!("{file}:{}: `{}` may not be known here", pair[0].line, pair[0].text));
        }
    }
    wrong
}

/// What a manifest depends on against the rules.
pub(crate) fn manifest(file: &str, text: &str, allowed: &[&str]) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut in_dependencies = false;
    for (index, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.starts_with('[') {
            in_dependencies = line.contains("dependencies");
        }
        let name: String =
            line.chars().take_while(|sign| sign.is_alphanumeric() || "-_".contains(*sign)).collect();
        if in_dependencies && name.starts_with("ceiba") && !allowed.contains(&name.as_str()) {
            wrong.push(format!("{file}:{}: `{name}` may not be known here", index + 1));
        }
    }
    wrong
}

/// Uses of `unsafe` that do something. The attribute of an exported name and the signature of an exported
/// function do nothing by themselves.
pub(crate) fn unsafe_code(file: &str, source: &str) -> Vec<String> {
    let tokens = tokens(source);
    let mut wrong = Vec::new();
    for (at, token) in tokens.iter().enumerate() {
        if token.text != "unsafe" {
            continue;
        }
        let next = tokens.get(at + 1).map_or("", |token| token.text.as_str());
        let before = at.checked_sub(1).map_or("", |before| tokens[before].text.as_str());
        if next == "extern" || (next == "(" && before == "[") {
            continue;
        }
        wrong.push(format!("{file}:{}: `unsafe {next}` belongs into ffi/src/boundary.rs", token.line));
    }
    wrong
}

/// Packages that a Go file imports, beyond the standard library and the module's own.
pub(crate) fn go_imports(file: &str, source: &str, own_module: &str) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut in_block = false;
    for (index, line) in source.lines().enumerate() {
        let line = line.trim();
        if line == "import (" {
            in_block = true;
            continue;
        }
        if in_block && line.starts_with(')') {
            in_block = false;
        }
        if !(in_block || line.starts_with("import ")) || line.starts_with("//") {
            continue;
        }
        let Some(path) = line.split('"').nth(1) else { continue };
        let own = !own_module.is_empty()
            && path.strip_prefix(own_module).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
        // Paths of the standard library have no dot in their first part.
        let standard = !path.split('/').next().unwrap_or_default().contains('.');
        if !own && !standard {
            wrong.push(format!("{file}:{}: imports `{path}`", index + 1));
        }
    }
    wrong
}
