//! The programs the chores drive: `cargo` and `git`, started in the repository root.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The repository root: the folder above this package, as cargo names it when it runs us.
pub(crate) fn root() -> PathBuf {
    let package = env::var_os("CARGO_MANIFEST_DIR").map(PathBuf::from);
    package.as_deref().and_then(Path::parent).map_or_else(|| PathBuf::from("."), Path::to_path_buf)
}

/// The cargo that runs us, so that a `+toolchain` holds for the steps too.
pub(crate) fn cargo(args: &[&str]) -> Command {
    program(&env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned()), args)
}

/// A program of the nightly toolchain, whichever one runs us.
pub(crate) fn nightly(args: &[&str]) -> Command {
    program("rustup", &[&["run", "nightly"], args].concat())
}

pub(crate) fn git(args: &[&str]) -> Command {
    program("git", args)
}

fn program(name: &str, args: &[&str]) -> Command {
    let mut command = Command::new(name);
    command.args(args).current_dir(root());
    command
}

/// Runs `command` with our own output streams; an error if it fails.
pub(crate) fn pass(mut command: Command) -> Result<(), String> {
    let status = command.status().map_err(|error| format!("{command:?}: {error}"))?;
    if status.success() { Ok(()) } else { Err(format!("{command:?}: {status}")) }
}

/// Runs `command` and returns what it printed; an error, with its own words, if it fails.
pub(crate) fn read(mut command: Command) -> Result<String, String> {
    let output = command.output().map_err(|error| format!("{command:?}: {error}"))?;
    if !output.status.success() {
        return Err(format!("{command:?}: {}\n{}", output.status, String::from_utf8_lossy(&output.stderr).trim_end()));
    }
    String::from_utf8(output.stdout).map_err(|error| format!("{command:?}: {error}"))
}
