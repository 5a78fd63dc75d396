//! See `promises::stack`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| msp_gateway_fuzz::promises::stack::hold(bytes));
