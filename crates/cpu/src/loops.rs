//! Loops: how rows become tiles, and tiles become tasks.
//!
//! Rows whose points are neighbours in memory are reduced one after another, several short ones to a
//! tile. Where instead equal points of different rows are neighbours (sums over leading axes),
//! a tile takes a block of rows side by side. Where a map reads across what it stores, a tile takes
//! some points along both axes. A few long rows are cut into groups that run in parallel, pass by
//! pass. All sizes derive from the kernel alone, so the threads never change a bit.

use kiln_ir::kernel::Loop;

use crate::exec::{Env, Loan, Tile, Worker};
use crate::lower::{Goal, lower};
use crate::order::{order, reordered};
use crate::program::{Pass, Program, Rowed};
use crate::reduce::{Partial, Rows, identity};
use crate::rows::by_rows;
use crate::simd::Reg;
use crate::space::Span;
use crate::split::split;
use crate::taps::Taps;
use crate::task::for_each;
use crate::tiling::{IN_TURN, Tiling, computes_little, inner_is_dense};
use crate::tree::Tree;
use crate::turned::Turned;

/// A lowered loop.
pub(crate) struct LoopExe {
    pub(crate) space: Rowed,
    pub(crate) program: Program,
    pub(crate) tiling: Tiling,
    turned: Option<Turned>,
    /// How rows are folded that are a few elements along lines.
    taps: Option<Taps>,
}

impl LoopExe {
    pub(crate) fn new(kernel: &Loop) -> LoopExe {
        let mut groups = [kernel.outer.len(), kernel.row.len()];
        let (dims, body) = split(&[&kernel.outer[..], &kernel.row].concat(), &mut groups, &kernel.body);
        let (outer, row) = dims.split_at(groups[0]);
        let kernel = Loop { outer: outer.to_vec(), row: row.to_vec(), args: kernel.args.clone(), body };
        let taps = Taps::new(&kernel);
        let is_map = kernel.row.is_empty();
        let kernel = by_rows(kernel);
        let inner = !kernel.row.is_empty() && (inner_is_dense(&kernel) || kernel.body.reduces_columns());
        let kernel = &walked_well(kernel, inner);
        let space = Rowed { outer: kernel.outer.clone(), row: kernel.row.clone(), inner };
        let tiling = Tiling::new(kernel, &space);
        // Where memory waits for what is computed, results are better computed in its lines.
        let stream = is_map && computes_little(&kernel.body);
        let again = tiling.again.filter(|_| Turned::axis(kernel).is_none()).map(|again| again.first);
        let goal = Goal { whole: tiling.whole, last: false, stream, again };
        let mut program = lower(&kernel.body, &kernel.args, &space, goal);
        let tiling = tiling.for_walks(kernel, &program);
        // Elsewhere the next tile does not begin where this one ends, or processors see that it does.
        let goes_on = space.inner || tiling.block == space.n_rows() || kernel.row.is_empty();
        program.busy &= goes_on && !program.is_update();
        let turned = Turned::new(kernel, &program);
        LoopExe { space, program, tiling, turned, taps }
    }

    /// True iff its rows are taps.
    pub(crate) fn has_taps(&self) -> bool {
        self.taps.is_some()
    }

    /// A measure of the work: lanes times steps.
    pub(crate) fn work(&self) -> usize {
        self.space.n_rows() * self.space.n_points().max(1) * self.program.weight()
    }

    pub(crate) fn run(&self, env: Env, parallel: bool) {
        if self.space.n_rows() == 0 {
            return;
        }
        if let Some(taps) = &self.taps {
            return taps.run(env, parallel);
        }
        if let Some(turned) = &self.turned {
            return self.run_turned(turned, env, parallel);
        }
        if self.tiling.group < self.space.n_points() {
            return self.run_groups(env, parallel);
        }
        if !self.program.column_puts.is_empty() {
            return self.run_columns(env, parallel);
        }
        let n_blocks = self.n_blocks();
        let work = self.work() / n_blocks;
        let init = || Loan::new(&self.program, self.lanes(), env);
        for_each(parallel, n_blocks, work, init, |worker, i| {
            self.run_block(worker, &env, i);
        });
    }

    pub(crate) fn n_blocks(&self) -> usize {
        self.space.n_rows().div_ceil(self.tiling.block)
    }

