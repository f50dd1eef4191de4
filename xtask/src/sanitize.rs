//! `cargo xtask asan` and `cargo xtask tsan`: tests of what runs on the CPU backend, under AddressSanitizer and
//! ThreadSanitizer.
//!
//! They need a nightly compiler, and nothing else of Kiln does; so CI leaves them out.

use std::process::Command;

use crate::shell::{nightly, pass, read, root};

/// The tests of the backend and of what drives it with every kernel: laws, programs, models. Leaks are looked for too.
pub(crate) fn address() -> Result<(), String> {
    let mut command = tests("address", &["kiln-ir", "kiln-cpu", "kiln-graph", "kiln-nn"])?;
    // One test watches the memory that is resident, and what is freed stays so for a while here.
    command.args(["--", "--skip", "ten_thousand_steps"]);
    // Build scripts and macros run in the compiler: as a target is named, the flag does not reach them.
    command.env("RUSTFLAGS", "-Zsanitizer=address");
    // A test asks for more memory than there is, and wants to be told so.
    command.env("ASAN_OPTIONS", "allocator_may_return_null=1");
    // Planning goes as deep as a kernel is long, and the sanitizer's frames are several times as large.
    command.env("RUST_MIN_STACK", (64 << 20).to_string());
    pass(command)
}

/// The tests of the backend alone, whose threads share memory: every kernel, on several of them. What drives it has locks of
/// the standard library, which comes without checks, so that all that they guard would look like a race.
pub(crate) fn thread() -> Result<(), String> {
    let mut command = tests("thread", &["kiln-cpu"])?;
    // The standard library comes without checks, so that what tests tell their harness looks like a race.
    let known = root().join("target").join("known_races");
    std::fs::create_dir_all(root().join("target"))
        .and_then(|()| std::fs::write(&known, "race:test::\nrace:core::profiling\n"))
        .map_err(|error| format!("{}: {error}", known.display()))?;
    command.env("TSAN_OPTIONS", format!("suppressions={}", known.display()));
    command.env("RUSTFLAGS", "-Zsanitizer=thread -Cunsafe-allow-abi-mismatch=sanitizer");
    pass(command)
}

/// A command that runs the tests of some packages, built for a sanitizer of their own.
fn tests(sanitizer: &str, packages: &[&str]) -> Result<Command, String> {
    let version =
        read(nightly(&["rustc", "-vV"])).map_err(|error| format!("{error}\nhelp: rustup toolchain install nightly"))?;
    let host = version.lines().find_map(|line| line.strip_prefix("host: ")).ok_or("rustc names no host")?;
    let mut command = nightly(&["cargo", "test", "--lib", "--tests", "--target", host, "--target-dir"]);
    command.arg(root().join("target").join(sanitizer));
    command.args(packages.iter().flat_map(|package| ["--package", package]));
    Ok(command)
}
