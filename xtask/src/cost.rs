//! `cargo xtask cost`: what adding Kiln to a program costs: seconds of a cold release build, and crates.

use std::fs;
use std::time::Instant;

use crate::shell::{cargo, pass, root};
use crate::tree;

/// More crates than this and a dependency has crept in.
const CRATES_MAX: usize = 150;

/// Builds the facade with all its default features into a folder of its own that is emptied first.
pub(crate) fn run() -> Result<(), String> {
    let target = root().join("target").join("cost");
    match fs::remove_dir_all(&target) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            return Err(format!("{}: cannot be emptied: {error}", target.display()));
        }
        _ => {}
    }
    let mut build = cargo(&["build", "--quiet", "--release", "--package", "kiln", "--target-dir"]);
    build.arg(&target);
    let start = Instant::now();
    pass(build)?;
    let seconds = start.elapsed().as_secs_f64();
    let n_crates = crates()?;
    println!("cost: a cold release build of kiln with wgpu takes {seconds:.0} s and {n_crates} crates");
    Ok(())
}

/// The part that CI checks, since it takes no time: how many crates there are.
pub(crate) fn crates() -> Result<usize, String> {
    let n_crates = tree::count("kiln", &[])?;
    match n_crates <= CRATES_MAX {
        true => Ok(n_crates),
        false => Err(format!("cost: {n_crates} crates, at most {CRATES_MAX} are wanted")),
    }
}
