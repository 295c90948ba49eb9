//! The program `keyside`; everything is in the library, so that tests can reach it.

fn main() -> std::process::ExitCode {
    keyside::main()
}
