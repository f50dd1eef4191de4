//! `cargo xtask bench`: the benchmark table beside its peers, row by row in turn, as one Markdown table.
//!
//! `options` reads the arguments, `peer` and `rust_peer` are who else runs, `run` drives all programs, `join` makes
//! rows of what they print, `machine` says where it ran, `load` keeps it busy if asked to, `report` writes it down.
//! Three alternations: whatever else the machine does hits all sides.

mod join;
mod load;
mod machine;
mod options;
mod peer;
mod report;
mod run;
mod rust_peer;

use std::fs;
use std::path::{Path, PathBuf};

use crate::built;
use crate::shell::root;
use join::Row;
use load::Load;
use machine::Machine;
use options::{Options, TURNS};
use peer::Peer;
use run::{Sides, Turn};
use rust_peer::RustPeer;

pub(crate) use options::usual_peer;

pub(crate) fn run(args: &[&str]) -> Result<(), String> {
    let options = Options::parse(args)?;
    let table = built::program("kiln-benches", "table")?;
    let names = run::names(&table, &options)?;
    let (jitted, peer, rust_peers) = (run::jitted(&table, &options)?, Peer::find(&options)?, RustPeer::all(&options)?);
    let sides = Sides { table: &table, jitted, peer, rust_peers };
    let others = sides.others();
    let machine = Machine::here(&table, &options, sides.peer.as_ref().map(|peer| peer.version.as_str()));
    let load = options.loaded.then(Load::start);
    let limits = if options.device == "cpu" { run::limits(&table)? } else { join::Limits::default() };

    let (mut rows, mut lines) = (Vec::new(), Vec::new());
    for (n, name) in names.iter().enumerate() {
        eprint!("{}/{} {name}", n + 1, names.len());
        let mut turns: Vec<Turn> = Vec::with_capacity(options.turns);
        while turns.len() < if turns.iter().any(Turn::is_long) { TURNS } else { options.turns } {
            turns.push(sides.turn(name, &options, turns.last()));
        }
        for (n, turn) in turns.iter().enumerate() {
            lines.extend(turn.labelled(n, &others));
        }
        let row = Row::of(name, turns);
        eprintln!("  {}", report::brief(&row, &others));
        rows.push(row);
    }
    drop(load);
    let text = report::markdown(&machine, &options, &limits, &others, &rows);
    println!("{text}");
    match &options.save {
        Some(name) => save(&root().join("benches/results"), name, &text, &lines.concat()),
        None => Ok(()),
    }
}

/// Writes the table and the lines that it came from.
fn save(folder: &Path, name: &str, text: &str, lines: &str) -> Result<(), String> {
    fs::create_dir_all(folder).map_err(|error| format!("benches/results: {error}"))?;
    write(folder.join(format!("{name}.md")), text)?;
    write(folder.join(format!("{name}.jsonl")), lines)
}

/// Beside the file first, so that nobody reads half of it.
fn write(path: PathBuf, text: &str) -> Result<(), String> {
    let beside = path.with_extension("new");
    let written = fs::write(&beside, text).and_then(|()| fs::rename(&beside, &path));
    written.map_err(|error| format!("{}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn saving_leaves_two_files() {
        let folder = std::env::temp_dir().join(format!("xtask-bench-{}", std::process::id()));
        save(&folder, "one", "# Text\n", "{}\n").unwrap();
        let mut names: Vec<_> = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        assert_eq!(names, ["one.jsonl", "one.md"]);
        assert_eq!(fs::read_to_string(folder.join("one.md")).unwrap(), "# Text\n");
        fs::remove_dir_all(folder).unwrap();
    }
}
