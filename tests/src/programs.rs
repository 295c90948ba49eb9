//! Where the programs under test, the interpreter and the fixtures are.

use std::path::{Path, PathBuf};

/// Returns the built `name` (`keyside` or `keyside-exec`): in `KEYSIDE_BIN_DIR`, else beside the test executable.
pub fn built(name: &str) -> PathBuf {
    let directory = match std::env::var_os("KEYSIDE_BIN_DIR") {
        Some(directory) => PathBuf::from(directory),
        None => {
            // target/debug/deps/scenario-0123456789abcdef
            let own = std::env::current_exe().expect("/proc is mounted");
            own.ancestors().nth(2).expect("cargo puts tests two levels down").to_owned()
        }
    };
    let program = directory.join(name);
    assert!(
        program.is_file(),
        "{} is not built: run `cargo build -p keyside -p keyside-exec-wrapper`, or set KEYSIDE_BIN_DIR",
        program.display()
    );
    program
}

/// Returns a Python for steps and for ZenML's side of a store. The system's own comes first: a shim of a version
/// manager may need a home directory.
pub fn python() -> PathBuf {
    on_path("python3", "/usr/bin:/usr/local/bin")
        .or_else(|| on_path("python3", &search_path()))
        .expect("python3 is here")
}

/// Returns the PATH of the programs under test.
pub fn search_path() -> String {
    std::env::var("PATH").unwrap_or_else(|_| "/usr/local/bin:/usr/bin:/bin".to_owned())
}

/// Returns the root of this package. A runner that moved the sources says where they are now.
pub fn package() -> PathBuf {
    std::env::var_os("CARGO_MANIFEST_DIR").map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")), PathBuf::from)
}

/// Tells whether this process may become anybody.
pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

fn on_path(program: &str, path: &str) -> Option<PathBuf> {
    path.split(':').map(|directory| Path::new(directory).join(program)).find(|candidate| candidate.is_file())
}
