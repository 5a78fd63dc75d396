//! See `promises::token`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| msp_gateway_fuzz::promises::token::hold(bytes));