    pub(crate) fn lanes(&self) -> usize {
        self.tiling.block.min(self.space.n_rows()) * self.tiling.chunk
    }

    /// All passes over a block of rows.
    pub(crate) fn run_block(&self, worker: &mut Worker, env: &Env, block: usize) {
        let first = block * self.tiling.block;
        let (rows, points) = (self.tiling.block.min(self.space.n_rows() - first), self.space.n_points());
        let row_tile = self.row_tile(first, rows);
        let whole = (self.tiling.chunk >= points && points > 0).then(|| self.tile(first, rows, 0, points));
        worker.ways.begin(whole.is_some().then_some(block), [rows, points]);
        for (p, pass) in self.program.passes.iter().enumerate() {
            worker.run(&self.program, &pass.rows, &row_tile, env);
            if let Some(tile) = &whole {
                self.run_tile(worker, env, p, tile);
                pass.reductions.iter().for_each(|r| worker.reduce_rows(r, &tile.rows, self.bytes(rows)));
                worker.reduce_columns(&self.program, p, tile);
                continue;
            }
            self.run_pass(worker, env, p, (first, rows), 0..points);
            let mut trees = std::mem::take(&mut worker.trees);
            self.finish(pass, &mut trees, rows, |i, reg| {
                worker.regs[pass.reductions[i].dst].copy_from(reg, self.bytes(rows))
            });
            worker.trees = trees;
        }
        worker.ways.end();
        worker.put(&self.program, &self.program.row_puts, Span::range(first, rows), env);
    }

    pub(crate) fn bytes(&self, lanes: usize) -> usize {
        lanes * self.program.lane_bytes
    }

    /// The rows of a block, with room for the points of any tile.
    fn row_tile(&self, first: usize, rows: usize) -> Tile {
        let shape = Rows { inner: self.space.inner, rows, points: self.tiling.chunk, first: 0 };
        Tile { rows: shape, ..Tile::flat(first, rows) }
    }

    /// Some points of a block of rows.
    fn tile(&self, first: usize, rows: usize, from: usize, points: usize) -> Tile {
        let (n_rows, n_points) = (self.space.n_rows(), self.space.n_points());
        let span = if self.space.inner {
            Span::new(first * n_points + from, points, rows, n_points)
        } else {
            Span::new(from * n_rows + first, rows, points, n_rows)
        };
        Tile::of_rows(span, Rows { inner: self.space.inner, rows, points, first: from })
    }

    /// One pass over one tile, up to its reductions.
    fn run_tile(&self, worker: &mut Worker, env: &Env, p: usize, tile: &Tile) {
        worker.run(&self.program, &self.program.passes[p].points, tile, env);
        worker.put(&self.program, self.program.puts_of(p), tile.span, env);
    }

    /// One pass over a range of points, into the worker's trees.
    fn run_pass(
        &self,
        worker: &mut Worker,
        env: &Env,
        p: usize,
        (first, rows): (usize, usize),
        range: std::ops::Range<usize>,
    ) {
        let pass = &self.program.passes[p];
        worker.trees.resize_with(worker.trees.len().max(pass.reductions.len()), Tree::default);
        worker.trees.iter_mut().for_each(Tree::clear);
        if pass.reductions.is_empty() && self.program.puts_of(p).next().is_none() {
            return;
        }
        let single = !self.space.inner && self.tiling.chunk == 1;
        for (n, from) in range.clone().step_by(self.tiling.chunk).enumerate() {
            let tile = self.tile(first, rows, from, self.tiling.chunk.min(range.end - from));
            self.run_tile(worker, env, p, &tile);
            // A few single points are folded one after the other, and then go to the tree together.
            let last = !single || n % IN_TURN + 1 == IN_TURN || from + 1 == range.end;
            for (i, r) in pass.reductions.iter().enumerate() {
                worker.reduce(r, &tile.rows, single && n % IN_TURN > 0, i);
                if last {
                    worker.trees[i].push(r.op, r.dtype, &mut worker.partials[i], rows, self.bytes(self.lanes()));
                }
            }
        }
    }

