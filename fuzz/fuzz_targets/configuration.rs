#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| keyside_fuzz::configuration::configuration(data));
