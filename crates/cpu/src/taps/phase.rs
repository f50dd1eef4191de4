//! The taps of one remainder of each coordinate: addresses that are sums, and bounds that are left.

use std::ops::Range;

use crate::space::admitted;

/// What one remainder of each coordinate meets.
pub(super) struct Phase {
    pub(super) taps: Vec<Element>,
    /// The parts of addresses and bounds that only lines decide; taps share them.
    pub(super) shares: Vec<Share>,
    /// True iff what does not exist adds nothing.
    pub(super) sums_elements: bool,
}

impl Phase {
    /// True iff some tap sees along a line of so many points what another one sees at its beginning.
    pub(super) fn meets(&self, len: usize) -> bool {
        let first = self.taps.first().map_or(0, |tap| tap.places[0].constant);
        self.taps.iter().any(|tap| (1..tap.places[0].step * len as i64).contains(&(tap.places[0].constant - first)))
    }
}

/// An element of a row.
pub(super) struct Element {
    /// Which one it is.
    pub(super) number: i32,
    /// Where its value and what that is multiplied by or compared with lie.
    pub(super) places: Vec<Reach>,
    /// What the other is compared with.
    pub(super) coordinate: Option<Reach>,
    /// True iff the value exists at some point of some line: where limits admit it.
    pub(super) exists: bool,
    pub(super) limits: Vec<Limit>,
}

/// A sum over the coordinates of a line, in quotients.
#[derive(PartialEq, Eq)]
pub(super) struct Share(pub(super) Vec<i64>);

/// A value that goes on evenly along a line.
#[derive(Clone, Copy)]
pub(super) struct Reach {
    /// The number of the line's share.
    pub(super) share: usize,
    pub(super) constant: i64,
    pub(super) step: i64,
}

impl Reach {
    /// At the beginning of a line, whose shares are these.
    pub(super) fn head(&self, shares: &[i64]) -> i64 {
        shares[self.share] + self.constant
    }
}

/// A bound on such a value.
pub(super) struct Limit {
    pub(super) of: Reach,
    pub(super) lo: i64,
    pub(super) hi: i64,
}

impl Limit {
    /// The points of a line that it admits.
    pub(super) fn admitted(&self, shares: &[i64], n: usize) -> Range<usize> {
        admitted(self.of.head(shares), self.of.step, self.lo, self.hi, n)
    }
}
