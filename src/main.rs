//! The `msp-gateway` command.

fn main() {}
