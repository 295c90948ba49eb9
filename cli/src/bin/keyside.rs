//! The program `keyside`; everything is in the library, so that tests can reach it.

/// This program can be an agent: whatever held a value, in whichever library, is wiped when it is given back.
#[global_allocator]
static ALLOCATOR: keyside_agent::WipingAllocator = keyside_agent::WipingAllocator;

fn main() -> std::process::ExitCode {
    keyside::main()
}
