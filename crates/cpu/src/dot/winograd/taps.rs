//! Sums over outputs for each tap of a window, and how they are cut into tasks.
//!
//! Long sums are cut along the tiles, into *groups* whose sums are added (`groups`). Where there are more sums than
//! that leaves room for, tasks are blocks of rows, over all tiles that were transformed before (`rows`).

use super::plane::Plane;
use super::steps::Steps;
use super::{PLACES, TASKS};
use crate::dot::lie::ROWS;
use crate::dot::run::Run;
use crate::dot::window::Window;

/// Tiles of a group, at least.
const GROUP: usize = 96;

/// Multiply-adds of a group, at most, or too few tasks have all the work.
const MOST: usize = 1 << 26;

/// Sums of all groups together: 8 MiB of `f32`.
const PARTIALS: usize = 1 << 21;

/// Elements that are transformed before: 32 MiB of `f32`.
const SHARED: usize = 1 << 23;

/// Taps of a window.
pub(super) const TAPS: usize = 9;

/// A contraction whose columns are taps of an image's windows.
pub(in crate::dot) struct Taps {
    pub(super) plane: Plane,
    /// What windows look at: channels by elements.
    pub(super) seen: Window,
    pub(super) batch: usize,
    pub(super) rows: usize,
    cut: Cut,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cut {
    /// So many bands of tiles each.
    Groups(usize),
    /// Blocks of so many rows.
    Rows(usize),
}

impl Taps {
    /// For `rows` rows times an operand, if that pays.
    pub(super) fn new(batch: usize, rows: usize, window: &Window, plane: Plane) -> Option<Taps> {
        let cut = cut(batch, rows, &plane)?;
        let n_groups = if let Cut::Groups(bands) = cut { plane.bands().div_ceil(bands) } else { 1 };
        pays(rows, &plane, n_groups).then(|| {
            let seen = window.with_axes(plane.axes());
            Taps { plane, seen, batch, rows, cut }
        })
    }

    /// True iff sums are written where they are wanted, rather than added up first.
    pub(super) fn is_direct(&self) -> bool {
        match self.cut {
            Cut::Groups(bands) => self.plane.bands() <= bands,
            Cut::Rows(_) => true,
        }
    }

    /// Elements of memory that tasks share.
    pub(super) fn scratch(&self) -> usize {
        match self.cut {
            Cut::Groups(_) if self.is_direct() => 0,
            Cut::Groups(bands) => self.batch * self.plane.bands().div_ceil(bands) * self.rows * self.columns(),
            Cut::Rows(_) => {
                let tiles = self.plane.tiles();
                Steps::of_outputs(tiles).len(self.rows) + Steps::of_images(tiles).len(self.plane.channels())
            }
        }
    }

    pub(super) fn columns(&self) -> usize {
        self.plane.channels() * TAPS
    }

    pub(super) fn run(&self, run: &Run) {
        match self.cut {
            Cut::Groups(bands) => self.run_groups(run, bands),
            Cut::Rows(high) => self.run_rows(run, high),
        }
    }
}

/// From sizes alone.
fn cut(batch: usize, rows: usize, plane: &Plane) -> Option<Cut> {
    let (sums, tiles) = (rows * plane.channels(), plane.tiles());
    let groups = TASKS.div_ceil(batch).min(tiles / GROUP).min(PARTIALS / (batch * sums * TAPS)).max(1);
    let bands = plane.bands().div_ceil(groups);
    if PLACES * sums * bands * plane.across() <= MOST {
        return Some(Cut::Groups(bands));
    }
    let high = rows.div_ceil(TASKS).next_multiple_of(ROWS);
    (PLACES * tiles * (rows + plane.channels()) <= SHARED).then_some(Cut::Rows(high))
}

/// True iff there is less to do than over windows, in cycles: measured on an EPYC with AVX-512.
fn pays(rows: usize, plane: &Plane, n_groups: usize) -> bool {
    let (c, o, tiles) = (plane.channels() as f64, rows as f64, plane.tiles() as f64);
    let windows = 9.0 * c * o * plane.points() as f64 / 16.0 * 1.3;
    let (products, images, outputs, taps) = (c * o * tiles, 8.0 * c * tiles, 12.0 * o * tiles, 24.0 * c * o);
    windows > products + images + outputs + taps * n_groups as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cut_of(n: usize, c: usize, o: usize, side: usize) -> Option<Cut> {
        let (below, image) = (side as i64 + 2, ((side + 2) * (side + 2)) as i64);
        let outputs = [(n, c as i64 * image), (side, below), (side, 1)];
        let plane = Plane::new(&outputs, &[(c, image), (3, below), (3, 1)]).expect("windows of 3 × 3");
        cut(1, o, &plane)
    }

    #[test]
    fn many_tiles_are_groups_and_many_sums_blocks_of_rows() {
        assert_eq!(cut_of(32, 64, 64, 32), Some(Cut::Groups(32)));
        assert_eq!(cut_of(32, 128, 128, 16), Some(Cut::Groups(19)));
        assert_eq!(cut_of(32, 256, 256, 8), Some(Cut::Rows(16)));
        assert_eq!(cut_of(32, 512, 512, 4), Some(Cut::Rows(32)));
        assert_eq!(cut_of(32, 512, 512, 56), None);
    }
}
