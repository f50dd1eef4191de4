//! `cargo xtask ci`: exactly what CI runs, step by step, up to the first failure.

use std::time::Instant;
use std::{env, fs};

use crate::shell::{cargo, pass, root};
use crate::{cost, tidy};

struct Step {
    name: &'static str,
    run: fn() -> Result<(), String>,
}

/// Cheap steps first: a formatting slip should not wait for the tests.
const STEPS: &[Step] = &[
    Step { name: "fmt", run: || pass(cargo(&["fmt", "--all", "--check"])) },
    Step { name: "clippy", run: || pass(cargo(&["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"])) },
    Step { name: "tidy", run: tidy::run },
    Step { name: "crates", run: || cost::crates().map(drop) },
    Step { name: "test", run: || pass(cargo(&["test", "--workspace"])) },
    Step { name: "doc", run: doc },
    Step { name: "examples", run: examples },
];

pub(crate) fn run() -> Result<(), String> {
    let start = Instant::now();
    for step in STEPS {
        println!("== {}", step.name);
        let begun = Instant::now();
        let outcome = (step.run)();
        println!("== {}: {:.1} s", step.name, begun.elapsed().as_secs_f64());
        outcome.map_err(|message| format!("{message}\nci: {} failed", step.name))?;
    }
    println!("== ci: passed in {:.1} s", start.elapsed().as_secs_f64());
    Ok(())
}

fn doc() -> Result<(), String> {
    let mut command = cargo(&["doc", "--workspace", "--no-deps"]);
    command.env("RUSTDOCFLAGS", "-D warnings");
    pass(command)
}

/// Each example briefly, in the tests' profile, on the CPU and where there is an adapter on it too.
fn examples() -> Result<(), String> {
    let out = root().join("target").join("examples-out");
    fs::create_dir_all(&out).map_err(|error| format!("{}: {error}", out.display()))?;
    let gpu = env::var_os("KILN_REQUIRE_GPU").map(|_| "gpu");
    for device in ["cpu"].into_iter().chain(gpu) {
        let mut command = cargo(&["run", "--quiet", "--example", "mnist", "--", "--epochs", "2", "--device", device]);
        command.arg("--out").arg(&out);
        pass(command)?;
    }
    Ok(())
}
