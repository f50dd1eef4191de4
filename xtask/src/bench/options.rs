//! The arguments of `cargo xtask bench`.

use std::path::PathBuf;

use crate::shell::root;

const USAGE: &str = "\
usage: cargo xtask bench [--device cpu|gpu] [--only REGEX] [--seconds S] [--python PATH] [--peer PATH]
                         [--peer-compile] [--save NAME]";

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
            save: None,
        };
        let mut args = args.iter();
        while let Some(&arg) = args.next() {
            if arg == "--peer-compile" {
                options.peer_compile = true;
                continue;
            }
            let mut value = || args.next().copied().ok_or_else(|| format!("{arg}: needs a value\n{USAGE}"));
            match arg {
                "--device" => options.device = device(value()?)?,
                "--only" => options.only = value()?.into(),
                "--seconds" => options.seconds = seconds(value()?)?,
                "--python" => options.python = value()?.into(),
                "--peer" => options.peer = Some(value()?.into()),
                "--save" => options.save = Some(file_name(value()?)?),
                "--help" => return Err(USAGE.to_owned()),
                _ => return Err(format!("{arg}: no such argument\n{USAGE}")),
            }
        }
        Ok(options)
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
        text
    }
}

fn device(text: &str) -> Result<String, String> {
    match text {
        "cpu" | "gpu" => Ok(text.to_owned()),
        _ => Err(format!("--device: expected `cpu` or `gpu`, found `{text}`")),
    }
}

fn seconds(text: &str) -> Result<f64, String> {
    let parsed = text.parse().ok().filter(|seconds: &f64| seconds.is_finite() && *seconds >= 0.0);
    parsed.ok_or_else(|| format!("--seconds: expected a number of seconds, found `{text}`"))
}

/// A name that stays in its folder.
fn file_name(text: &str) -> Result<String, String> {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
    match !text.is_empty() && text.chars().all(plain) {
        true => Ok(text.to_owned()),
        false => Err(format!("--save: expected letters, digits, `-` and `_`, found `{text}`")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
        ] {
            let error = Options::parse(bad).unwrap_err();
            assert!(error.contains(bad[0]), "{error}");
        }
    }
}
