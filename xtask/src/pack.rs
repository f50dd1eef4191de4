//! `cargo xtask pack <dir>`: everything for one run on a machine that has a GPU and no Rust.
//!
//! Stripped release programs (the table, the tests that need a GPU, the example), compressed; the peer's script; and
//! `run.sh`, which unpacks and runs all of it within minutes and gathers what it printed.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::bench::usual_peer;
use crate::built::{self, Built};
use crate::shell::{cargo, read, root};

/// What goes over a slow line.
const BYTES_MAX: u64 = 40 << 20;

/// Packages and their integration tests that need a GPU.
const TESTS: &[(&str, &str)] = &[("kiln-device", "kernels"), ("kiln", "devices")];

/// A program that is an example.
const EXAMPLES: &[(&str, &str)] = &[("kiln-examples", "mnist")];

const RUN: &str = include_str!("pack/run.sh");

pub(crate) fn run(folder: &str, peer: Option<&str>) -> Result<(), String> {
    let folder = PathBuf::from(folder);
    let metadata = read(cargo(&["metadata", "--no-deps", "--format-version", "1"]))?;
    let metadata = serde_json::from_str(&metadata).map_err(|error| format!("cargo metadata: {error}"))?;
    let mut files = vec![(one(&["build"], ("kiln-benches", "table"), "--bin")?, "table".to_owned())];
    for &(package, target) in TESTS {
        match has_target(&metadata, package, target, "test") {
            true => files
                .push((one(&["test", "--no-run"], (package, target), "--test")?, format!("test-{package}-{target}"))),
            false => println!("pack: {package} has no test {target}"),
        }
    }
    for &(package, target) in EXAMPLES {
        match has_target(&metadata, package, target, "example") {
            true => files.push((one(&["build"], (package, target), "--example")?, format!("example-{target}"))),
            false => println!("pack: {package} has no example {target}"),
        }
    }
    match peer.map(PathBuf::from).or_else(usual_peer) {
        Some(script) => files.push((script, "torch_bench.py".to_owned())),
        None => println!("pack: no peer script; pass --peer PATH"),
    }
    fill(&folder, &files)?;
    for (_, name) in files.iter_mut().filter(|(_, name)| !name.contains('.')) {
        strip(&folder.join(&*name))?;
        compress(&folder.join(&*name))?;
        name.push_str(".gz");
    }
    let n_bytes = weight(&folder, &files)?;
    println!("pack: {} files, {:.1} MB in {}", files.len() + 1, n_bytes as f64 / 1e6, folder.display());
    match n_bytes > BYTES_MAX {
        true => Err(format!("pack: more than {} MB", BYTES_MAX >> 20)),
        false => Ok(()),
    }
}

/// Builds one target.
fn one(verb: &[&str], (package, target): (&str, &str), kind: &str) -> Result<PathBuf, String> {
    let args = [verb, &["--release", "--package", package, kind, target]].concat();
    let found = built::programs(&args)?.into_iter().find(|built: &Built| built.target == target);
    found.map(|built| built.path).ok_or_else(|| format!("pack: cargo built no {target} of {package}"))
}

/// Whether a package has a target of this kind.
fn has_target(metadata: &serde_json::Value, package: &str, target: &str, kind: &str) -> bool {
    let packages = metadata["packages"].as_array().into_iter().flatten();
    let targets = packages.filter(|p| p["name"] == package).flat_map(|p| p["targets"].as_array().into_iter().flatten());
    targets
        .into_iter()
        .any(|t| t["name"] == target && t["kind"].as_array().is_some_and(|k| k.iter().any(|k| k == kind)))
}

/// Copies the files and writes `run.sh`.
fn fill(folder: &Path, files: &[(PathBuf, String)]) -> Result<(), String> {
    let failed = |path: &Path, error: std::io::Error| format!("{}: {error}", path.display());
    fs::create_dir_all(folder).map_err(|error| failed(folder, error))?;
    for (from, name) in files {
        let to = folder.join(name);
        // An earlier copy may be read-only; a copy keeps the permission to run it.
        let _ = fs::remove_file(&to);
        fs::copy(root().join(from), to).map_err(|error| failed(from, error))?;
    }
    let script = folder.join("run.sh");
    fs::write(&script, RUN).map_err(|error| failed(&script, error))?;
    executable(&script).map_err(|error| failed(&script, error))
}

/// Takes names and lines out of a program: they are most of its bytes.
fn strip(program: &Path) -> Result<(), String> {
    let mut command = Command::new("strip");
    command.arg(program);
    read(command).map(drop)
}

/// Packs a program, to less than half of its bytes; `run.sh` unpacks it.
fn compress(program: &Path) -> Result<(), String> {
    let mut command = Command::new("gzip");
    command.args(["--best", "--force"]).arg(program);
    read(command).map(drop)
}

/// The bytes of all files.
fn weight(folder: &Path, files: &[(PathBuf, String)]) -> Result<u64, String> {
    let names = files.iter().map(|(_, name)| name.as_str()).chain(["run.sh"]);
    let bytes = |name: &str| fs::metadata(folder.join(name)).map(|file| file.len());
    names.map(|name| bytes(name).map_err(|error| format!("{name}: {error}"))).sum()
}

#[cfg(unix)]
fn executable(path: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(path, fs::Permissions::from_mode(0o755))
}

#[cfg(not(unix))]
fn executable(_: &Path) -> std::io::Result<()> {
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn targets_are_found_by_name_and_kind() {
        let metadata = json!({"packages": [{"name": "a", "targets": [
            {"name": "a", "kind": ["lib"]}, {"name": "kernels", "kind": ["test"]},
        ]}]});
        assert!(has_target(&metadata, "a", "kernels", "test"));
        assert!(!has_target(&metadata, "a", "kernels", "bin"));
        assert!(!has_target(&metadata, "b", "kernels", "test"));
        assert!(!has_target(&json!({}), "a", "a", "lib"));
    }

    #[test]
    fn a_folder_is_filled_and_weighed() {
        let folder = std::env::temp_dir().join(format!("xtask-pack-{}", std::process::id()));
        let from = std::env::temp_dir().join(format!("xtask-packed-{}", std::process::id()));
        fs::write(&from, "four").unwrap();
        let files = [(from.clone(), "table".to_owned())];
        fill(&folder, &files).unwrap();
        fill(&folder, &files).unwrap();
        assert_eq!(weight(&folder, &files).unwrap(), 4 + RUN.len() as u64);
        assert_eq!(fs::read_to_string(folder.join("run.sh")).unwrap(), RUN);
        assert_eq!(fs::read_to_string(folder.join("table")).unwrap(), "four");
        fs::remove_file(from).unwrap();
        fs::remove_dir_all(folder).unwrap();
    }
}
