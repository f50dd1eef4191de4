//! `cargo xtask tidy`: the rules of the house that no compiler checks, one line for each violation.
//!
//! `edges` holds the dependency picture as a table, `source` the rules for a single file, `comments` the one hard
//! part: telling code from comment.

mod comments;
mod edges;
mod source;

use std::fmt;
use std::fs;

use crate::shell::{cargo, git, read, root};

/// A broken rule and where. Prints as `file:line: rule`; the file is relative to the repository root.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Violation {
    file: String,
    line: usize,
    rule: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.file, self.line, self.rule)
    }
}

pub(crate) fn run() -> Result<(), String> {
    let root = root();
    let metadata = read(cargo(&["metadata", "--no-deps", "--format-version", "1"]))?;
    let manifest = |path: &str| fs::read_to_string(root.join(path)).unwrap_or_default();
    let mut violations = edges::check(&metadata, manifest)?;

    // Files not yet added count too, so that a slip is seen before the commit.
    let listed = read(git(&["ls-files", "-z", "--cached", "--others", "--exclude-standard"]))?;
    let mut n_files = 0;
    for path in listed.split_terminator('\0') {
        // The index may list a file deleted on disk; a file that is not UTF-8 is not text.
        let Ok(text) = fs::read_to_string(root.join(path)) else { continue };
        n_files += 1;
        violations.extend(source::check(path, &text));
    }

    violations.sort();
    violations.dedup();
    for violation in &violations {
        println!("{violation}");
    }
    if violations.is_empty() {
        println!("tidy: {n_files} files");
        Ok(())
    } else {
        Err(format!("tidy: {} violations", violations.len()))
    }
}
