//! Groups of tiles, whose products are summed place by place.
//!
//! A group goes on in blocks, both of whose operands the second cache holds; its products stay where they are added
//! up, and become windows' taps at the end. Sums of groups are added as those of other contractions are.

use std::ops::Range;

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

/// Tiles of a block.
const BLOCK: usize = 64;

impl Taps {
    /// Groups of so many bands.
    pub(super) fn run_groups(&self, run: &Run, bands: usize) {
        let groups = self.plane.bands().div_ceil(bands);
        let n = self.batch * groups;
        for_each(
            run.parallel,
            n,
            run.gemm.work() / n,
            || run.gemm.task(run.env),
            |task, i| {
                let (batch, from) = (i / groups, i % groups * bands);
                let bands = from..self.plane.bands().min(from + bands);
                let steps = self.plane.first(bands.start)..self.plane.first(bands.end);
                let lines = [0..self.rows, 0..self.columns()];
                let product = Product::<f32> { run, batch, lines, k: steps, shared: None };
                let sum = |task: &mut Task, out: Target| {
                    if !self.sum_group(&product, bands, task, out) {
                        product.sum(task, out);
                    }
                };
                if groups == 1 {
                    return product.finish(task, sum);
                }
                let at = (i * self.rows * self.columns()) as isize;
                sum(task, Target { view: run.env.scratch, at, strides: [self.columns() as isize, 1] });
            },
        );
        if groups > 1 {
            run.add_groups::<f32>(groups);
        }
    }

    /// Sums over the tiles of some bands; true iff all sums are finite.
    fn sum_group(&self, product: &Product<f32>, bands: Range<usize>, task: &mut Task, out: Target) -> bool {
        let (rows, channels) = (self.rows, self.plane.channels());
        let wide = channels.next_multiple_of(LANES);
        let Room { panels: [left, right, _], workers: [worker, ..] } = &mut **task;
        let most = (BLOCK / self.plane.across()).clamp(1, bands.len());
        let part = |lines: usize, bands: Range<usize>| Part {
            taps: self,
            run: product.run,
            batch: product.batch,
            lines: 0..lines,
            bands,
        };
        let (largest, pitch) = (most * self.plane.across(), Products::pitch(rows, wide));
        let [of_outputs, of_images] = [rows, channels].map(|lines| part(lines, bands.start..bands.start + most));
        let lens = [PLACES * pitch, Steps::of_outputs(largest).len(rows), of_outputs.raw_outputs()];
        left.reserve_bytes(lens.iter().sum::<usize>() * size_of::<f32>());
        let (products, rest) = left.lanes_mut::<f32>().split_at_mut(lens[0]);
        let (outputs, raw_outputs) = rest.split_at_mut(lens[1]);
        let lens = [Steps::of_images(largest).len(channels), of_images.raw_images()];
        right.reserve_bytes(lens.iter().sum::<usize>() * size_of::<f32>());
        let (images, raw_images) = right.lanes_mut::<f32>().split_at_mut(lens[0]);
        for from in bands.clone().step_by(most) {
            let some = from..bands.end.min(from + most);
            let tiles = some.len() * self.plane.across();
            part(rows, some.clone()).transform_outputs(worker, raw_outputs, outputs);
            part(channels, some).transform_images(raw_images, images);
            let view = View::of(&mut *products);
            let (lhs, rhs) = (Steps::of_outputs(tiles), Steps::of_images(tiles));
            let dims = [rows, wide.min(rhs.lines(channels)), tiles];
            for place in 0..PLACES {
                let out = Target { view, at: (place * pitch) as isize, strides: [wide as isize, 1] };
                multiply(dims, lhs.packed(outputs, place), rhs.packed(images, place), out, from > bands.start);
            }
        }
        let mut is_finite = true;
        windows::transform(Products { data: products, rows, wide }, channels, out, &mut is_finite);
        is_finite
    }
}
