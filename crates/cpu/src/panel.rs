//! Bodies over `[batch, rows, columns]`, evaluated into panels or finished from them.
//!
//! A panel may be filled row by row or column by column, whichever way its loads and stores find long runs. That
//! choice is what makes window views cheap: the points of an image row are neighbours in memory.

use std::ops::Range;

use kiln_ir::kernel::{Arg, Body, Instr, Value};
use kiln_ir::{Atom, Bound, DType, Index};

use crate::exec::{Env, Tile, Worker};
use crate::lower::{Goal, lower};
use crate::memory::View;
use crate::program::{Program, Rowed};
use crate::space::{Runs, Span};
use crate::split::split_matrix;
use crate::tiling::TILE;

/// A body over a batch of matrices.
pub(crate) struct Panel {
    program: Program,
    /// Rows and columns, as the kernel has them.
    dims: [usize; 2],
    /// True iff columns are the slower axis of evaluation and of the panel.
    pub(crate) swapped: bool,
}

/// One block of one matrix of the batch.
#[derive(Clone)]
pub(crate) struct Block {
    pub(crate) batch: usize,
    pub(crate) rows: Range<usize>,
    pub(crate) columns: Range<usize>,
}

impl Panel {
    /// Lowers a body over `batch ++ rows ++ columns`; `operand` iff the last step's value is wanted.
    pub(crate) fn new(body: &Body, args: &[Arg], axes: [&[usize]; 3], operand: bool) -> Panel {
        let ([batch, rows, columns], body) = &split_matrix(axes, body);
        let (b, r, c) = (batch.len(), rows.len(), columns.len());
        let swap = |axis: usize| match axis {
            _ if axis < b || axis >= b + r + c => axis,
            _ if axis < b + r => axis + c,
            _ => axis - r,
        };
        let dims = [[&**batch, rows, columns].concat(), [&**batch, columns, rows].concat()];
        let bodies = [body.clone(), body.renamed(&swap)];
        let swapped = runs(&bodies[1], &dims[1]) > runs(&bodies[0], &dims[0]);
        let outer = dims[swapped as usize].clone();
        let space = Rowed { outer, row: Vec::new(), inner: false };
        let program = lower(
            &bodies[swapped as usize],
            args,
            &space,
            Goal { whole: true, last: operand, stream: false, again: None },
        );
        Panel { program, dims: [rows.iter().product(), columns.iter().product()], swapped }
    }

    /// A measure of the work at a point.
    pub(crate) fn weight(&self) -> usize {
        self.program.weight()
    }

    /// Calls `visit` for tiles that cover a block, at most `most` points wide, with where each begins in the block.
    fn tiles(&self, block: &Block, most: usize, mut visit: impl FnMut(Tile, [usize; 2])) {
        let [rows, columns] = self.dims;
        let (n_slow, n_fast, slow, fast) = match self.swapped {
            false => (rows, columns, block.rows.clone(), block.columns.clone()),
            true => (columns, rows, block.columns.clone(), block.rows.clone()),
        };
        let wide = fast.len().clamp(1, TILE.min(most));
        let high = TILE / wide;
        for s in slow.clone().step_by(high) {
            for f in fast.clone().step_by(wide) {
                let (count, len) = (high.min(slow.end - s), wide.min(fast.end - f));
                let span = Span::new((block.batch * n_slow + s) * n_fast + f, len, count, n_fast);
                let tile = Tile { span, ..Tile::flat(0, len * count) };
                visit(tile, [s - slow.start, f - fast.start]);
            }
        }
    }

    /// Prepares a worker for [`Panel::fill`] and [`Panel::finish`].
    pub(crate) fn prepare(&self, worker: &mut Worker, env: Env) {
        worker.prepare(&self.program, TILE, env);
    }

    /// Calls `visit` for parts of an operand's block, at most `most` points wide, each with where it begins; `T` is the
    /// lane of its compute dtype.
    pub(crate) fn evaluate<T: bytemuck::Pod>(
        &self,
        worker: &mut Worker,
        env: Env,
        block: &Block,
        most: usize,
        mut visit: impl FnMut(Part<'_, T>, [usize; 2]),
    ) {
        let value = self.program.last.expect("an operand has a value");
        self.tiles(block, most, |tile, at| {
            self.run(worker, &tile, &env);
            let wide = most.min(self.wide(block) - at[1]).min(TILE);
            visit(Part { lanes: &worker.regs[value].lanes()[..tile.lanes], dims: [tile.lanes / wide, wide] }, at);
        });
    }

    /// Evaluates an operand over a block into a dense panel; `T` is the lane of its compute dtype.
    pub(crate) fn fill<T: bytemuck::Pod>(&self, worker: &mut Worker, env: Env, block: &Block, out: &mut [T]) {
        let wide = self.wide(block);
        self.evaluate(worker, env, block, usize::MAX, |part, [slow, fast]| {
            out[slow * wide + fast..][..part.lanes.len()].copy_from_slice(part.lanes);
        });
    }

    /// Runs an epilogue over a block whose sums lie in a dense panel.
    pub(crate) fn finish(&self, worker: &mut Worker, env: Env, block: &Block, sums: View) {
        let (wide, env) = (self.wide(block), Env { sums, ..env });
        self.tiles(block, usize::MAX, |tile, [slow, fast]| {
            let tile = Tile { sums: Some(slow * wide + fast), ..tile };
            self.run(worker, &tile, &env);
            worker.put(&self.program, &self.program.puts, tile.span, &env);
        });
    }

    fn run(&self, worker: &mut Worker, tile: &Tile, env: &Env) {
        worker.ways.begin_tile(tile);
        worker.run(&self.program, &self.program.passes[0].points, tile, env);
        worker.ways.end();
    }

    /// Points of a block along its fast axis.
    fn wide(&self, block: &Block) -> usize {
        if self.swapped { block.rows.len() } else { block.columns.len() }
    }
}

/// Some points of an operand, those along the fast axis beside each other.
pub(crate) struct Part<'a, T> {
    pub(crate) lanes: &'a [T],
    /// Points along the slow axis, and along the fast one.
    pub(crate) dims: [usize; 2],
}

