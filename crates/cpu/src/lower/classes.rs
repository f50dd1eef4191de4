//! What a body's values depend on: how often each is computed, in which pass, and what a pass needs.

use kiln_ir::Bound;
use kiln_ir::kernel::{Instr, Store, Value};

use super::{Class, Lowering, axes_of};

impl Lowering<'_> {
    pub(super) fn classify(&mut self) {
        let (outer, rank) = (self.space.outer.len(), self.space.outer.len() + self.space.row.len());
        assert!(rank < 63, "cpu: an index space of {rank} axes");
        let (all, row_axes) = ((1u64 << rank) - 1, ((1u64 << rank) - 1) & !((1u64 << outer) - 1));
        let bounds = |b: &[Bound]| b.iter().fold(0, |bits, b| bits | axes_of(&b.index));
        for instr in &self.body.instrs {
            let mut axes = match instr {
                Instr::Load { index, valid, .. } => axes_of(index) | bounds(valid),
                Instr::Coord(index) => axes_of(index),
                Instr::Inside(b) => bounds(b),
                Instr::Acc => all,
                Instr::Const(..)
                | Instr::Scalar(..)
                | Instr::Op(..)
                | Instr::Cast(..)
                | Instr::Reduce(..)
                | Instr::ColumnReduce(..) => 0,
            } & all;
            let mut level = 0;
            for v in instr.operands() {
                axes |= self.axes[v as usize];
                level = level.max(self.level[v as usize]);
            }
            let reduced = matches!(instr, Instr::Reduce(..));
            axes &= if reduced { !row_axes } else { all };
            self.class.push(match axes {
                _ if matches!(instr, Instr::ColumnReduce(..)) => Class::Column,
                // A reduction is a result a row even where every row gives the same.
                _ if reduced => Class::Row,
                0 if !matches!(instr, Instr::Acc) => Class::Uniform,
                _ if axes & row_axes == 0 && !self.space.row.is_empty() => Class::Row,
                _ => Class::Point,
            });
            self.level.push(level + reduced as usize);
            self.axes.push(axes);
        }
        // What is computed from a result a row is one itself, whatever the axes say.
        for i in 0..self.class.len() {
            let from_row = |v: &Value| self.class[*v as usize] == Class::Row;
            if self.class[i] == Class::Uniform && self.body.instrs[i].operands().iter().any(from_row) {
                self.class[i] = Class::Row;
            }
        }
    }

    /// What some values are computed from, and they themselves.
    pub(super) fn closure(&self, from: impl IntoIterator<Item = usize>) -> Vec<bool> {
        let mut needed = vec![false; self.body.instrs.len()];
        from.into_iter().for_each(|v| needed[v] = true);
        for i in (0..needed.len()).rev() {
            if needed[i] && !self.reduces(i) {
                self.body.instrs[i].operands().iter().for_each(|&v| needed[v as usize] = true);
            }
        }
        needed
    }

    /// The pass that does a store of every point: where rows are not whole, the first that has its value, unless a
    /// later one loads what it overwrites.
    pub(super) fn pass_of(&self, store: &Store) -> usize {
        let (last, v) = (self.out.passes.len() - 1, store.value as usize);
        if self.whole || self.class[v] != Class::Point {
            return last;
        }
        let first = self.level[v];
        let reduced = self.body.instrs.iter().enumerate().filter_map(|(i, instr)| match instr {
            Instr::Reduce(_, v) if self.level[i] > first + 1 => Some(*v as usize),
            _ => None,
        });
        let stored = self.body.stores.iter().map(|s| s.value as usize);
        let later = self.closure(reduced.chain(stored.filter(|&v| self.level[v] > first)));
        let loads = |i: usize| matches!(&self.body.instrs[i], Instr::Load { arg, .. } if *arg == store.arg);
        if (0..later.len()).any(|i| later[i] && loads(i)) { last } else { first }
    }

    /// The points' steps of a pass, in order: all that are due, or all that this pass needs again.
    pub(super) fn steps_of(
        &self,
        pass: usize,
        points: &[usize],
        reductions: &[usize],
        kept: Option<usize>,
    ) -> Vec<usize> {
        if self.whole {
            return points.iter().copied().filter(|&i| self.level[i] == pass).collect();
        }
        let mut needed = vec![false; self.body.instrs.len()];
        for &r in reductions {
            self.body.instrs[r].operands().iter().for_each(|&v| needed[v as usize] = true);
        }
        let stores = self.body.stores.iter().filter(|s| self.pass_of(s) == pass);
        stores.for_each(|s| needed[s.value as usize] = true);
        if pass + 1 == self.out.passes.len() {
            kept.into_iter().for_each(|v| needed[v] = true);
        }
        for &i in points.iter().rev() {
            if needed[i] {
                self.body.instrs[i].operands().iter().for_each(|&v| needed[v as usize] = true);
            }
        }
        points.iter().copied().filter(|&i| needed[i]).collect()
    }
}
