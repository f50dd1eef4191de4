//! One run of a matrix product: what is packed when, and by whom.

use std::ops::Range;

use super::element::Element;
use super::gemm::Gemm;
use super::lie::Packed;
use super::pack::Strips;
use super::product::Product;
use super::tile::Target;
use crate::exec::{Env, Loan, Worker};
use crate::memory::View;
use crate::simd::Reg;
use crate::task::for_each;

/// Elements that a task of packing is about.
const PACKED: usize = 1 << 16;

/// One run of a contraction.
pub(super) struct Run<'a> {
    pub(super) gemm: &'a Gemm,
    /// With what memory the copies of operands leave.
    pub(super) env: Env<'a>,
    pub(super) parallel: bool,
    /// What operands are packed from, by role.
    pub(super) sources: [View; 2],
}

impl Run<'_> {
    /// Each task packs both operands: an element of the batch, or a group of its sums.
    pub(super) fn apart<T: Element>(&self) {
        let Run { gemm, env, parallel, .. } = *self;
        let groups = gemm.groups();
        let (n, [rows, columns]) = (gemm.batch * groups, gemm.lines);
        let partial = rows * columns;
        for_each(
            parallel,
            n,
            gemm.work() / n,
            || gemm.task(env),
            |task, i| {
                let (batch, from) = (i / groups, i % groups * gemm.cut.group);
                let product = Product {
                    run: self,
                    batch,
                    lines: [0..rows, 0..columns],
                    k: from..gemm.k.min(from + gemm.cut.group),
                    shared: None::<(usize, Packed<T>)>,
                };
                if groups == 1 {
                    return product.run(task);
                }
                let out = Target { view: env.scratch, at: (i * partial) as isize, strides: [columns as isize, 1] };
                product.sum(task, out);
            },
        );
        if groups > 1 {
            self.add_groups::<T>(groups);
        }
    }

    /// Adds the sums of the groups in order, and finishes them.
    pub(super) fn add_groups<T: Element>(&self, groups: usize) {
        let Run { gemm, env, parallel, .. } = *self;
        let [rows, columns] = gemm.lines;
        let high = rows.div_ceil(16);
        let chunks = rows.div_ceil(high);
        let init = || gemm.task(env);
        for_each(parallel, gemm.batch * chunks, high * columns * groups, init, |task, i| {
            let (batch, from) = (i / chunks, i % chunks * high);
            let (some, first) = (from..rows.min(from + high), batch * groups * rows * columns);
            let len = some.len() * columns;
            let part = |group: usize| first + (group * rows + some.start) * columns;
            // SAFETY: each task adds up rows of its own.
            let sums = unsafe { env.scratch.slice_mut::<T>(part(0), len) };
            for group in 1..groups {
                let next = env.scratch.slice::<T>(part(group), len);
                sums.iter_mut().zip(next).for_each(|(sum, &x)| *sum += x);
            }
            let block = gemm.block(batch, &[some, 0..columns]);
            gemm.epilogue.finish(&mut task.workers[2], env, &block, View::of(sums));
        });
    }

    /// Wave by wave: one operand is packed, then multiplied by all blocks of the other.
    pub(super) fn waves<T: Element>(&self, shared: usize) {
        let Run { gemm, env, parallel, .. } = *self;
        let (own, high) = (1 - shared, gemm.cut.lines[shared]);
        let blocks = gemm.lines[own].div_ceil(gemm.cut.lines[own]);
        for first in (0..gemm.batch).step_by(gemm.cut.batch) {
            let n_batch = gemm.cut.batch.min(gemm.batch - first);
            for from in (0..gemm.lines[shared]).step_by(high) {
                let wave = from..gemm.lines[shared].min(from + high);
                self.pack_wave::<T>(shared, first..first + n_batch, &wave);
                let strips = gemm.strips(shared);
                let (len, tasks) = (strips.len(wave.len()), n_batch * blocks);
                let work = gemm.work() / (gemm.batch * blocks) * wave.len() / gemm.lines[shared];
                for_each(
                    parallel,
                    tasks,
                    work,
                    || gemm.task(env),
                    |task, i| {
                        let block = gemm.lines_of(own, i % blocks);
                        let data = env.scratch.slice::<T>(i / blocks * len, len);
                        let lines = if shared == 0 { [wave.clone(), block] } else { [block, wave.clone()] };
                        let (batch, shared) = (first + i / blocks, Some((shared, strips.packed(data))));
                        Product { run: self, batch, lines, k: 0..gemm.k, shared }.run(task);
                    },
                );
            }
        }
    }

    /// Block by block: a thread packs columns when it comes to them, and multiplies them by all blocks of rows that it has
    /// with these.
    pub(super) fn by_columns<T: Element>(&self) {
        let Run { gemm, env, parallel, .. } = *self;
        let [parts, blocks] = [1, 0].map(|role| gemm.lines[role].div_ceil(gemm.cut.lines[role]));
        let (n, strips) = (gemm.batch * parts * blocks, gemm.strips(1));
        let init = || (gemm.task(env), None);
        for_each(parallel, n, gemm.work() / n, init, |(task, packed), i| {
            let (batch, part, block) = (i / blocks / parts, i / blocks % parts, i % blocks);
            let columns = gemm.lines_of(1, part);
            let mut panel = std::mem::take(&mut task.panels[1]);
            if packed.replace((batch, part)) != Some((batch, part)) {
                self.packed::<T>(1, batch, &columns, &mut task.workers[1], &mut panel, &(0..gemm.k));
            }
            let shared = Some((1, strips.packed(panel.lanes::<T>())));
            Product { run: self, batch, lines: [gemm.lines_of(0, block), columns], k: 0..gemm.k, shared }.run(task);
            task.panels[1] = panel;
        });
    }

    /// Some lines of an operand over some steps, packed into `panel`.
    pub(super) fn packed<'p, T: Element>(
        &self,
        role: usize,
        batch: usize,
        lines: &Range<usize>,
        worker: &mut Worker,
        panel: &'p mut Reg,
        steps: &Range<usize>,
    ) -> Packed<'p, T> {
        let Run { gemm, env, sources, .. } = *self;
        let strips = Strips { width: gemm.widths[role], depth: steps.len() };
        let len = strips.len(lines.len());
        panel.reserve_bytes(len * size_of::<T>());
        let out = &mut panel.lanes_mut::<T>()[..len];
        gemm.operands[role].pack(worker, (sources[role], env), batch, lines, steps, (strips.width, &mut *out));
        strips.packed(out)
    }

    /// Packs some lines of an operand, for some of the batch, into the scratch memory.
    fn pack_wave<T: Element>(&self, role: usize, batch: Range<usize>, wave: &Range<usize>) {
        let Run { gemm, env, parallel, sources } = *self;
        let (strips, operand) = (gemm.strips(role), &gemm.operands[role]);
        let high = (PACKED / gemm.k).max(1).next_multiple_of(strips.width);
        let (n, len) = (wave.len().div_ceil(high), strips.len(wave.len()));
        let init = || {
            let mut loan = Loan::bare();
            operand.prepare(&mut loan, env);
            loan
        };
        for_each(parallel, batch.len() * n, high * gemm.k * operand.weight(), init, |loan, i| {
            let from = wave.start + i % n * high;
            let lines = from..wave.end.min(from + high);
            let at = i / n * len + (from - wave.start) * gemm.k;
            // SAFETY: each task packs strips of its own.
            let out = unsafe { env.scratch.slice_mut::<T>(at, strips.len(lines.len())) };
            operand.pack(loan, (sources[role], env), batch.start + i / n, &lines, &(0..gemm.k), (strips.width, out));
        });
    }
}
