//! `cargo xtask asan`: the tests of everything that runs on the CPU backend, under AddressSanitizer.
//!
//! Needs a nightly compiler, and none else of Kiln does; so CI leaves it out. Leaks are looked for too.

use crate::shell::{nightly, pass, read, root};

/// The backend, and what drives it with every kernel: laws, programs, models.
const PACKAGES: &[&str] = &["kiln-ir", "kiln-cpu", "kiln-graph", "kiln-nn"];

pub(crate) fn run() -> Result<(), String> {
    let version =
        read(nightly(&["rustc", "-vV"])).map_err(|error| format!("{error}\nhelp: rustup toolchain install nightly"))?;
    let host = version.lines().find_map(|line| line.strip_prefix("host: ")).ok_or("rustc names no host")?;
    let mut command = nightly(&["cargo", "test", "--lib", "--tests", "--target", host, "--target-dir"]);
    command.arg(root().join("target").join("asan"));
    command.args(PACKAGES.iter().flat_map(|package| ["--package", package]));
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
