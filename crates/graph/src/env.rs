//! The environment variables that the planner reads, in one table.
//!
//! | variable | effect |
//! |---|---|
//! | `KILN_DEBUG=1` | what a new device can do, and in what each new program differs from the last |
//! | `KILN_DEBUG=2` | one line per kernel of each new plan; its times and rates on the plan's third run |
//! | `KILN_DEBUG=3` | why neighbours did not fuse |
//! | `KILN_DEBUG=4` | the text of each new plan's kernels, where the device has one (WGSL) |
//! | `KILN_DEBUG=5` | the graph of each new plan |
//! | `KILN_DUMP=dir` | writes graph, plan, kernels and a timeline of each new plan into `dir/plan_NNN` |
//! | `KILN_TRACE=file.json` | what host and device do when, for Chrome's trace viewer or Perfetto; kernels are timed where a device can |
//! | `KILN_CHECK=cpu` | compares every kernel with the reference and stops at the first difference |
//!
//! Each level includes those below it.

use std::path::{Path, PathBuf};

use crate::timeline::{Span, Timeline};

/// What the environment asks for.
#[derive(Clone, Default)]
pub(crate) struct Env {
    pub(crate) debug: u32,
    pub(crate) dump: Option<PathBuf>,
    pub(crate) check: bool,
    pub(crate) timeline: Option<&'static Timeline>,
}

impl Env {
    /// Where the `n`-th plan of a device is written, if anywhere.
    pub(crate) fn dump_of(&self, n: usize) -> Option<PathBuf> {
        self.dump.as_ref().map(|dir| dir.join(format!("plan_{n:03}")))
    }

    /// Something that this thread does until the span drops, if anybody wants to know.
    pub(crate) fn span(&self, name: &'static str) -> Option<Span> {
        self.timeline.map(|timeline| timeline.span(name))
    }

    pub(crate) fn read() -> Env {
        let var = |name: &str| std::env::var(name).ok().filter(|v| !v.is_empty());
        let timeline = |path: String| {
            let timeline = Timeline::of_process(Path::new(&path));
            timeline.inspect_err(|error| eprintln!("KILN_TRACE: {path}: {error}")).ok()
        };
        Env {
            debug: var("KILN_DEBUG").and_then(|v| v.parse().ok()).unwrap_or(0),
            dump: var("KILN_DUMP").map(PathBuf::from),
            check: var("KILN_CHECK").is_some_and(|v| v == "cpu"),
            timeline: var("KILN_TRACE").and_then(timeline),
        }
    }
}
