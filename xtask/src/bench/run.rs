//! Driving all programs: one row at a time, each in a process of its own, ours and theirs in turn.

use std::io::Read;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::join::{Limits, scrubbed};
use super::options::Options;
use super::peer::{Peer, Way};
use super::rust_peer::RustPeer;
use crate::shell::read;

/// How long one side of one row may take, with its start and its end.
const LIMIT: Duration = Duration::from_secs(240);

/// How often a program's memory is looked at.
const LOOK: Duration = Duration::from_millis(50);

/// How much longer than the best a way of the peer takes that will not be the best in another turn.
const HOPELESS: f64 = 2.0;

/// Milliseconds of a step from which on a row has no more turns than it must.
const LONG_MS: f64 = 20.0;

/// Steps of ours that take less are also run recorded once: what recording costs is lost in longer ones.
const SHORT_MS: f64 = 10.0;

/// Who runs a row.
pub(super) struct Sides<'a> {
    pub(super) table: &'a Path,
    /// The rows that have steps to record once.
    pub(super) jitted: Vec<String>,
    pub(super) peer: Option<Peer>,
    pub(super) rust_peers: Vec<RustPeer>,
}

/// What one turn of a row printed.
pub(super) struct Turn {
    pub(super) ours: Value,
    /// The same with steps that are recorded once, where that may show.
    pub(super) jit: Option<Value>,
    /// Each way of the peer and its line; empty without a peer.
    pub(super) theirs: Vec<(&'static str, Value)>,
    /// Each Rust peer's line; `None` for a row that it lacks.
    pub(super) others: Vec<Option<Value>>,
}

impl Turn {
    /// True iff steps are so long that a turn averages over what disturbs short ones.
    pub(super) fn is_long(&self) -> bool {
        median(&self.ours).is_some_and(|ms| ms >= LONG_MS)
    }
}

impl Sides<'_> {
    /// One row, once on each side. A side that failed in an earlier turn is not tried again, nor is a way of the peer that
    /// took [`HOPELESS`] times as long as its best: compiling anew takes half a minute.
    pub(super) fn turn(&self, name: &str, options: &Options, before: Option<&Turn>) -> Turn {
        let again = |earlier: Option<&Value>, command: Command| match earlier.filter(|l| l["error"].is_string()) {
            Some(line) => line.clone(),
            None => line(command, name),
        };
        let own = |mode: &[&str]| {
            let mut command = Command::new(self.table);
            command.args(["--device", &options.device]).args(mode).args(of_row(name, options.seconds));
            command
        };
        let ours = again(before.map(|turn| &turn.ours), own(&[]));
        let earlier = before.map_or(&ours, |turn| &turn.ours);
        let short = median(earlier).is_some_and(|m| m < SHORT_MS) && self.jitted.iter().any(|row| row == name);
        let jit = short.then(|| again(before.and_then(|turn| turn.jit.as_ref()), own(&["--jit"])));

        let best =
            before.and_then(|turn| turn.theirs.iter().filter_map(|(_, line)| median(line)).min_by(f64::total_cmp));
        let of_peer = |peer: &Peer| {
            let of_way = |(n, way): (usize, &Way)| {
                let earlier = before.map(|turn| &turn.theirs[n].1);
                let hopeless = |line: &Value| median(line).zip(best).is_some_and(|(m, best)| m > HOPELESS * best);
                match earlier.filter(|line| hopeless(line)) {
                    Some(line) => (way.name, line.clone()),
                    None => (way.name, again(earlier, peer.command(way, name, options))),
                }
            };
            peer.ways.iter().enumerate().map(of_way).collect()
        };
        let theirs = self.peer.as_ref().map_or(Vec::new(), of_peer);

        let of_other = |(n, other): (usize, &RustPeer)| {
            let earlier = before.and_then(|turn| turn.others[n].as_ref());
            other.command(name, options).map(|command| again(earlier, command))
        };
        let others = self.rust_peers.iter().enumerate().map(of_other).collect();
        Turn { ours, jit, theirs, others }
    }

    /// The names of the Rust peers.
    pub(super) fn others(&self) -> Vec<&str> {
        self.rust_peers.iter().map(|other| other.name.as_str()).collect()
    }
}

impl Turn {
    /// The lines with who printed them, one JSON object a line; `others` are the names of the Rust peers.
    pub(super) fn labelled(&self, turn: usize, others: &[&str]) -> Vec<String> {
        let label = |line: &Value, side: &str, way: &str| {
            let mut line = line.clone();
            line["side"] = json!(side);
            line["way"] = json!(way);
            line["turn"] = json!(turn);
            format!("{line}\n")
        };
        let mut lines = vec![label(&self.ours, "kiln", "implicit")];
        lines.extend(self.jit.iter().map(|line| label(line, "kiln", "jit")));
        lines.extend(self.theirs.iter().map(|(way, line)| label(line, "torch", way)));
        let lines_of_others = self.others.iter().zip(others).filter_map(|(line, name)| Some((line.as_ref()?, name)));
        lines.extend(lines_of_others.map(|(line, name)| label(line, name, line["mode"].as_str().unwrap_or(name))));
        lines
    }
}

/// The names of the rows that were asked for.
pub(super) fn names(table: &Path, options: &Options) -> Result<Vec<String>, String> {
    let names = listed(table, &["--only", &options.only])?;
    if names.is_empty() { Err(format!("--only: no row matches `{}`", options.only)) } else { Ok(names) }
}

/// The names of the wanted rows that have steps to record once.
pub(super) fn jitted(table: &Path, options: &Options) -> Result<Vec<String>, String> {
    listed(table, &["--jit", "--only", &options.only])
}

