//! Reductions over all rows beside those along each, in the one pass over what both read.
//!
//! Blocks of rows go to groups, each with partial results of its own: one a point of a row. A few rows are folded in turn
//! before the tree takes them, as where points of rows lie side by side. Groups derive from the kernel alone.

use kiln_ir::ReduceOp;
use kiln_ir::kernel::{Instr, Loop};

use crate::exec::{Env, Loan, Tile, Worker};
use crate::loops::LoopExe;
use crate::program::{Program, Reduction};
use crate::reduce::{Partial, Rows};
use crate::space::Span;
use crate::task;
use crate::tiling::{IN_TURN, WHOLE_TILE, inner_is_dense};
use crate::tree::Tree;

/// Groups of a kernel: enough to keep some tens of threads busy, and few enough that their results are soon combined.
const GROUPS: usize = 64;

/// One reduction over rows, as far as it is.
#[derive(Default)]
pub(crate) struct Column {
    /// Of the rows since the tree was pushed.
    pub(crate) partial: Partial,
    in_turn: usize,
    tree: Tree,
}

/// True iff reductions over rows may join a loop: tiles hold whole rows, whose points are neighbours.
pub(crate) fn takes_columns(kernel: &Loop) -> bool {
    let [rows, points] = [&kernel.outer, &kernel.row].map(|dims| dims.iter().product::<usize>());
    let extreme = |i: &Instr| matches!(i, Instr::ColumnReduce(ReduceOp::ArgMax, _));
    rows > 0 && (1..=WHOLE_TILE).contains(&points) && inner_is_dense(kernel) && !kernel.body.instrs.iter().any(extreme)
}

impl LoopExe {
    /// All blocks, group by group, and then what they give together.
    pub(crate) fn run_columns(&self, env: Env, parallel: bool) {
        let (n_blocks, points) = (self.n_blocks(), self.space.n_points());
        let (blocks, n_groups) = self.groups();
        let bytes = self.bytes(points);
        let place = |group: usize, i: usize| (i * n_groups + group) * bytes.next_multiple_of(64);
        let init = || Loan::new(&self.program, self.lanes(), env);
        let work = self.work() / n_groups;
        task::for_each(parallel, n_groups, work, init, |worker, group| {
            let first = group * blocks;
            for block in first..n_blocks.min(first + blocks) {
                self.run_block(worker, &env, block);
            }
            for (i, (r, column)) in self.columns().zip(&mut worker.columns).enumerate() {
                // SAFETY: this group's place for this reduction, which nothing reads before all groups are done.
                let kept = unsafe { env.scratch.slice_mut::<u8>(place(group, i), bytes) };
                kept.copy_from_slice(column.finish(r, points, bytes));
            }
        });
        let mut worker = init();
        let mut columns = std::mem::take(&mut worker.columns);
        // This thread may have had no group.
        columns.resize_with(columns.len().max(self.columns().count()), Column::default);
        for (i, (r, column)) in self.columns().zip(&mut columns).enumerate() {
            column.partial.reserve(bytes);
            for group in 0..n_groups {
                let kept = env.scratch.slice::<u8>(place(group, i), bytes);
                column.partial.best.lanes_mut()[..bytes].copy_from_slice(kept);
                column.push(r, points, bytes);
            }
            worker.regs[r.dst].lanes_mut()[..bytes].copy_from_slice(column.finish(r, points, bytes));
        }
        worker.columns = columns;
        worker.put(&self.program, &self.program.column_puts, Span::range(0, points), &env);
    }

    /// How many blocks are a group, and how many groups there are.
    fn groups(&self) -> (usize, usize) {
        let in_turn = if self.tiling.block == 1 { IN_TURN } else { 1 };
        let blocks = self.n_blocks().div_ceil(GROUPS).max(in_turn);
        (blocks, self.n_blocks().div_ceil(blocks))
    }

    /// Bytes that its groups share while they run.
    pub(crate) fn scratch_bytes(&self) -> usize {
        self.columns().count() * self.groups().1 * self.bytes(self.space.n_points()).next_multiple_of(64)
    }

    fn columns(&self) -> impl Iterator<Item = &Reduction> {
        self.program.passes.iter().flat_map(|pass| &pass.columns)
    }
}

impl Worker {
    /// Adds a tile to the reductions over rows that follow a pass.
    pub(crate) fn reduce_columns(&mut self, program: &Program, pass: usize, tile: &Tile) {
        let (before, columns) = (&program.passes[..pass], &program.passes[pass].columns);
        if columns.is_empty() {
            return;
        }
        let first: usize = before.iter().map(|pass| pass.columns.len()).sum();
        let Rows { rows, points, .. } = tile.rows;
        // Across the tile, its rows are the points, and the other way round.
        let shape = Rows { inner: false, rows: points, points: rows, first: 0 };
        self.columns.resize_with(self.columns.len().max(first + columns.len()), Column::default);
        let bytes = rows * points * program.lane_bytes;
        for (at, r) in (first..).zip(columns) {
            let column = &mut self.columns[at];
            column.partial.reserve(bytes);
            let more = rows == 1 && column.in_turn > 0;
            self.reduce_column(r, &shape, more, at);
            let column = &mut self.columns[at];
            column.in_turn += 1;
            if rows > 1 || column.in_turn == IN_TURN {
                column.push(r, points, bytes);
            }
        }
    }
}

impl Column {
    /// Forgets everything but its memory.
    pub(crate) fn clear(&mut self) {
        self.in_turn = 0;
        self.tree.clear();
    }

    fn push(&mut self, r: &Reduction, points: usize, bytes: usize) {
        self.tree.push(r.op, r.dtype, &mut self.partial, points, bytes);
        self.in_turn = 0;
    }

    /// The reduction of all rows so far; the next row is the first again.
    fn finish(&mut self, r: &Reduction, points: usize, bytes: usize) -> &[u8] {
        if self.in_turn > 0 {
            self.push(r, points, bytes);
        }
        let found = self.tree.finish(r.op, r.dtype, points).expect("there are rows");
        let kept = &mut self.partial.best.lanes_mut()[..bytes];
        kept.copy_from_slice(&found.best.lanes()[..bytes]);
        self.tree.clear();
        kept
    }
}
