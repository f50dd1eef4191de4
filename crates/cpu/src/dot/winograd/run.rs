//! Blocks of tiles: transformed, multiplied place by place, transformed back and finished, all while in cache.

use std::cell::RefCell;

use super::image::{Images, halves};
use super::plane::Tiles;
use super::sums::Products;
use super::{LANES, PLACES, Winograd, sums};
use crate::dot::gemm::{Product, Run};
use crate::dot::task::Task;
use crate::dot::tile::{Packed, ROWS, Target, multiply};
use crate::memory::View;
use crate::task::for_each;

thread_local! {
    static TILES: RefCell<Tiles> = RefCell::default();
}

impl Winograd {
    pub(in crate::dot) fn run(&self, run: &Run) {
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
                let product =
                    Product::<f32> { run, batch, lines: [0..self.rows, columns], k: 0..gemm.k, shared: None };
                product.finish(task, |task, out| {
                    let is_finite = TILES.with_borrow_mut(|tiles| {
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
            multiply([self.rows, tiles, channels], lhs, images.packed(place), Target { view, at, strides: [tiles as isize, 1] }, false);
        }
        let mut is_finite = true;
        let products = Products { data: products, rows: self.rows, tiles };
        sums::transform(products, segments, [product.lines[1].len(), self.plane.width()], out, &mut is_finite);
        is_finite
    }
}
