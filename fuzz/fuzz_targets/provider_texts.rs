#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| ceiba_core::fuzzing::run("provider_texts", data));
