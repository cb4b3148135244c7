#![no_main]

use ceiba_core::fuzzing::{TARGETS, run};

libfuzzer_sys::fuzz_target!(|data: &[u8]| run(TARGETS, "sms_aliyun", data));
