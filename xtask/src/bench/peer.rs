//! The peer in Python: a script of PyTorch's, and the ways to run it.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::options::Options;
use super::run::of_row;
use crate::shell::read;

/// Decides how the peer's allocator keeps memory; without it large results are mapped anew each step.
const JEMALLOC: (&str, &str) = ("MALLOC_CONF", "dirty_decay_ms:-1,muzzy_decay_ms:-1");

/// Where distributions put jemalloc.
const JEMALLOC_FOLDERS: &[&str] =
    &["/usr/lib/x86_64-linux-gnu", "/usr/lib/aarch64-linux-gnu", "/usr/lib64", "/usr/lib", "/usr/local/lib"];

/// The peer, and the ways to run it.
pub(super) struct Peer {
    python: String,
    script: PathBuf,
    pub(super) version: String,
    pub(super) ways: Vec<Way>,
}

/// A way to run the peer; the best of all counts.
pub(super) struct Way {
    pub(super) name: &'static str,
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

    /// The program that prints a row's line, run this way.
    pub(super) fn command(&self, way: &Way, name: &str, options: &Options) -> Command {
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
