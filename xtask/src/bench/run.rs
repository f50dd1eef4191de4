//! Driving both programs: one row at a time, each in a process of its own, ours and theirs in turn.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::join::{Limits, scrubbed};
use super::options::Options;
use crate::shell::read;

/// Decides how the peer's allocator keeps memory; without it large results are mapped anew each step.
const JEMALLOC: (&str, &str) = ("MALLOC_CONF", "dirty_decay_ms:-1,muzzy_decay_ms:-1");

/// Where distributions put jemalloc.
const JEMALLOC_FOLDERS: &[&str] =
    &["/usr/lib/x86_64-linux-gnu", "/usr/lib/aarch64-linux-gnu", "/usr/lib64", "/usr/lib", "/usr/local/lib"];

/// How long one side of one row may take, with its start and its end.
const LIMIT: Duration = Duration::from_secs(240);

/// The peer, and the ways to run it.
pub(super) struct Peer {
    python: String,
    script: PathBuf,
    pub(super) version: String,
    ways: Vec<Way>,
}

/// A way to run the peer; the best of all counts.
struct Way {
    name: &'static str,
    preload: Option<PathBuf>,
    compile: bool,
}

impl Peer {
    /// The peer if its script and a Python with torch are there.
    ///
    /// # Errors
    /// If a script was named that is not there.
    pub(super) fn find(options: &Options) -> Result<Option<Peer>, String> {
        let Some(script) = options.script() else {
            eprintln!("bench: no peer script; pass --peer PATH");
            return Ok(None);
        };
        if !script.exists() {
            return Err(format!("--peer: {} is not there", script.display()));
        }
        let mut ask = Command::new(&options.python);
        ask.args(["-c", "import torch; print(torch.__version__)"]);
        let Ok(version) = read(ask) else {
            eprintln!("bench: {} has no torch; pass --python PATH", options.python);
            return Ok(None);
        };
        let mut ways = vec![Way { name: "eager", preload: None, compile: false }];
        let jemalloc = JEMALLOC_FOLDERS.iter().map(|f| Path::new(f).join("libjemalloc.so.2")).find(|p| p.exists());
        if let Some(path) = jemalloc.filter(|_| options.device == "cpu") {
            ways.push(Way { name: "jemalloc", preload: Some(path), compile: false });
        }
        if options.peer_compile {
            ways.push(Way { name: "compile", preload: None, compile: true });
        }
        let (python, version) = (options.python.clone(), version.trim().to_owned());
        Ok(Some(Peer { python, script, version, ways }))
    }

    fn command(&self, way: &Way, name: &str, options: &Options) -> Command {
        let mut command = Command::new(&self.python);
        let device = if options.device == "gpu" { "cuda" } else { "cpu" };
        command.arg(&self.script).args(["--device", device]).args(of_row(name, options.seconds));
        if way.compile {
            command.arg("--compile");
        }
        if let Some(path) = &way.preload {
            command.env("LD_PRELOAD", path).env(JEMALLOC.0, JEMALLOC.1);
        }
        command
    }
}

/// What one turn of a row printed.
pub(super) struct Turn {
    pub(super) ours: Value,
    /// Each way and its line; empty without a peer.
    pub(super) theirs: Vec<(&'static str, Value)>,
}

impl Turn {
    /// The lines with who printed them, one JSON object a line.
    pub(super) fn labelled(&self, turn: usize) -> Vec<String> {
        let label = |line: &Value, side: &str, way: &str| {
            let mut line = line.clone();
            line["side"] = json!(side);
            line["way"] = json!(way);
            line["turn"] = json!(turn);
            format!("{line}\n")
        };
        let ours = label(&self.ours, "kiln", "implicit");
        std::iter::once(ours).chain(self.theirs.iter().map(|(way, line)| label(line, "torch", way))).collect()
    }
}

/// The names of the rows that were asked for.
pub(super) fn names(table: &Path, options: &Options) -> Result<Vec<String>, String> {
    let mut command = Command::new(table);
    command.args(["--list", "--only", &options.only]);
    let names: Vec<String> = read(command)?.lines().map(str::to_owned).collect();
    if names.is_empty() { Err(format!("--only: no row matches `{}`", options.only)) } else { Ok(names) }
}

/// One row, once on each side. A side that failed in an earlier turn is not tried again.
pub(super) fn turn(table: &Path, peer: Option<&Peer>, name: &str, options: &Options, before: Option<&Turn>) -> Turn {
    let again = |earlier: Option<&Value>, command: Command| match earlier.filter(|line| line["error"].is_string()) {
        Some(line) => line.clone(),
        None => line(command, name),
    };
    let mut command = Command::new(table);
    command.args(["--device", &options.device]).args(of_row(name, options.seconds));
    let ours = again(before.map(|turn| &turn.ours), command);
    let of_way = |(n, way): (usize, &Way)| {
        let earlier = before.map(|turn| &turn.theirs[n].1);
        (way.name, again(earlier, peer.expect("a way belongs to a peer").command(way, name, options)))
    };
    let theirs = peer.map_or(&[][..], |peer| &peer.ways).iter().enumerate().map(of_way).collect();
    Turn { ours, theirs }
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

fn of_row(name: &str, seconds: f64) -> [String; 4] {
    ["--only".into(), format!("^{name}$"), "--seconds".into(), seconds.to_string()]
}

/// The line that a program prints for a row; if it prints none, a line that says so.
fn line(command: Command, name: &str) -> Value {
    let failed = |why: String| json!({"name": name, "error": scrubbed(&why)});
    let (text, ended) = match output(command) {
        Ok(output) => output,
        Err(error) => return failed(error.to_string()),
    };
    let mut lines = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let Some(mut found) = lines.rfind(|line| line["name"] == name) else { return failed(ended) };
    if let Some(error) = found["error"].as_str() {
        found["error"] = json!(scrubbed(error));
    }
    found
}

/// What a program printed, and how it ended. It is killed after [`LIMIT`].
fn output(mut command: Command) -> std::io::Result<(String, String)> {
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn()?;
    let begun = Instant::now();
    // A few lines fit in the pipe, so the program never waits for us to read them.
    let ended = loop {
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
    Ok((text, ended))
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
        let found = line(shell(r#"echo noise; echo '{"name":"x","median_ms":1.5}'"#), "x");
        assert_eq!(found, json!({"name": "x", "median_ms": 1.5}));
        let failed = line(shell("exit 3"), "x");
        assert!(failed["error"].as_str().unwrap().contains("printed no line"), "{failed}");
    }

    #[test]
    #[cfg(unix)]
    fn a_side_that_failed_is_not_tried_again() {
        let options = Options::parse(&[]).unwrap();
        let before = Turn { ours: json!({"name": "x", "error": "no"}), theirs: Vec::new() };
        let after = turn(Path::new("no such program"), None, "x", &options, Some(&before));
        assert_eq!(after.ours, before.ours);
    }
}
