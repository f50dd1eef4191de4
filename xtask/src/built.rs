//! Building programs of the workspace, and finding them wherever the target folder is.

use std::path::PathBuf;
use std::process::Stdio;

use serde_json::Value;

use crate::shell::cargo;

/// A program that cargo built.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Built {
    /// The name of its target in the manifest.
    pub(crate) target: String,
    /// Where it is.
    pub(crate) path: PathBuf,
}

/// Runs cargo with these arguments and gives the programs that it built; an error if it fails.
pub(crate) fn programs(args: &[&str]) -> Result<Vec<Built>, String> {
    let mut command = cargo(args);
    command.arg("--message-format=json-render-diagnostics").stderr(Stdio::inherit());
    let output = command.output().map_err(|error| format!("{command:?}: {error}"))?;
    if !output.status.success() {
        return Err(format!("{command:?}: {}", output.status));
    }
    Ok(found(&String::from_utf8_lossy(&output.stdout)))
}

/// The program of this target, built in release.
pub(crate) fn program(package: &str, target: &str) -> Result<PathBuf, String> {
    let built = programs(&["build", "--release", "--package", package, "--bin", target])?;
    let found = built.into_iter().find(|built| built.target == target);
    found.map(|built| built.path).ok_or_else(|| format!("cargo built no program {target}"))
}

/// The programs that cargo's messages name.
fn found(messages: &str) -> Vec<Built> {
    let messages = messages.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let built = |message: Value| {
        let (target, path) = (message["target"]["name"].as_str()?, message["executable"].as_str()?);
        Some(Built { target: target.to_owned(), path: PathBuf::from(path) })
    };
    messages.filter_map(built).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_and_other_messages_are_no_programs() {
        let messages = r#"{"reason":"compiler-artifact","target":{"name":"kiln"},"executable":null}
{"reason":"compiler-artifact","target":{"name":"table"},"executable":"target/release/table"}
{"reason":"build-finished","success":true}"#;
        assert_eq!(found(messages), [Built { target: "table".into(), path: "target/release/table".into() }]);
    }
}
