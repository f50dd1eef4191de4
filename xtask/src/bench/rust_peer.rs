//! A peer in Rust: a program that takes the arguments of our `table` and prints lines as it does, for rows that it has.

use std::path::PathBuf;
use std::process::Command;

use super::options::Options;
use super::run::of_row;
use crate::shell::read;

/// A program to run beside ours.
pub(super) struct RustPeer {
    pub(super) name: String,
    program: PathBuf,
    rows: Vec<String>,
}

impl RustPeer {
    /// All that were named, asked for their rows.
    ///
    /// # Errors
    /// If a program does not run, or lists no row.
    pub(super) fn all(options: &Options) -> Result<Vec<RustPeer>, String> {
        let ask = |(name, program): &(String, PathBuf)| {
            let mut command = Command::new(program);
            command.arg("--list");
            let rows: Vec<String> = read(command)
                .map_err(|error| format!("--rust-peer: {name}: {error}"))?
                .lines()
                .map(|line| line.trim().to_owned())
                .collect();
            if rows.is_empty() {
                return Err(format!("--rust-peer: {name}: lists no row"));
            }
            Ok(RustPeer { name: name.clone(), program: program.clone(), rows })
        };
        options.rust_peers.iter().map(ask).collect()
    }

    /// The program that prints a row's line; `None` for a row that it lacks.
    pub(super) fn command(&self, name: &str, options: &Options) -> Option<Command> {
        let has = self.rows.iter().any(|row| row == name);
        has.then(|| {
            let mut command = Command::new(&self.program);
            command.args(["--device", &options.device]).args(of_row(name, options.seconds));
            command
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_is_asked_only_for_rows_that_it_has() {
        let peer = RustPeer { name: "burn".into(), program: "burn_bench".into(), rows: vec!["x".into()] };
        let options = Options::parse(&["--seconds", "0.5"]).unwrap();
        assert!(peer.command("y", &options).is_none());
        let command = peer.command("x", &options).unwrap();
        let args: Vec<_> = command.get_args().collect();
        assert_eq!(args, ["--device", "cpu", "--only", "^x$", "--seconds", "0.5"]);
    }

    #[test]
    fn a_program_that_is_not_there_is_named() {
        let options = Options::parse(&["--rust-peer", "burn=no/such/program"]).unwrap();
        let error = RustPeer::all(&options).err().unwrap();
        assert!(error.starts_with("--rust-peer: burn: "), "{error}");
    }
}
