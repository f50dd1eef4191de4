//! Kiln's chores, run as `cargo xtask <command>`: what CI runs, the rules no compiler checks, golden files, crate counts.
//!
//! Stands outside the picture: no crate depends on it, and it depends on none of them. It drives `cargo` and `git`
//! as programs, from the repository root.
#![forbid(unsafe_code)]

mod bench;
mod bless;
mod built;
mod ci;
mod cost;
mod pack;
mod sanitize;
mod shell;
mod tidy;
mod tree;

use std::process::ExitCode;

const USAGE: &str = "\
usage: cargo xtask <command>

  ci                  fmt, clippy, tidy, crates, test, doc, examples, in this order, up to the first failure
  tidy                dependency edges and source rules; one line for each violation
  cost                seconds of a cold release build of the facade, and how many crates it takes
  bless               run the tests with KILN_BLESS=1, then list the golden files that changed
  tree <package> ...  count the crates a package builds from; further arguments go to cargo tree
  asan                the tests of the CPU backend under AddressSanitizer; needs a nightly toolchain
  tsan                its kernels' under ThreadSanitizer, likewise
  bench [--help]      the benchmark table beside its peers, row by row in turn, as Markdown
  pack <dir>          release programs and a run.sh for a machine that has a GPU and no Rust";

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let outcome = match args.as_slice() {
        ["ci"] => ci::run(),
        ["tidy"] => tidy::run(),
        ["cost"] => cost::run(),
        ["asan"] => sanitize::address(),
        ["tsan"] => sanitize::thread(),
        ["bless"] => bless::run(),
        ["tree", package, rest @ ..] => tree::run(package, rest),
        ["bench", rest @ ..] => bench::run(rest),
        ["pack", folder] => pack::run(folder, None),
        ["pack", folder, "--peer", script] => pack::run(folder, Some(script)),
        ["help" | "--help" | "-h"] => {
            println!("{USAGE}");
            Ok(())
        }
        _ => Err(USAGE.to_owned()),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("{message}");
            ExitCode::FAILURE
        }
    }
}