/// The points that one address computation serves, over all loads and stores.
fn runs(body: &Body, dims: &[usize]) -> f64 {
    let cost = |index: &Index, bounds: &[Bound]| {
        let exprs: Vec<&Index> = std::iter::once(index).chain(bounds.iter().map(|b| &b.index)).collect();
        let runs = Runs::new(dims, &exprs, |_| true);
        // A run with a stride costs like short dense ones: it reads a cache line for an element.
        let len = if runs.steps[0].abs() <= 1 { runs.len } else { runs.len.min(4) };
        1.0 / len.min(256) as f64
    };
    let load = |i: &Instr| match i {
        Instr::Load { index, valid, .. } => cost(index, valid),
        Instr::Inside(bounds) => cost(&Index::constant(0), bounds),
        _ => 0.0,
    };
    let total: f64 =
        body.instrs.iter().map(load).sum::<f64>() + body.stores.iter().map(|s| cost(&s.index, &[])).sum::<f64>();
    1.0 / total.max(1e-9)
}

/// An operand that already is a matrix in an argument.
pub(crate) struct Direct {
    pub(crate) arg: usize,
    index: Index,
    batch: Vec<usize>,
    rank: usize,
    pub(crate) strides: [isize; 2],
    begin: Begin,
}

impl Direct {
    /// The matrix at an address over `batch ++ rows ++ columns`, if it is one.
    pub(crate) fn new(index: &Index, arg: usize, axes: [&[usize]; 3]) -> Option<Direct> {
        let [batch, rows, columns] = axes;
        let rank = batch.len() + rows.len() + columns.len();
        let strides = index.affine(rank)?;
        let row = merged(rows, &strides[batch.len()..])?;
        let column = merged(columns, &strides[batch.len() + rows.len()..])?;
        Some(Direct {
            arg,
            index: index.clone(),
            batch: batch.to_vec(),
            rank,
            strides: [row as isize, column as isize],
            begin: None,
        })
    }

    /// The operand that a body is, if it only loads.
    pub(crate) fn operand(body: &Body, args: &[Arg], axes: [&[usize]; 3]) -> Option<Direct> {
        let Some(Instr::Load { arg, index, valid, gather }) = body.instrs.last() else { return None };
        let dtype = args[*arg as usize].dtype;
        if !valid.is_empty() || !matches!(dtype, DType::F32 | DType::F64) {
            return None;
        }
        let rank = axes.iter().map(|dims| dims.len()).sum();
        let (fixed, begin) = begins(body, index, *gather, rank)?;
        Some(Direct { begin, ..Direct::new(&fixed, *arg as usize, axes)? })
    }

    /// The first element of a matrix of the batch.
    pub(crate) fn start(&self, mut batch: usize, env: Env) -> isize {
        let begin = begin(self.begin, env);
        let mut at = vec![0; self.rank];
        for (axis, &dim) in self.batch.iter().enumerate().rev() {
            (at[axis], batch) = (batch % dim, batch / dim);
        }
        self.index.eval(&at) as isize + begin as isize
    }
}

/// Where an operand begins, if a scalar of the kernel says so: which one, and what it is below.
pub(crate) type Begin = Option<(usize, usize)>;

/// The element at which an operand begins.
pub(crate) fn begin(begin: Begin, env: Env) -> usize {
    begin.map_or(0, |(word, n)| (env.scalars[word] as usize).min(n.max(1) - 1))
}

/// The address of a load over so many axes, apart from the element at which it begins; `None` if it looks up more.
pub(crate) fn begins(
    body: &Body,
    index: &Index,
    gather: Option<(Value, usize)>,
    rank: usize,
) -> Option<(Index, Begin)> {
    let Some((value, n)) = gather else { return Some((index.clone(), None)) };
    let Instr::Scalar(_, word) = body.instrs[value as usize] else { return None };
    // The scalar is an element to begin at iff its coordinate is added as it is.
    (index.affine(rank + 1)?.last() == Some(&1)).then_some(())?;
    let terms = index.terms.iter().filter(|t| t.1 != Atom::Var(rank)).cloned().collect();
    Some((Index { constant: index.constant, terms }, Some((word as usize, n))))
}

/// The one stride of several axes, row-major.
fn merged(dims: &[usize], strides: &[i64]) -> Option<i64> {
    let mut found: Option<(i64, usize)> = None;
    for (&dim, &stride) in dims.iter().zip(strides).rev().filter(|(dim, _)| **dim != 1) {
        let (step, n) = found.unwrap_or((stride, 1));
        if stride != step * n as i64 {
            return None;
        }
        found = Some((step, n * dim));
    }
    Some(found.map_or(1, |f| f.0))
}