fn listed(table: &Path, which: &[&str]) -> Result<Vec<String>, String> {
    let mut command = Command::new(table);
    command.arg("--list").args(which);
    Ok(read(command)?.lines().map(str::to_owned).collect())
}

/// What the machine's processor can do at most; the best of three tries, since others only slow it down.
pub(super) fn limits(table: &Path) -> Result<Limits, String> {
    let best = |name: &str| {
        let rate = |_| {
            let mut command = Command::new(table);
            command.args(of_row(name, 0.3));
            line(command, name)["rate"].as_f64()
        };
        (0..3).filter_map(rate).max_by(f64::total_cmp)
    };
    Ok(Limits { copy_gb_s: best("limit_copy"), fma_gflop_s: best("limit_fma") })
}

fn median(line: &Value) -> Option<f64> {
    line["median_ms"].as_f64()
}

/// The arguments that all programs take for a row.
pub(super) fn of_row(name: &str, seconds: f64) -> [String; 4] {
    ["--only".into(), format!("^{name}$"), "--seconds".into(), seconds.to_string()]
}

/// The line that a program prints for a row; if it prints none, a line that says so.
fn line(command: Command, name: &str) -> Value {
    let failed = |why: String| json!({"name": name, "error": scrubbed(&why)});
    let Output { text, ended, peak_mb } = match output(command) {
        Ok(output) => output,
        Err(error) => return failed(error.to_string()),
    };
    let mut lines = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let Some(mut found) = lines.rfind(|line| line["name"] == name) else { return failed(ended) };
    if let Some(peak_mb) = peak_mb {
        found["peak_mb"] = json!(peak_mb);
    }
    if let Some(error) = found["error"].as_str() {
        found["error"] = json!(scrubbed(error));
    }
    found
}

/// How a program went.
struct Output {
    text: String,
    ended: String,
    /// The most memory that it held, where the system tells.
    peak_mb: Option<u64>,
}

/// What a program printed, and how it ended. It is killed after [`LIMIT`].
fn output(mut command: Command) -> std::io::Result<Output> {
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn()?;
    let begun = Instant::now();
    let (mut peak_mb, mut looked) = (None, begun);
    // A few lines fit in the pipe, so the program never waits for us to read them.
    let ended = loop {
        if looked.elapsed() > LOOK {
            // A program that has just ended has none any more.
            peak_mb = peak(child.id()).or(peak_mb);
            looked = Instant::now();
        }
        match child.try_wait()? {
            Some(status) => break format!("printed no line, {status}"),
            None if begun.elapsed() > LIMIT => {
                child.kill()?;
                child.wait()?;
                break format!("not done after {} s", LIMIT.as_secs());
            }
            None => thread::sleep(Duration::from_millis(5)),
        }
    };
    let mut text = String::new();
    if let Some(mut stdout) = child.stdout.take() {
        stdout.read_to_string(&mut text)?;
    }
    Ok(Output { text, ended, peak_mb })
}

/// The most megabytes that a process has held in memory so far, where Linux tells.
fn peak(process: u32) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).ok()?;
    let kilobytes = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    kilobytes.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok().map(|n| n / 1000)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    }

    #[test]
    #[cfg(unix)]
    fn a_program_gives_its_line_or_a_reason() {
        let mut found = line(shell(r#"echo noise; echo '{"name":"x","median_ms":1.5}'"#), "x");
        // It is chance whether the memory of so short a process was seen.
        found.as_object_mut().unwrap().remove("peak_mb");
        assert_eq!(found, json!({"name": "x", "median_ms": 1.5}));
        let failed = line(shell("exit 3"), "x");
        assert!(failed["error"].as_str().unwrap().contains("printed no line"), "{failed}");
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn a_program_is_seen_to_hold_memory() {
        let script = r#"x=$(head -c 30000000 /dev/zero | tr '\0' x); sleep 0.3; echo '{"name":"x"}'"#;
        let found = line(shell(script), "x");
        assert!(found["peak_mb"].as_u64().is_some_and(|mb| (30..1000).contains(&mb)), "{found}");
    }

    #[test]
    fn a_side_that_failed_is_not_tried_again() {
        let options = Options::parse(&[]).unwrap();
        let failed = json!({"name": "x", "error": "no"});
        let before = Turn { ours: failed.clone(), jit: None, theirs: Vec::new(), others: Vec::new() };
        let sides =
            Sides { table: Path::new("no such program"), jitted: Vec::new(), peer: None, rust_peers: Vec::new() };
        assert_eq!(sides.turn("x", &options, Some(&before)).ours, failed);
    }

    #[test]
    fn lines_say_who_printed_them() {
        let line = |mode: &str| json!({"name": "x", "mode": mode});
        let others = vec![None, Some(line("candle-cpu"))];
        let theirs = vec![("jemalloc", line("eager"))];
        let turn = Turn { ours: line("implicit"), jit: Some(line("jit")), theirs, others };
        let lines = turn.labelled(2, &["burn", "candle"]);
        let lines: Vec<Value> = lines.iter().map(|line| serde_json::from_str(line).unwrap()).collect();
        let labels: Vec<[&str; 2]> =
            lines.iter().map(|line| ["side", "way"].map(|f| line[f].as_str().unwrap())).collect();
        assert_eq!(labels, [["kiln", "implicit"], ["kiln", "jit"], ["torch", "jemalloc"], ["candle", "candle-cpu"]]);
        assert!(lines.iter().all(|line| line["turn"] == 2));
    }
}
