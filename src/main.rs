//! The `msp-gateway` command.

/// The system allocator fragments here: small long-lived answers end up between large short-lived
/// buffers, so freed pages cannot be returned. mimalloc keeps sizes apart. It holds a hundred
/// thousand small answers in a third of the memory, so that what the cache charges for them is what
/// they cost (`tests/bench/RESULTS.md`).
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() {
    std::process::exit(msp_gateway::cli::main());
}
