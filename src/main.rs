//! The `msp-gateway` command.

fn main() {
    std::process::exit(msp_gateway::cli::main());
}
