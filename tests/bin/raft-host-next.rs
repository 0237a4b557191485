//! The program again, as a server that reports another version: what a rolling restart into a
//! new release meets.

fn main() -> std::process::ExitCode {
    raft_host::cli::main_as("0.1.1-chaos")
}
