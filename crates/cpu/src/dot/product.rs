//! One task of a matrix product: a block of its result, or a part of that block's sums.

use std::ops::Range;

use super::element::Element;
use super::gemm::Sink;
use super::lie::{Lie, Packed, QUAD, Rows};
use super::run::Run;
use super::task::{Room, Task};
use super::tile::{Target, multiply};
use crate::memory::View;

/// A block of the result, or a part of its sums.
pub(super) struct Product<'a, T> {
    pub(super) run: &'a Run<'a>,
    pub(super) batch: usize,
    /// By role.
    pub(super) lines: [Range<usize>; 2],
    pub(super) k: Range<usize>,
    /// An operand that is packed already, from the block's first line on, for all of `k`; and its role.
    pub(super) shared: Option<(usize, Packed<'a, T>)>,
}

impl<T: Element> Product<'_, T> {
    /// Sums the block, and finishes it.
    pub(super) fn run(&self, task: &mut Task) {
        self.finish(task, |task, out| self.sum(task, out));
    }

    /// Finishes the block, whose sums `sum` writes to where they are wanted.
    pub(super) fn finish(&self, task: &mut Task, sum: impl FnOnce(&mut Task, Target)) {
        let Product { run: &Run { gemm, env, .. }, batch, ref lines, .. } = *self;
        let [rows, columns] = lines;
        if let Some(Sink { to: out, .. }) = &gemm.direct {
            let [rs, cs] = out.strides;
            let strides = if gemm.turned { [cs, rs] } else { [rs, cs] };
            let at = out.start(batch, env) + rows.start as isize * strides[0] + columns.start as isize * strides[1];
            return sum(task, Target { view: env.args[out.arg], at, strides });
        }
        let mut sums = std::mem::take(&mut task.panels[2]);
        let len = rows.len() * columns.len();
        sums.reserve_bytes(len * size_of::<T>());
        let view = View::of(&mut sums.lanes_mut::<T>()[..len]);
        sum(task, Target { view, at: 0, strides: [columns.len() as isize, 1] });
        gemm.epilogue.finish(&mut task.workers[2], env, &gemm.block(batch, lines), view);
        task.panels[2] = sums;
    }

    /// Sums the block into a matrix.
    pub(super) fn sum(&self, task: &mut Task, out: Target) {
        let gemm = self.run.gemm;
        let [rows, columns] = &self.lines;
        let adds = gemm.direct.as_ref().is_some_and(|sink| sink.adds);
        for from in self.k.clone().step_by(gemm.cut.depth) {
            let steps = from..self.k.end.min(from + gemm.cut.depth);
            let Room { workers: [first, second, _], panels: [left, right, _] } = &mut **task;
            let pack = |role, lines, worker, panel| self.run.packed(role, self.batch, lines, worker, panel, &steps);
            let rhs = self.shared(1, &steps).unwrap_or_else(|| pack(1, columns, second, right));
            let (n, k, more) = (columns.len(), steps.len(), from > self.k.start || adds);
            let multiply = |m, lhs, out| multiply([m, n, k], lhs, rhs, out, more);
            // Rows that lie, as many as are read together; others are packed.
            let lying = gemm.lie.map_or(0, |_| rows.len() / QUAD * QUAD);
            if let Some(lie) = gemm.lie.filter(|_| lying > 0) {
                multiply(lying, self.lying(lie, lying, &steps), out);
            }
            if lying < rows.len() {
                let rest = rows.start + lying..rows.end;
                let out = Target { at: out.at + lying as isize * out.strides[0], ..out };
                let lhs = self.shared(0, &steps).unwrap_or_else(|| pack(0, &rest, first, left));
                multiply(rest.len(), lhs.into(), out);
            }
        }
    }

    /// The block's first rows over some steps, where they lie.
    fn lying(&self, lie: Lie, rows: usize, steps: &Range<usize>) -> Rows<'_, T> {
        let Run { gemm, env, .. } = self.run;
        let window = gemm.operands[0].window().expect("else it would be packed");
        let [row, step] = lie.strides();
        let start = window.start(*env, self.batch) as usize + self.lines[0].start * row + steps.start * step;
        let len = (rows - 1) * row + (steps.len() - 1) * step + 1;
        Rows::lying(window.source(*env, env.scratch).slice(start, len), lie)
    }

    /// An operand over some steps if it is packed already.
    fn shared(&self, role: usize, steps: &Range<usize>) -> Option<Packed<'_, T>> {
        let (of, whole) = self.shared.as_ref()?;
        (*of == role).then(|| Packed { data: &whole.data[steps.start * whole.width..], ..*whole })
    }
}
