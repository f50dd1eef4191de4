//! Asking for memory before it is needed, while there is something to compute.
//!
//! Processors see where a walk goes on, but no further than a page, and not while they wait for arithmetic. So what the
//! next tile will touch is noted, and asked for in the course of this one: evenly by the steps that take long over their
//! lanes and leave memory idle meanwhile, and some at once before each of the others.

use crate::exec::Env;
use crate::simd::{LINE, prefetch};

/// Ranges that may wait to be asked for.
const MOST: usize = 16;

/// Cache lines that are asked for at once before a quick step: fewer than a core can wait for.
const AT_ONCE: usize = 32;

/// Ranges of arguments that the next tile will touch.
#[derive(Default)]
pub(crate) struct Wanted(Vec<Range>);

/// Bytes of an argument: from there, to there.
struct Range {
    arg: usize,
    from: usize,
    to: usize,
}

impl Wanted {
    pub(crate) fn clear(&mut self) {
        self.0.clear();
    }

    /// Notes that so many bytes of an argument will be needed.
    pub(crate) fn note(&mut self, arg: usize, from: usize, bytes: usize) {
        // What has waited for long was needed meanwhile.
        if self.0.len() == MOST {
            self.0.clear();
        }
        let to = from + bytes;
        // A later pass reads the same.
        if !self.0.iter().any(|range| (range.arg, range.to) == (arg, to)) {
            self.0.push(Range { arg, from, to });
        }
    }

    /// Asks for some of it.
    pub(crate) fn ask(&mut self, env: Env) {
        let Some(Range { arg, from, to }) = self.0.pop() else { return };
        let end = to.min(from + AT_ONCE * LINE);
        env.args[arg].prefetch(from..end);
        if end < to {
            self.0.push(Range { arg, from: end, to });
        }
    }

    /// What a step that takes so many pieces is to ask for: what was noted first.
    pub(crate) fn spread(&mut self, pieces: usize, env: Env) -> Ahead {
        if self.0.is_empty() {
            return Ahead::none();
        }
        let Range { arg, from, to } = self.0.remove(0);
        Ahead { at: env.args[arg].start_at(from), lines: (to - from).div_ceil(LINE).div_ceil(pieces) }
    }
}

/// What a slow step asks for, piece by piece.
pub(crate) struct Ahead {
    at: *const u8,
    /// Cache lines a piece.
    lines: usize,
}

impl Ahead {
    /// Asks for nothing.
    pub(crate) fn none() -> Ahead {
        Ahead { at: std::ptr::null(), lines: 0 }
    }

    /// Asks for what belongs to one piece.
    #[inline(always)]
    pub(crate) fn ask(&mut self) {
        for _ in 0..self.lines {
            prefetch(self.at);
            self.at = self.at.wrapping_add(LINE);
        }
    }
}
