//! Blocks of tiles: transformed, multiplied place by place, transformed back and finished, all while in cache.

use std::cell::RefCell;

use super::image::{Images, halves};
use super::plane::{Plane, Tiles};
use super::sums::Products;
use super::{LANES, PLACES, TASKS, sums};
use crate::dot::gemm::{Product, Run};
use crate::dot::task::Task;
use crate::dot::tile::{Packed, ROWS, Target, multiply};
use crate::memory::View;
use crate::task::for_each;

thread_local! {
    static LISTED: RefCell<Tiles> = RefCell::default();
}

/// Elements of `V` and of the products that a block has, as the second cache holds them.
const ROOM: usize = 1 << 18;

/// Tiles of a block, at least (or `U` is read too often) and at most.
const TILES: [usize; 2] = [64, 256];

/// A contraction whose columns are an image's outputs.
pub(in crate::dot) struct Outputs {
    pub(super) plane: Plane,
    pub(super) batch: usize,
    pub(super) rows: usize,
    /// Bands of tiles in a block.
    bands: usize,
}

impl Outputs {
    /// For `rows` rows times an operand, if that pays.
    pub(super) fn new(batch: usize, rows: usize, plane: Plane) -> Option<Outputs> {
        pays(rows, &plane).then(|| {
            let bands = bands(rows, &plane);
            Outputs { plane, batch, rows, bands }
        })
    }

    /// Elements of `U`, which all tasks share.
    pub(super) fn scratch(&self) -> usize {
        self.batch * PLACES * self.pitch()
    }

    /// From a place of `U` to the next. Not a power of two, or all places would compete for the same lines of the cache.
    pub(super) fn pitch(&self) -> usize {
        self.rows.next_multiple_of(ROWS) * self.plane.channels() + LANES
    }

    /// Blocks of one element of the batch.
    fn blocks(&self) -> usize {
        self.plane.bands().div_ceil(self.bands)
    }

    pub(super) fn run(&self, run: &Run) {
        self.transform_filters(run);
        let (gemm, blocks) = (run.gemm, self.blocks());
        let n = self.batch * blocks;
        for_each(
            run.parallel,
            n,
            gemm.work() / n,
            || gemm.task(run.env),
            |task, i| {
                let (batch, from) = (i / blocks, i % blocks * self.bands);
                let bands = from..self.plane.bands().min(from + self.bands);
                let columns = self.plane.first(bands.start)..self.plane.first(bands.end);
                let product = Product::<f32> { run, batch, lines: [0..self.rows, columns], k: 0..gemm.k, shared: None };
                product.finish(task, |task, out| {
                    let is_finite = LISTED.with_borrow_mut(|tiles| {
                        let start = gemm.operands[1].window().expect("seen before").start(run.env, batch);
                        self.plane.list(bands, start, tiles);
                        self.sum(&product, tiles, task, out)
                    });
                    if !is_finite {
                        product.sum(task, out);
                    }
                });
            },
        );
    }

    /// Sums a block; true iff all sums are finite.
    fn sum(&self, product: &Product<f32>, tiles: &Tiles, task: &mut Task, out: Target) -> bool {
        let (run, channels) = (product.run, self.plane.channels());
        let Task { panels: [products, images, _], .. } = task;
        let (len, apart) = (Images::len(tiles.n, channels), tiles.rows.len() * halves(&self.plane));
        images.reserve_bytes((len + apart) * size_of::<f32>());
        let (images, apart) = images.lanes_mut::<f32>()[..len + apart].split_at_mut(len);
        let mut images = Images::new(images, tiles.n, channels);
        images.fill(&self.plane, run.sources[1], tiles, apart);
        let segments = &tiles.segments;
        let tiles = tiles.n.next_multiple_of(LANES);
        let between = Products::pitch(self.rows, tiles);
        products.reserve_bytes(PLACES * between * size_of::<f32>());
        let products = &mut products.lanes_mut::<f32>()[..PLACES * between];
        let view = View::of(&mut *products);
        for place in 0..PLACES {
            let at = (product.batch * PLACES + place) * self.pitch();
            let filters = run.env.scratch.slice::<f32>(at, self.pitch());
            let lhs = Packed { data: filters, pitch: ROWS * channels };
            let at = (place * between) as isize;
            multiply(
                [self.rows, tiles, channels],
                lhs,
                images.packed(place),
                Target { view, at, strides: [tiles as isize, 1] },
                false,
            );
        }
        let mut is_finite = true;
        let products = Products { data: products, rows: self.rows, tiles };
        sums::transform(products, segments, [product.lines[1].len(), self.plane.width()], out, &mut is_finite);
        is_finite
    }
}

/// True iff there is less to do than over windows, in cycles: measured on an EPYC with AVX-512.
fn pays(rows: usize, plane: &Plane) -> bool {
    let (c, o, tiles) = (plane.channels() as f64, rows as f64, plane.tiles() as f64);
    let windows = 9.0 * c * o * plane.points() as f64 / 16.0 * 1.15;
    let (products, images, sums, filters) = (c * o * tiles, 6.0 * c * tiles, 8.0 * o * tiles, 5.0 * c * o);
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