    /// Hands each reduction's result to `keep`.
    fn finish(&self, pass: &Pass, trees: &mut [Tree], rows: usize, mut keep: impl FnMut(usize, &Reg)) {
        for (i, (r, tree)) in pass.reductions.iter().zip(trees).enumerate() {
            match tree.finish(r.op, r.dtype, rows) {
                Some(partial) => keep(i, partial.result(r.op)),
                None => {
                    let mut none = Reg::with_bytes(self.bytes(rows));
                    identity(r.op, r.dtype, &mut none, rows);
                    keep(i, &none);
                }
            }
        }
    }
}

/// The first bytes of a register.
fn first(src: &Reg, bytes: usize) -> Reg {
    let mut dst = Reg::with_bytes(bytes);
    dst.copy_from(src, bytes);
    dst
}

/// The loop with its axes in the order in which they are best walked.
fn walked_well(kernel: Loop, inner: bool) -> Loop {
    let by = order(&kernel.outer, &kernel.row, inner, &kernel.body);
    let dims = [&kernel.outer[..], &kernel.row].concat();
    let dims: Vec<usize> = by.iter().map(|&axis| dims[axis]).collect();
    let (outer, row) = dims.split_at(kernel.outer.len());
    Loop { outer: outer.to_vec(), row: row.to_vec(), body: reordered(&kernel.body, &by), args: kernel.args }
}

/// The results of the reductions of earlier passes: for each pass, reduction and block.
type Results = Vec<Vec<Vec<Reg>>>;

impl LoopExe {
    /// Pass by pass, each over all groups of all blocks at once.
    fn run_groups(&self, env: Env, parallel: bool) {
        let (n_rows, n_points) = (self.space.n_rows(), self.space.n_points());
        let (n_blocks, n_groups) = (n_rows.div_ceil(self.tiling.block), n_points.div_ceil(self.tiling.group));
        let rows_of =
            |block: usize| (block * self.tiling.block, self.tiling.block.min(n_rows - block * self.tiling.block));
        let init = || Loan::new(&self.program, self.lanes(), env);
        let mut results: Results = Vec::new();
        for (p, pass) in self.program.passes.iter().enumerate() {
            let mut partials = crate::task::map(parallel, n_blocks * n_groups, init, |worker, i| {
                let (block, group) = (i / n_groups, i % n_groups);
                let rows = rows_of(block);
                self.run_rows(worker, &env, p, block, rows, &results);
                let from = group * self.tiling.group;
                self.run_pass(worker, &env, p, rows, from..n_points.min(from + self.tiling.group));
                let mut trees = std::mem::take(&mut worker.trees);
                let mut out = Vec::with_capacity(pass.reductions.len());
                for (r, tree) in pass.reductions.iter().zip(&mut trees) {
                    let partial = tree.finish(r.op, r.dtype, rows.1).expect("a group has points");
                    let [best, at] = [&partial.best, &partial.at].map(|reg| first(reg, self.bytes(rows.1)));
                    out.push(Partial { best, at });
                }
                worker.trees = trees;
                out
            });
            let mut found = vec![Vec::with_capacity(n_blocks); pass.reductions.len()];
            for block in 0..n_blocks {
                let mut trees: Vec<Tree> = pass.reductions.iter().map(|_| Tree::default()).collect();
                for partial in &mut partials[block * n_groups..(block + 1) * n_groups] {
                    for ((r, tree), next) in pass.reductions.iter().zip(&mut trees).zip(partial) {
                        tree.push(r.op, r.dtype, next, rows_of(block).1, 0);
                    }
                }
                self.finish(pass, &mut trees, rows_of(block).1, |i, reg| found[i].push(reg.clone()));
            }
            results.push(found);
        }
        let mut worker = init();
        for block in 0..n_blocks {
            let rows = rows_of(block);
            self.run_rows(&mut worker, &env, self.program.passes.len() - 1, block, rows, &results);
            worker.put(&self.program, &self.program.row_puts, Span::range(rows.0, rows.1), &env);
        }
    }

    /// What a block has a row, up to pass `p`.
    fn run_rows(
        &self,
        worker: &mut Worker,
        env: &Env,
        p: usize,
        block: usize,
        rows: (usize, usize),
        results: &Results,
    ) {
        for (q, pass) in self.program.passes[..=p].iter().enumerate() {
            worker.run(&self.program, &pass.rows, &self.row_tile(rows.0, rows.1), env);
            for (r, found) in pass.reductions.iter().zip(results.get(q).into_iter().flatten()) {
                worker.regs[r.dst].copy_from(&found[block], self.bytes(rows.1));
            }
        }
    }
}
