//! See `promises::vendor_page`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| msp_gateway_fuzz::promises::vendor_page::hold(bytes));
