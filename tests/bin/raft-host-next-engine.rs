//! The program again, as one that offers another engine profile: what an upgrade of the engine
//! brings. It runs guests as they always run.

fn main() -> std::process::ExitCode {
    raft_host::cli::main_with_engine("0.2.0-engine", |facts| facts.fuel += 1)
}
