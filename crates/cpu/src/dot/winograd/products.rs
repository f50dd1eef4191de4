//! What the products of all places are, before they become sums or taps.

use super::LANES;

/// `[places, rows, wide]`, with [`LANES`] more at each place, as the last vector goes beyond.
#[derive(Clone, Copy)]
pub(super) struct Products<'a> {
    pub(super) data: &'a [f32],
    pub(super) rows: usize,
    /// Elements from a row to the next one: tiles or channels.
    pub(super) wide: usize,
}

impl Products<'_> {
    /// From a place to the next.
    pub(super) fn pitch(rows: usize, wide: usize) -> usize {
        rows * wide + LANES
    }
}
