//! Blocks of tiles: transformed, multiplied place by place, transformed back and finished, all while in cache.
//!
//! Where that makes few tasks, since there are few tiles, blocks are of some rows, and share their images.

use std::cell::RefCell;
use std::ops::Range;

use super::image::{Images, halves};
use super::plane::{Plane, Tiles};
use super::products::Products;
use super::{LANES, PLACES, TASKS, sums};
use crate::dot::lie::{Packed, ROWS};
use crate::dot::product::Product;
use crate::dot::run::Run;
use crate::dot::task::{Room, Task};
use crate::dot::tile::{Target, multiply};
use crate::memory::View;
use crate::simd::Reg;
use crate::task::for_each;

thread_local! {
    static LISTED: RefCell<Tiles> = RefCell::default();
}

/// Elements of `V` and of the products that a block has, as the second cache holds them.
const ROOM: usize = 1 << 18;

/// Tiles of a block, at least (or `U` is read too often) and at most.
const TILES: [usize; 2] = [64, 256];

/// Rows of a block, at least.
const HIGH: usize = 48;

/// A contraction whose columns are an image's outputs.
pub(in crate::dot) struct Outputs {
    pub(super) plane: Plane,
    pub(super) batch: usize,
    pub(super) rows: usize,
    /// Bands of tiles in a block.
    bands: usize,
    /// Rows of a block. If these are not all, images are transformed for all blocks before.
    high: usize,
}

impl Outputs {
    /// For `rows` rows times an operand, if that pays.
    pub(super) fn new(batch: usize, rows: usize, plane: Plane) -> Option<Outputs> {
        pays(rows, &plane).then(|| {
            let bands = bands(rows, &plane);
            let blocks = batch * plane.bands().div_ceil(bands);
            let high = if blocks < TASKS / 2 { rows.div_ceil(TASKS / blocks) } else { rows };
            let high = high.max(HIGH).next_multiple_of(ROWS).min(rows);
            Outputs { plane, batch, rows, bands, high }
        })
    }

    /// Elements of `U`, and of images that are transformed before.
    pub(super) fn scratch(&self) -> usize {
        let images = if self.is_shared() { self.batch * self.blocks() * self.block_len() } else { 0 };
        self.filters() + images
    }

    /// Elements of `U`.
    fn filters(&self) -> usize {
        self.batch * PLACES * self.pitch()
    }

    /// True iff all tasks share the images of a block.
    fn is_shared(&self) -> bool {
        self.high < self.rows
    }

    /// The images of so many tiles.
    fn images(&self, tiles: usize) -> Images {
        Images::new(tiles, self.plane.channels())
    }

    /// Elements of the images of a whole block.
    fn block_len(&self) -> usize {
        self.images(self.bands * self.plane.across()).len()
    }

    /// From a place of `U` to the next. Not a power of two, or all places would compete for the same lines of the cache.
    pub(super) fn pitch(&self) -> usize {
        self.rows.next_multiple_of(ROWS) * self.plane.channels() + LANES
    }

    /// Blocks of one element of the batch.
    fn blocks(&self) -> usize {
        self.plane.bands().div_ceil(self.bands)
    }

    /// The bands of a block.
    fn block(&self, i: usize) -> Range<usize> {
        i * self.bands..self.plane.bands().min((i + 1) * self.bands)
    }

    pub(super) fn run(&self, run: &Run) {
        self.transform_filters(run);
        if self.is_shared() {
            self.transform_images(run);
        }
        let (gemm, blocks, parts) = (run.gemm, self.blocks(), self.rows.div_ceil(self.high));
        let n = self.batch * blocks * parts;
        let init = || gemm.task(run.env);
        for_each(run.parallel, n, gemm.work() / n, init, |task, i| {
            let (batch, block, part) = (i / parts / blocks, i / parts % blocks, i % parts);
            let bands = self.block(block);
            let rows = part * self.high..self.rows.min((part + 1) * self.high);
            let columns = self.plane.first(bands.start)..self.plane.first(bands.end);
            let product = Product::<f32> { run, batch, lines: [rows, columns], k: 0..gemm.k, shared: None };
            product.finish(task, |task, out| {
                let is_finite = self.with_tiles(run, batch, bands, |tiles| {
                    let Room { panels: [products, own, _], .. } = &mut **task;
                    let len = self.images(tiles.n).len();
                    let images = match self.is_shared() {
                        true => run.env.scratch.slice(self.images_at(batch, block), len),
                        false => self.fill(run, tiles, own),
                    };
                    self.sum(&product, tiles, images, products, out)
                });
                if !is_finite {
                    product.sum(task, out);
                }
            });
        });
    }

    /// Lists the tiles of some bands.
    fn with_tiles<T>(&self, run: &Run, batch: usize, bands: Range<usize>, body: impl FnOnce(&Tiles) -> T) -> T {
        let window = run.gemm.operands[1].window().expect("seen before");
        LISTED.with_borrow_mut(|tiles| {
            self.plane.list(bands, window.start(run.env, batch), tiles);
            body(tiles)
        })
    }

    /// Where a block's images are if all tasks share them.
    fn images_at(&self, batch: usize, block: usize) -> usize {
        self.filters() + (batch * self.blocks() + block) * self.block_len()
    }

