//! Sums over outputs for each tap: groups of tiles, whose products are summed place by place.
//!
//! A group goes on in blocks, both of whose operands the second cache holds; its products stay where they are added
//! up, and become a window's taps at the end. Sums of groups are added as those of other contractions are.

use std::ops::Range;

use super::plane::Plane;
use super::steps::{Cotangents, Images};
use super::windows::{self, Products};
use super::{LANES, PLACES, TASKS};
use crate::dot::gemm::{Product, Run};
use crate::dot::task::Task;
use crate::dot::tile::{Target, multiply};
use crate::dot::window::Window;
use crate::memory::View;
use crate::task::for_each;

/// Tiles of a block, and of a group at least.
const BLOCK: usize = 64;
const GROUP: usize = 96;

/// Products of a group, at most: some 5 ms.
const MOST: usize = 1 << 27;

/// Sums of all groups together: 8 MiB of `f32`.
const PARTIALS: usize = 1 << 21;

/// Taps of a window.
pub(super) const TAPS: usize = 9;

/// A contraction whose columns are taps of an image's windows.
pub(in crate::dot) struct Taps {
    pub(super) plane: Plane,
    /// What windows look at: channels by elements.
    pub(super) seen: Window,
    batch: usize,
    pub(super) rows: usize,
    /// Bands of tiles in a group.
    bands: usize,
}

impl Taps {
    /// For `rows` rows times an operand, if that pays.
    pub(super) fn new(batch: usize, rows: usize, window: &Window, plane: Plane) -> Option<Taps> {
        let tiles = plane.bands() * plane.across();
        let room = PARTIALS / (batch * rows * plane.channels() * TAPS);
        let groups = TASKS.div_ceil(batch).min(tiles / GROUP).min(room).max(1);
        let bands = plane.bands().div_ceil(groups);
        let products = PLACES * rows * plane.channels() * bands * plane.across();
        (products <= MOST && pays(rows, &plane, groups)).then(|| {
            let seen = window.with_axes(plane.axes());
            Taps { plane, seen, batch, rows, bands }
        })
    }

    fn groups(&self) -> usize {
        self.plane.bands().div_ceil(self.bands)
    }

    /// True iff there is nothing to add up.
    pub(super) fn is_whole(&self) -> bool {
        self.groups() == 1
    }

    /// Elements of the sums of groups.
    pub(super) fn scratch(&self) -> usize {
        if self.is_whole() { 0 } else { self.batch * self.groups() * self.rows * self.plane.channels() * TAPS }
    }

    pub(super) fn run(&self, run: &Run) {
        let (gemm, groups) = (run.gemm, self.groups());
        let (n, columns) = (self.batch * groups, self.plane.channels() * TAPS);
        let init = || gemm.task(run.env);
        for_each(run.parallel, n, gemm.work() / n, init, |task, i| {
            let (batch, from) = (i / groups, i % groups * self.bands);
            let bands = from..self.plane.bands().min(from + self.bands);
            let steps = self.plane.first(bands.start)..self.plane.first(bands.end);
            let product = Product::<f32> { run, batch, lines: [0..self.rows, 0..columns], k: steps, shared: None };
            let sum = |task: &mut Task, out: Target| {
                if !self.sum(&product, bands, task, out) {
                    product.sum(task, out);
                }
            };
            if groups == 1 {
                return product.finish(task, sum);
            }
            let at = (i * self.rows * columns) as isize;
            sum(task, Target { view: run.env.scratch, at, strides: [columns as isize, 1] });
        });
        if groups > 1 {
            run.add_groups::<f32>(groups);
        }
    }

    /// Sums over the tiles of some bands; true iff all sums are finite.
    fn sum(&self, product: &Product<f32>, bands: Range<usize>, task: &mut Task, out: Target) -> bool {
        let channels = self.plane.channels();
        let wide = channels.next_multiple_of(LANES);
        let Task { panels: [left, right, _], loans: [loan, ..] } = task;
        let most = (BLOCK / self.plane.across()).clamp(1, bands.len());
        let (pitch, cotangents) = (Products::pitch(self.rows, wide), Cotangents::len(self, most));
        left.reserve_bytes((PLACES * pitch + cotangents) * size_of::<f32>());
        let (products, cotangents) =
            left.lanes_mut::<f32>()[..PLACES * pitch + cotangents].split_at_mut(PLACES * pitch);
        let images = Images::len(self, most);
        right.reserve_bytes(images * size_of::<f32>());
        let images = &mut right.lanes_mut::<f32>()[..images];
        for from in bands.clone().step_by(most) {
            let some = from..bands.end.min(from + most);
            let tiles = some.len() * self.plane.across();
            let cotangents = Cotangents::new(self, product, loan, &some, cotangents);
            let images = Images::new(self, product, &some, images);
            let view = View::of(&mut *products);
            for place in 0..PLACES {
                let (lhs, rhs) = (cotangents.packed(place), images.packed(place));
                let out = Target { view, at: (place * pitch) as isize, strides: [wide as isize, 1] };
                multiply([self.rows, wide, tiles], lhs, rhs, out, from > bands.start);
            }
        }
        let mut is_finite = true;
        windows::transform(Products { data: products, rows: self.rows, wide }, channels, out, &mut is_finite);
        is_finite
    }
}

/// True iff there is less to do than over windows, in cycles: measured on an EPYC with AVX-512.
fn pays(rows: usize, plane: &Plane, groups: usize) -> bool {
    let (c, o, tiles) = (plane.channels() as f64, rows as f64, (plane.bands() * plane.across()) as f64);
    let windows = 9.0 * c * o * plane.points() as f64 / 16.0 * 1.3;
    let (products, images, cotangents, taps) = (c * o * tiles, 8.0 * c * tiles, 12.0 * o * tiles, 16.0 * c * o);
    products + images + cotangents + taps * groups as f64 * 1.5 < windows
}
