//! The committed header and list of symbols are those of the sources. `UPDATE_HEADER=1` writes them anew.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

fn ffi() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn updating() -> bool {
    std::env::var_os("UPDATE_HEADER").is_some_and(|value| value == "1")
}

fn sources() -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = fs::read_dir(ffi().join("src"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|end| end == "rs"))
        .collect();
    files.sort();
    files
}

/// The names of all functions with `#[unsafe(no_mangle)]`.
fn exported() -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for path in sources() {
        let text = fs::read_to_string(&path).unwrap();
        for part in text.split("#[unsafe(no_mangle)]\n").skip(1) {
            let rest = part.strip_prefix("pub extern \"C\" fn ").expect("an export is `pub extern \"C\" fn`");
            let end = rest.find('(').unwrap();
            assert!(names.insert(rest[..end].to_owned()), "exported twice: {}", &rest[..end]);
        }
    }
    names
}

/// cbindgen sees no items that a macro makes, and sorts files by name. So it is given a copy: one file, in the
/// order of the modules in lib.rs, with the opaque types written out.
fn generated() -> String {
    let mut copy = String::new();
    let modules = fs::read_to_string(ffi().join("src/lib.rs")).unwrap();
    for line in modules.lines() {
        let Some(module) = line.strip_prefix("mod ").and_then(|rest| rest.strip_suffix(';')) else {
            continue;
        };
        if module == "boundary" {
            continue;
        }
        let mut inside = false;
        for line in fs::read_to_string(ffi().join(format!("src/{module}.rs"))).unwrap().lines() {
            if line.starts_with("//!") {
            } else if line == "opaque! {" {
                inside = true;
            } else if inside && line == "}" {
                inside = false;
            } else if inside && line.contains(" => ") {
                let name = line.trim().split(" => ").next().unwrap();
                copy.push_str(&format!("pub struct {name} {{ _opaque: [u8; 0] }}\n"));
            } else {
                copy.push_str(line);
                copy.push('\n');
            }
        }
    }
    let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("header.rs");
    fs::write(&path, copy).unwrap();
    let config = cbindgen::Config::from_file(ffi().join("cbindgen.toml")).unwrap();
    let bindings = cbindgen::Builder::new().with_src(&path).with_config(config).generate().unwrap();
    let mut header = Vec::new();
    bindings.write(&mut header);
    String::from_utf8(header).unwrap()
}

#[test]
fn the_header_is_that_of_the_sources() {
    let header = generated();
    for name in exported() {
        assert!(header.contains(&format!("{name}(")), "{name} is not in the header");
    }
    let path = ffi().join("../include/ceiba.h");
    if updating() {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, &header).unwrap();
    }
    let committed = fs::read_to_string(&path).unwrap();
    assert!(committed == header, "include/ceiba.h is not that of the sources: run `make header`");
}

#[test]
fn the_list_of_symbols_is_that_of_the_sources() {
    let mut list: String = exported().into_iter().collect::<Vec<_>>().join("\n");
    list.push('\n');
    let path = ffi().join("symbols.txt");
    if updating() {
        fs::write(&path, &list).unwrap();
    }
    let committed = fs::read_to_string(&path).unwrap();
    assert!(committed == list, "ffi/symbols.txt is not that of the sources: run `make header`");
    assert!(committed.lines().all(|name| name.starts_with("ceiba_")));
}

#[test]
fn every_export_has_a_comment_and_passes_through_the_macro() {
    for path in sources() {
        let text = fs::read_to_string(&path).unwrap();
        let parts: Vec<&str> = text.split("#[unsafe(no_mangle)]\n").collect();
        for (before, after) in parts.iter().zip(parts.iter().skip(1)) {
            let name = after.lines().next().unwrap();
            let comment = before.trim_end().lines().last().unwrap();
            assert!(comment.starts_with("///"), "no comment: {name}");
            let body = after.split("\n}\n").next().unwrap();
            assert!(body.contains("ffi_call!("), "not through ffi_call!: {name}");
        }
    }
}

#[test]
fn only_the_boundary_is_unsafe() {
    for path in sources() {
        if path.ends_with("boundary.rs") {
            continue;
        }
        let text = fs::read_to_string(&path).unwrap().replace("#[unsafe(no_mangle)]", "");
        let code = text
            .lines()
            .filter(|line| !line.trim_start().starts_with("//") && !line.contains("allow(unsafe_code)"));
        for line in code {
            assert!(!line.contains("unsafe"), "{}: {line}", path.display());
        }
    }
}
