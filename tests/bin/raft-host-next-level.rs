//! The program again, as one that offers the level after its own: what an upgrade of raft-host brings.
//! At that level it writes into entries what the ordinary program does not know.

fn main() -> std::process::ExitCode {
    raft_host::cli::main_with_next_level("0.2.0-level")
}
