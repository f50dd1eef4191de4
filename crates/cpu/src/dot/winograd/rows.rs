//! Blocks of rows over all tiles: few tiles, but so many sums that those of groups would not fit.
//!
//! Both operands are transformed strip by strip into memory that tasks share; then a block's products are summed place by
//! place.

use super::products::Products;
use super::steps::{Part, Steps};
use super::taps::Taps;
use super::windows;
use super::{LANES, PLACES};
use crate::dot::product::Product;
use crate::dot::run::Run;
use crate::dot::task::{Room, Task};
use crate::dot::tile::{Target, multiply};
use crate::memory::View;
use crate::task::for_each;

impl Taps {
    /// Blocks of so many rows.
    pub(super) fn run_rows(&self, run: &Run, high: usize) {
        let (gemm, blocks) = (run.gemm, self.rows.div_ceil(high));
        for batch in 0..self.batch {
            self.transform_strips(run, batch);
            for_each(
                run.parallel,
                blocks,
                gemm.work() / (self.batch * blocks),
                || gemm.task(run.env),
                |task, i| {
                    let lines = [i * high..self.rows.min((i + 1) * high), 0..self.columns()];
                    let product = Product::<f32> { run, batch, lines, k: 0..gemm.k, shared: None };
                    product.finish(task, |task, out| {
                        if !self.sum_rows(&product, task, out) {
                            product.sum(task, out);
                        }
                    });
                },
            );
        }
    }

    /// Transforms both operands: the left one's strips come first.
    fn transform_strips(&self, run: &Run, batch: usize) {
        let (plane, tiles) = (&self.plane, self.plane.tiles());
        let (left, right) = (Steps::of_outputs(tiles), Steps::of_images(tiles));
        let (rows, channels) = (self.rows.div_ceil(left.width), plane.channels().div_ceil(right.width));
        let work = PLACES * right.width * tiles;
        for_each(
            run.parallel,
            rows + channels,
            work,
            || run.gemm.task(run.env),
            |task, i| {
                let is_left = i < rows;
                let (steps, strip, most) = match is_left {
                    true => (left, i, self.rows),
                    false => (right, i - rows, plane.channels()),
                };
                let width = steps.width;
                let lines = strip * width..most.min((strip + 1) * width);
                let at = if is_left { 0 } else { left.len(self.rows) } + steps.len(strip * width);
                // SAFETY: each task fills strips of its own.
                let out = unsafe { run.env.scratch.slice_mut::<f32>(at, steps.len(width)) };
                let part = Part { taps: self, run, batch, lines, bands: 0..plane.bands() };
                let Room { panels: [raw, ..], workers: [worker, ..] } = &mut **task;
                let len = if is_left { part.raw_outputs() } else { part.raw_images() };
                raw.reserve_bytes(len * size_of::<f32>());
                match is_left {
                    true => part.transform_outputs(worker, raw.lanes_mut(), out),
                    false => part.transform_images(raw.lanes_mut(), out),
                }
            },
        );
    }

    /// Sums some rows; true iff all sums are finite.
    fn sum_rows(&self, product: &Product<f32>, task: &mut Task, out: Target) -> bool {
        let (tiles, channels, rows) = (self.plane.tiles(), self.plane.channels(), &product.lines[0]);
        let (left, right) = (Steps::of_outputs(tiles), Steps::of_images(tiles));
        let scratch = product.run.env.scratch;
        let outputs = scratch.slice::<f32>(left.len(rows.start), left.len(rows.len()));
        let images = scratch.slice::<f32>(left.len(self.rows), right.len(channels));
        let wide = channels.next_multiple_of(LANES);
        let pitch = Products::pitch(rows.len(), wide);
        let products = &mut task.panels[0];
        products.reserve_bytes(PLACES * pitch * size_of::<f32>());
        let products = &mut products.lanes_mut::<f32>()[..PLACES * pitch];
        let view = View::of(&mut *products);
        for place in 0..PLACES {
            let out = Target { view, at: (place * pitch) as isize, strides: [wide as isize, 1] };
            let dims = [rows.len(), wide.min(right.lines(channels)), tiles];
            multiply(dims, left.packed(outputs, place), right.packed(images, place), out, false);
        }
        let mut is_finite = true;
        windows::transform(Products { data: products, rows: rows.len(), wide }, channels, out, &mut is_finite);
        is_finite
    }
}
