//! What the tests of this folder share: see the targets in Cargo.toml.
