#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| ceiba_core::fuzzing::run("kapokmq_send", data));
