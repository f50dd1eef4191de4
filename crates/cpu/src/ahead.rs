//! Asking for memory before it is needed, while there is something to compute.
//!
//! Processors see where a walk goes on, but no further than a page, and not while they wait for arithmetic. So what the
//! next tile will touch is noted, and asked for in the course of this one, a few lines with each piece of a step's lanes:
//! more at once than a core can wait for would stop it.

use crate::memory::View;
use crate::simd::{LINE, prefetch};

/// Ranges that may wait to be asked for.
const MOST: usize = 16;

/// Cache lines that each step of an update asks for at once: its parts are one walk, which asks for nothing.
const AT_ONCE: usize = 32;

/// Cache lines that a quick step asks for with each piece; one that takes long asks for all of a range, evenly.
const QUICK: usize = 2;

/// Memory that the next tile will touch.
#[derive(Default)]
pub(crate) struct Wanted(Vec<View>);

impl Wanted {
    pub(crate) fn clear(&mut self) {
        self.0.clear();
    }

    /// Notes that some memory will be needed.
    pub(crate) fn note(&mut self, view: View) {
        // What has waited for long was needed meanwhile.
        if self.0.len() == MOST {
            self.0.clear();
        }
        // A later pass reads the same.
        if view.len::<u8>() > 0 && !self.0.iter().any(|other| other.end() == view.end()) {
            self.0.push(view);
        }
    }

    /// Asks for some of it at once.
    pub(crate) fn ask(&mut self) {
        let Ahead { at, lines } = self.spread(AT_ONCE / QUICK, false);
        Ahead { at, lines: lines * AT_ONCE / QUICK }.ask();
    }

    /// What a step that takes so many pieces is to ask for: a slow one, what was noted first.
    #[inline]
    pub(crate) fn spread(&mut self, pieces: usize, slow: bool) -> Ahead {
        let Some(last) = self.0.len().checked_sub(1) else { return Ahead::none() };
        let n = if slow { 0 } else { last };
        let view = self.0[n];
        let bytes = view.len::<u8>();
        let lines = if slow { bytes.div_ceil(LINE).div_ceil(pieces.max(1)) } else { QUICK };
        let asked = pieces * lines * LINE;
        if asked < bytes {
            self.0[n] = view.after(asked);
        } else {
            self.0.remove(n);
        }
        Ahead { at: view.start_at(0), lines }
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
