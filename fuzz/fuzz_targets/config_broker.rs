#![no_main]

use ceiba::fuzzing::TARGETS;

libfuzzer_sys::fuzz_target!(|data: &[u8]| ceiba_core::fuzzing::run(TARGETS, "config_broker", data));