    /// Transforms the images of all blocks.
    fn transform_images(&self, run: &Run) {
        let (blocks, work) = (self.blocks(), self.block_len());
        for_each(run.parallel, self.batch * blocks, work, Task::bare, |task, i| {
            let (batch, block) = (i / blocks, i % blocks);
            self.with_tiles(run, batch, self.block(block), |tiles| {
                let images = self.images(tiles.n);
                // SAFETY: each task fills a block of its own.
                let out = unsafe { run.env.scratch.slice_mut::<f32>(self.images_at(batch, block), images.len()) };
                let apart = &mut task.panels[1];
                let len = tiles.rows.len() * halves(&self.plane);
                apart.reserve_bytes(len * size_of::<f32>());
                images.fill(&self.plane, run.sources[1], tiles, &mut apart.lanes_mut()[..len], out);
            });
        });
    }

    /// Transforms a block's images.
    fn fill<'a>(&self, run: &Run, tiles: &Tiles, memory: &'a mut Reg) -> &'a [f32] {
        let images = self.images(tiles.n);
        let apart = tiles.rows.len() * halves(&self.plane);
        memory.reserve_bytes((images.len() + apart) * size_of::<f32>());
        let (out, apart) = memory.lanes_mut::<f32>()[..images.len() + apart].split_at_mut(images.len());
        images.fill(&self.plane, run.sources[1], tiles, apart, out);
        out
    }

    /// Sums a block; true iff all sums are finite.
    fn sum(&self, product: &Product<f32>, tiles: &Tiles, images: &[f32], memory: &mut Reg, out: Target) -> bool {
        let Product { run, batch, lines: [rows, columns], .. } = product;
        let (of_images, channels, wide) =
            (self.images(tiles.n), self.plane.channels(), tiles.n.next_multiple_of(LANES));
        let pitch = Products::pitch(rows.len(), wide);
        memory.reserve_bytes(PLACES * pitch * size_of::<f32>());
        let data = &mut memory.lanes_mut::<f32>()[..PLACES * pitch];
        let view = View::of(&mut *data);
        for place in 0..PLACES {
            let at = (batch * PLACES + place) * self.pitch() + rows.start * channels;
            let strips = rows.len().next_multiple_of(ROWS) * channels;
            let lhs = Packed { data: run.env.scratch.slice(at, strips), width: ROWS, pitch: ROWS * channels };
            let rhs = of_images.packed(images, place);
            let to = Target { view, at: (place * pitch) as isize, strides: [wide as isize, 1] };
            multiply([rows.len(), wide.min(of_images.columns()), channels], lhs, rhs, to, false);
        }
        let mut is_finite = true;
        let products = Products { data, rows: rows.len(), wide };
        sums::transform(products, &tiles.segments, [columns.len(), self.plane.width()], out, &mut is_finite);
        is_finite
    }
}

/// True iff there is less to do than over windows, in cycles: measured on an EPYC with AVX-512.
fn pays(rows: usize, plane: &Plane) -> bool {
    let (c, o, tiles) = (plane.channels() as f64, rows as f64, plane.tiles() as f64);
    let windows = 9.0 * c * o * plane.points() as f64 / 16.0 * 1.15;
    let (products, images, sums, filters) = (c * o * tiles, 6.0 * c * tiles, 8.0 * o * tiles, 20.0 * c * o);
    products + images + sums + filters < windows
}

/// How many bands make a block: as many as there is room for, of those the number that leaves the fewest lanes idle.
fn bands(rows: usize, plane: &Plane) -> usize {
    let room = ROOM / (PLACES * (rows + plane.channels()));
    let shared = plane.tiles().div_ceil(TASKS);
    let tiles = room.min(shared).clamp(TILES[0], TILES[1]);
    let most = (tiles / plane.across()).clamp(1, plane.bands());
    let used = |bands: usize| {
        let tiles = bands * plane.across();
        tiles as f64 / tiles.next_multiple_of(LANES) as f64
    };
    (most.div_ceil(2)..=most).max_by(|&a, &b| used(a).total_cmp(&used(b))).unwrap_or(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outputs(n: usize, c: usize, o: usize, side: usize) -> Option<Outputs> {
        let (below, image) = (side as i64 + 2, ((side + 2) * (side + 2)) as i64);
        let outputs = [(n, c as i64 * image), (side, below), (side, 1)];
        Outputs::new(1, o, Plane::new(&outputs, &[(c, image), (3, below), (3, 1)]).expect("windows of 3 × 3"))
    }

    #[test]
    fn blocks_keep_threads_busy() {
        for (n, c, o, side) in [(32, 64, 64, 32), (32, 512, 512, 4), (1, 64, 64, 14), (8, 128, 128, 28)] {
            let outputs = outputs(n, c, o, side).expect("enough of everything");
            let tasks = outputs.blocks() * o.div_ceil(outputs.high);
            assert!(tasks * HIGH >= o.min(8 * HIGH), "{n}, {c}, {o}, {side}: {tasks} tasks");
            assert!(outputs.high == o || outputs.high.is_multiple_of(ROWS));
        }
    }

    #[test]
    fn few_channels_are_summed_over_windows() {
        assert!(outputs(32, 3, 64, 32).is_none());
        assert!(outputs(32, 64, 3, 32).is_none());
    }

    #[test]
    fn few_tiles_are_not_worth_all_the_filters() {
        assert!(outputs(1, 512, 512, 7).is_none());
        assert!(outputs(1, 512, 512, 14).is_some());
    }
}
