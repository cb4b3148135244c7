#![no_main]

use ceiba_cli::fuzzing::TARGETS;

libfuzzer_sys::fuzz_target!(|data: &[u8]| ceiba_core::fuzzing::run(TARGETS, "application_yaml", data));
