#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| rowmill_tests::fuzz::host::check(input));
