//! Asking for memory before it is needed, while there is something to compute.
//!
//! Processors see where a walk goes on, but no further than a page, and not while they wait for arithmetic. So what the
//! next tile will touch is noted, and asked for in the course of this one, a few lines with each piece of a step's lanes:
//! more at once than a core can wait for would stop it.

use crate::exec::Env;
use crate::simd::{LINE, prefetch};

/// Ranges that may wait to be asked for.
const MOST: usize = 16;

/// Cache lines that each step of an update asks for at once: its parts are one walk, which asks for nothing.
const AT_ONCE: usize = 32;

/// Cache lines that a quick step asks for with each piece; one that takes long asks for all of a range, evenly.
const QUICK: usize = 2;

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

    /// Asks for some of it at once.
    pub(crate) fn ask(&mut self, env: Env) {
        let Ahead { at, lines } = self.spread(AT_ONCE / QUICK, false, env);
        Ahead { at, lines: lines * AT_ONCE / QUICK }.ask();
    }

    /// What a step that takes so many pieces is to ask for: a slow one, what was noted first.
    #[inline]
    pub(crate) fn spread(&mut self, pieces: usize, slow: bool, env: Env) -> Ahead {
        while let Some(last) = self.0.len().checked_sub(1) {
            let Range { arg, from, to } = self.0.remove(if slow { 0 } else { last });
            let to = to.min(env.args[arg].len::<u8>());
            if from < to {
                let lines = if slow { (to - from).div_ceil(LINE).div_ceil(pieces.max(1)) } else { QUICK };
                let end = from + pieces * lines * LINE;
                if end < to {
                    self.0.push(Range { arg, from: end, to });
                }
                return Ahead { at: env.args[arg].start_at(from), lines };
            }
        }
        Ahead::none()
    }
}

/// What a step asks for, piece by piece.
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

    /// Asks for so many cache lines a piece, from an address on that may be any.
    pub(crate) fn from<T>(at: *const T, lines: usize) -> Ahead {
        Ahead { at: at.cast(), lines }
    }

    /// True iff it asks for anything.
    #[inline(always)]
    pub(crate) fn asks(&self) -> bool {
        self.lines > 0
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
