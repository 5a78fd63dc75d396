//! The `msp-gateway` command.

/// Small answers that stay lie between large pieces of work that go: an allocator which keeps sizes
/// apart holds a hundred thousand of them in a third of the memory that the system's takes, so that what
/// they are charged is what they cost (see `tests/bench/RESULTS.md`).
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() {
    std::process::exit(msp_gateway::cli::main());
}
