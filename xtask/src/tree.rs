//! `cargo xtask tree <package>`: how many crates a package builds from, itself included.

use std::collections::BTreeSet;

use crate::shell::{cargo, read};

/// `extra` goes to `cargo tree` as it is: features, a target.
pub(crate) fn run(package: &str, extra: &[&str]) -> Result<(), String> {
    println!("{package}: {} crates", count(package, extra)?);
    Ok(())
}

pub(crate) fn count(package: &str, extra: &[&str]) -> Result<usize, String> {
    let mut command = cargo(&["tree", "-p", package, "--prefix", "none", "-e", "normal"]);
    command.args(extra);
    Ok(crates(&read(command)?).len())
}

/// The distinct (name, version) pairs of a tree printed without prefix; two versions of a crate are two crates.
fn crates(tree: &str) -> BTreeSet<(&str, &str)> {
    tree.lines()
        .filter_map(|line| {
            let mut words = line.split_whitespace();
            Some((words.next()?, words.next()?))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_crate_counts_once_and_each_version_counts() {
        let tree = "\
kiln-ir v0.1.0 (crates/ir)
half v2.6.0
cfg-if v1.0.0
thiserror v2.0.0
thiserror-impl v2.0.0 (proc-macro)
cfg-if v1.0.0 (*)
cfg-if v0.1.10
";
        assert_eq!(crates(tree).len(), 6);
        assert_eq!(crates("").len(), 0);
    }
}
