//! See `promises::cache_control`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| msp_gateway_fuzz::promises::cache_control::hold(bytes));
