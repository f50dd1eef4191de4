//! `cargo xtask bless`: the tests rewrite their golden files, and we list which of them now differ from the last commit.
//!
//! The list is for review: a refactor shows zero golden change.

use crate::shell::{cargo, git, pass, read};

/// Every file below a folder named `golden`, at any depth.
const GOLDEN: &str = ":(glob)**/golden/**";

pub(crate) fn run() -> Result<(), String> {
    // One failing test must not keep the others from writing their files, nor us from listing them.
    let mut tests = cargo(&["test", "--workspace", "--no-fail-fast"]);
    tests.env("KILN_BLESS", "1");
    let outcome = pass(tests);

    let changed = read(git(&["status", "--short", "--untracked-files=all", "--", GOLDEN]))?;
    if changed.is_empty() {
        println!("bless: no golden file changed");
    } else {
        println!("bless: {} golden files changed\n{}", changed.lines().count(), changed.trim_end());
    }
    outcome
}
