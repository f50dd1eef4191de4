//! The rules that look at one file at a time.

use super::Violation;
use super::comments;

const N_LINES_MAX: usize = 1000;

/// Where development machines keep their checkouts. Split, so that this file does not flag itself.
const MACHINE_PATHS: &[&str] =
    &[concat!("/", "home/"), concat!("/", "work/"), concat!("/", "root/"), concat!("/", "Users/")];

/// The crates that know no GPU library, and the word for it.
const PURE: &[&str] = &["crates/ir/", "crates/graph/"];
const GPU_LIBRARY: &str = "wgpu";

/// Every violation in the file at `path`, relative to the repository root with `/` between folders.
pub(super) fn check(path: &str, text: &str) -> Vec<Violation> {
    let mut found = machine_path(text);
    if path.ends_with(".rs") {
        found.extend(opening(text));
        found.extend(length(text));
    }
    if PURE.iter().any(|folder| path.starts_with(folder)) {
        if path.ends_with(".rs") {
            found.extend(gpu_library(&comments::blank(text)));
        } else if path.ends_with(".toml") {
            found.extend(gpu_library(&blank_toml(text)));
        }
    }
    found.into_iter().map(|(line, rule)| Violation { file: path.to_owned(), line, rule }).collect()
}

/// A line, from 1, and the rule it breaks.
type Finding = (usize, String);

/// A file says first what it is.
fn opening(text: &str) -> Option<Finding> {
    (!text.starts_with("//!")).then(|| (1, "a .rs file opens with `//!`".to_owned()))
}

fn length(text: &str) -> Option<Finding> {
    let n_lines = text.lines().count();
    let rule = || format!("{n_lines} lines: a .rs file has at most {N_LINES_MAX}");
    (n_lines > N_LINES_MAX).then(|| (N_LINES_MAX + 1, rule()))
}

/// The tree builds anywhere, so it names no folder of the machine it was written on.
fn machine_path(text: &str) -> Vec<Finding> {
    let rule = |needle| format!("absolute path of a development machine: {needle}");
    let lines = text.lines().enumerate();
    lines
        .filter_map(|(at, line)| Some((at + 1, rule(MACHINE_PATHS.iter().find(|path| starts_path(line, path))?))))
        .collect()
}

/// True iff `needle` opens a path in `line`: after a name, a dot or a closing bracket it is part of a URL or of a
/// relative path.
fn starts_path(line: &str, needle: &str) -> bool {
    line.match_indices(needle).any(|(at, _)| {
        !line[..at].ends_with(|c: char| c.is_alphanumeric() || matches!(c, '_' | '-' | '.' | '~' | '*' | '}' | ')'))
    })
}

fn gpu_library(code: &str) -> Vec<Finding> {
    let lines = code.lines().enumerate();
    let hits = lines.filter(|(_, line)| line.to_ascii_lowercase().contains(GPU_LIBRARY));
    hits.map(|(at, _)| (at + 1, format!("{GPU_LIBRARY} in code: ir and graph never mention it"))).collect()
}

/// A manifest with its comments gone; no value in a manifest of ours holds a `#`.
fn blank_toml(text: &str) -> String {
    text.lines().map(|line| line.split('#').next().unwrap_or_default()).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    const NONE: [usize; 0] = [];

    /// The lines at which `check` finds a violation.
    fn lines(path: &str, text: &str) -> Vec<usize> {
        check(path, text).into_iter().map(|violation| violation.line).collect()
    }

    #[test]
    fn a_source_file_opens_with_its_purpose() {
        assert_eq!(lines("crates/nn/src/lib.rs", "//! Layers.\nfn f() {}\n"), NONE);
        for bad in ["", "fn f() {}\n", "// Layers.\n", "\n//! Layers.\n", "#![forbid(unsafe_code)]\n//! Layers.\n"] {
            assert_eq!(lines("crates/nn/tests/laws.rs", bad), [1], "{bad:?}");
        }
        assert_eq!(lines("crates/nn/README.md", "# Layers\n"), NONE);
    }

    #[test]
    fn a_source_file_has_at_most_a_thousand_lines() {
        let text = |n_lines: usize| format!("//! Long.\n{}", "\n".repeat(n_lines - 1));
        assert_eq!(lines("build.rs", &text(1000)), NONE);
        assert_eq!(lines("build.rs", &text(1001)), [1001]);
        assert_eq!(lines("table.csv", &text(1001)), NONE);
    }

    #[test]
    fn no_file_names_a_development_machine() {
        for folder in MACHINE_PATHS {
            assert_eq!(lines("a.toml", &format!("a = 1\npath = \"{folder}kiln\"\n")), [2]);
            assert_eq!(lines("a.md", &format!("file://{folder}kiln and {folder}kiln\n")), [1]);
            assert_eq!(lines("a.sh", &format!("ls {folder}\n")), [1]);
            assert_eq!(
                lines("a.md", &format!("https://example.org{folder}x or ..{folder}x or ${{DIR}}{folder}x\n")),
                NONE
            );
        }
        assert_eq!(lines("a.md", "at home / work\n"), NONE);
    }

    #[test]
    fn pure_crates_do_not_mention_the_gpu_library_in_code() {
        let good = "//! Knows nothing of wgpu.\nfn f() {} // as wgpu does\n/* wgpu */ struct S;\n";
        assert_eq!(lines("crates/ir/src/lib.rs", good), NONE);
        let bad = "//! Caps.\nuse wgpu::Limits;\nconst NAME: &str = \"wgpu\";\nstruct WgpuCaps;\n";
        assert_eq!(lines("crates/graph/src/lib.rs", bad), [2, 3, 4]);
        assert_eq!(lines("crates/device/src/lib.rs", bad), NONE);
        assert_eq!(lines("crates/ir/Cargo.toml", "# no wgpu here\n[dependencies]\n"), NONE);
        assert_eq!(lines("crates/ir/Cargo.toml", "[dependencies]\nwgpu = \"1\"\n"), [2]);
    }

    #[test]
    fn a_violation_prints_as_one_line() {
        let found = check("a.rs", "fn f() {}\n");
        assert_eq!(found[0].to_string(), "a.rs:1: a .rs file opens with `//!`");
    }
}
