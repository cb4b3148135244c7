//! Who may know whom, read from the sources.
fn main() {}
