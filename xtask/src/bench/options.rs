//! The arguments of `cargo xtask bench`.

use std::path::PathBuf;

use crate::shell::root;

const USAGE: &str = "\
usage: cargo xtask bench [--device cpu|gpu] [--only REGEX] [--seconds S] [--python PATH] [--peer PATH]
                         [--peer-compile] [--rust-peer NAME=PROGRAM]... [--turns N] [--loaded] [--save NAME]";

/// How often each side runs a row.
pub(super) const TURNS: usize = 3;

/// Where the peer's script is, seen from the root, if nobody says otherwise.
const PEER: &str = "../shared/peers/torch_bench.py";

/// The peer's script in its usual place, if it is there.
pub(crate) fn usual_peer() -> Option<PathBuf> {
    Some(root().join(PEER)).filter(|path| path.exists())
}

/// What was asked for.
#[derive(Debug, PartialEq)]
pub(super) struct Options {
    /// `cpu` or `gpu`.
    pub(super) device: String,
    /// Which rows, as a regular expression.
    pub(super) only: String,
    /// How long each side measures a row, each turn.
    pub(super) seconds: f64,
    /// The Python that may have torch.
    pub(super) python: String,
    /// The peer's script.
    pub(super) peer: Option<PathBuf>,
    /// Whether the peer may compile.
    pub(super) peer_compile: bool,
    /// Programs that print lines as ours does, with their names.
    pub(super) rust_peers: Vec<(String, PathBuf)>,
    /// How often each side runs a row whose steps are short.
    pub(super) turns: usize,
    /// Whether one thread is kept busy all the time.
    pub(super) loaded: bool,
    /// Under which name results are kept.
    pub(super) save: Option<String>,
}

impl Options {
    pub(super) fn parse(args: &[&str]) -> Result<Options, String> {
        let mut options = Options {
            device: "cpu".into(),
            only: String::new(),
            seconds: 3.0,
            python: "python3".into(),
            peer: None,
            peer_compile: false,
            rust_peers: Vec::new(),
            turns: TURNS,
            loaded: false,
            save: None,
        };
        let mut args = args.iter();
        while let Some(&arg) = args.next() {
            match arg {
                "--peer-compile" => options.peer_compile = true,
                "--loaded" => options.loaded = true,
                _ => options.set(arg, args.next().copied())?,
            }
        }
        Ok(options)
    }

    /// An argument that has a value.
    fn set(&mut self, arg: &str, value: Option<&str>) -> Result<(), String> {
        let value = || value.ok_or_else(|| format!("{arg}: needs a value\n{USAGE}"));
        match arg {
            "--device" => self.device = device(value()?)?,
            "--only" => self.only = value()?.into(),
            "--seconds" => self.seconds = seconds(value()?)?,
            "--python" => self.python = value()?.into(),
            "--peer" => self.peer = Some(value()?.into()),
            "--rust-peer" => {
                let peer = rust_peer(value()?)?;
                if self.rust_peers.iter().any(|(name, _)| *name == peer.0) {
                    return Err(format!("--rust-peer: {} twice", peer.0));
                }
                self.rust_peers.push(peer);
            }
            "--turns" => self.turns = turns(value()?)?,
            "--save" => self.save = Some(plain("--save", value()?)?),
            "--help" => return Err(USAGE.to_owned()),
            _ => return Err(format!("{arg}: no such argument\n{USAGE}")),
        }
        Ok(())
    }

    /// The peer's script: the one that was named, else where it usually is.
    pub(super) fn script(&self) -> Option<PathBuf> {
        self.peer.clone().or_else(usual_peer)
    }

    /// The command, without what only this machine has.
    pub(super) fn shown(&self) -> String {
        let mut text = format!("cargo xtask bench --device {} --seconds {}", self.device, self.seconds);
        if !self.only.is_empty() {
            text.push_str(&format!(" --only '{}'", self.only));
        }
        if self.peer_compile {
            text.push_str(" --peer-compile");
        }
        for (name, _) in &self.rust_peers {
            text.push_str(&format!(" --rust-peer {name}=PROGRAM"));
        }
        if self.turns > TURNS {
            text.push_str(&format!(" --turns {}", self.turns));
        }
        if self.loaded {
            text.push_str(" --loaded");
        }
        text
    }
}

