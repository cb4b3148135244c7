//! Replays what `make fuzz` works with as ordinary tests: the seeds, which were written by hand, the corpus, which
//! the fuzzer found and minimised, and every input that once broke a target.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::collections::BTreeSet;
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

/// The most that is committed, in bytes and in files of one target.
const BYTES: u64 = 300 << 10;
const FILES: usize = 120;

fn fuzz() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().join("fuzz")
}

fn targets() -> impl Iterator<Item = ceiba_core::fuzzing::Target> {
    let all = [ceiba_core::fuzzing::TARGETS, ceiba_cli::fuzzing::TARGETS, ceiba::fuzzing::TARGETS];
    all.into_iter().flatten().copied()
}

// The files of a folder; none where it is missing.
fn inputs(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    let mut paths: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths
}

#[test]
fn every_input_of_the_corpus_is_taken_well() {
    let mut broken = Vec::new();
    for (name, check) in targets() {
        let [seeds, corpus, regressions] =
            ["seeds", "corpus", "regressions"].map(|folder| inputs(&fuzz().join(folder).join(name)));
        for path in seeds.into_iter().chain(corpus).chain(regressions) {
            let input = fs::read(&path).unwrap();
            if catch_unwind(AssertUnwindSafe(|| check(&input))).is_err() {
                broken.push(path);
            }
        }
    }
    assert!(broken.is_empty(), "these break their targets: {broken:#?}");
}

#[test]
fn every_target_is_built_and_each_folder_is_a_target_s() {
    let names: BTreeSet<String> = targets().map(|(name, _)| name.to_owned()).collect();
    assert_eq!(names.len(), targets().count(), "a name stands there twice");
    let manifest = fs::read_to_string(fuzz().join("Cargo.toml")).unwrap();
    for name in &names {
        assert!(manifest.contains(&format!("name = \"{name}\"")), "fuzz/Cargo.toml does not build {name}");
    }
    for folder in ["fuzz_targets", "seeds", "corpus", "regressions"] {
        let stems = inputs(&fuzz().join(folder)).into_iter();
        let stems: BTreeSet<String> =
            stems.map(|path| path.file_stem().unwrap().to_string_lossy().into_owned()).collect();
        let all = folder == "regressions" || names.is_subset(&stems);
        assert!(all, "fuzz/{folder} lacks a target");
        assert!(stems.is_subset(&names), "fuzz/{folder} has what is no target");
    }
}

#[test]
fn the_corpus_is_there_and_small() {
    let (mut bytes, mut most) = (0, 0);
    for (name, _) in targets() {
        let mut corpus = inputs(&fuzz().join("corpus").join(name));
        let seeds = inputs(&fuzz().join("seeds").join(name));
        assert!(corpus.len() >= 2 && seeds.len() >= 2, "{name}: {} and {}", corpus.len(), seeds.len());
        corpus.extend(seeds);
        most = most.max(corpus.len());
        bytes += corpus.iter().map(|path| fs::metadata(path).unwrap().len()).sum::<u64>();
    }
    assert!(most <= FILES && bytes <= BYTES, "{most} files of one target, {bytes} bytes in all");
}

#[test]
fn a_broken_promise_is_seen() {
    let run = || ceiba_core::fuzzing::run(ceiba_core::fuzzing::TARGETS, "no such target", b"");
    assert!(catch_unwind(run).is_err());
}
