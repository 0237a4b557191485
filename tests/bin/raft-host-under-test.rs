//! The program itself, built beside the tests so that cargo tells them where it is.

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> std::process::ExitCode {
    raft_host::cli::main()
}