fn device(text: &str) -> Result<String, String> {
    match text {
        "cpu" | "gpu" => Ok(text.to_owned()),
        _ => Err(format!("--device: expected `cpu` or `gpu`, found `{text}`")),
    }
}

fn turns(text: &str) -> Result<usize, String> {
    let odd = |n: &usize| n % 2 == 1 && *n >= TURNS;
    text.parse()
        .ok()
        .filter(odd)
        .ok_or_else(|| format!("--turns: expected {TURNS} or a larger odd number, found `{text}`"))
}

fn seconds(text: &str) -> Result<f64, String> {
    let parsed = text.parse().ok().filter(|seconds: &f64| seconds.is_finite() && *seconds >= 0.0);
    parsed.ok_or_else(|| format!("--seconds: expected a number of seconds, found `{text}`"))
}

/// A name that stays in its folder and in its column.
fn plain(arg: &str, text: &str) -> Result<String, String> {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
    match !text.is_empty() && text.chars().all(plain) {
        true => Ok(text.to_owned()),
        false => Err(format!("{arg}: expected letters, digits, `-` and `_`, found `{text}`")),
    }
}

/// `NAME=PROGRAM`.
fn rust_peer(text: &str) -> Result<(String, PathBuf), String> {
    let (name, program) = text.split_once('=').filter(|(_, program)| !program.is_empty()).unwrap_or_default();
    if program.is_empty() {
        return Err(format!("--rust-peer: expected NAME=PROGRAM, found `{text}`"));
    }
    if ["kiln", "torch"].contains(&name) {
        return Err(format!("--rust-peer: `{name}` is another side"));
    }
    Ok((plain("--rust-peer", name)?, program.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn turns_are_as_many_that_one_is_in_the_middle() {
        assert_eq!(Options::parse(&[]).unwrap().turns, TURNS);
        assert_eq!(Options::parse(&["--turns", "7"]).unwrap().turns, 7);
        for bad in ["1", "4", "x"] {
            assert!(Options::parse(&["--turns", bad]).unwrap_err().contains(bad));
        }
    }

    #[test]
    fn arguments_are_read_or_refused() {
        let args = ["--device", "gpu", "--seconds", "0.5", "--only", "a|b", "--peer-compile", "--save", "h100-a"];
        let options = Options::parse(&args).unwrap();
        assert_eq!((options.device.as_str(), options.seconds), ("gpu", 0.5));
        assert_eq!(options.save.as_deref(), Some("h100-a"));
        assert_eq!(options.shown(), "cargo xtask bench --device gpu --seconds 0.5 --only 'a|b' --peer-compile");
        for bad in [
            &["--device", "tpu"][..],
            &["--seconds", "x"],
            &["--seconds", "-1"],
            &["--save", "../a"],
            &["--only"],
            &["x"],
            &["--rust-peer", "burn"],
            &["--rust-peer", "=x"],
            &["--rust-peer", "burn="],
            &["--rust-peer", "torch=x"],
            &["--rust-peer", "burn=x", "--rust-peer", "burn=y"],
        ] {
            let error = Options::parse(bad).unwrap_err();
            assert!(error.contains(bad[0]), "{error}");
        }
    }

    #[test]
    fn several_programs_may_stand_beside_ours() {
        let options = Options::parse(&["--rust-peer", "burn=a/b", "--loaded", "--rust-peer", "candle=c=d"]).unwrap();
        assert_eq!(options.rust_peers, [("burn".into(), "a/b".into()), ("candle".into(), "c=d".into())]);
        let shown = options.shown();
        assert!(shown.ends_with(" --rust-peer burn=PROGRAM --rust-peer candle=PROGRAM --loaded"), "{shown}");
    }
}
