//! Matrix products: operands packed into strips, blocks of sums, and what becomes of them while they are in cache.
//!
//! Rows and columns take on *roles*: if the result lies column by column, the right operand is the one whose lines
//! are the tiles' rows, so that the lines of a tile are always neighbours in memory.

use std::ops::Range;

use kiln_ir::kernel::{Dot, Instr};
use kiln_ir::{DType, Index};

use super::cut::{Cut, Sharing, WIDTH};
use super::operand::{Axes, Operand};
use super::pack::Strips;
use super::task::Task;
use super::tile::{Element, Packed, QUAD, Rows, Target, multiply};
use super::window::Window;
use super::winograd::Winograd;
use crate::exec::{Env, Loan};
use crate::memory::View;
use crate::panel::{Block, Direct, Panel};
use crate::simd::Reg;
use crate::task::for_each;

/// A contraction as matrix products.
pub(crate) struct Gemm {
    dtype: DType,
    batch: usize,
    /// Lines of either role.
    lines: [usize; 2],
    pub(super) k: usize,
    cut: Cut,
    /// By role.
    pub(super) operands: [Operand; 2],
    /// True iff columns have the role of rows.
    turned: bool,
    /// How far apart rows are that are read where they lie.
    apart: Option<usize>,
    epilogue: Panel,
    /// Where the sums go if that is all the epilogue does with them.
    direct: Option<Direct>,
    /// How else it is computed, if it is a convolution for which that pays.
    winograd: Option<Winograd>,
}

/// Columns of a block whose rows are read where they lie, at most: for more, packing pays.
const FEW: usize = 256;

/// Elements that a task of packing is about.
const PACKED: usize = 1 << 16;

impl Gemm {
    pub(crate) fn new(kernel: &Dot) -> Gemm {
        let numel = |dims: &[usize]| dims.iter().product::<usize>();
        let axes: Axes = [&kernel.batch, &kernel.m, &kernel.n, &kernel.k];
        let [batch, m, n, k] = axes.map(numel);
        let epilogue = Panel::new(&kernel.epilogue, &kernel.args, [axes[0], axes[1], axes[2]], false);
        // Sums of groups are added up first.
        let mut direct = plain_store(kernel).filter(|_| Cut::new(batch, [m, n], k, false).group == k);
        let turned = direct.as_ref().map_or(epilogue.swapped, |of| of.strides[0] == 1 && of.strides[1] != 1);
        let mut operands =
            [Operand::new(&kernel.lhs, &kernel.args, axes, true), Operand::new(&kernel.rhs, &kernel.args, axes, false)];
        let mut lines = [m, n];
        if turned {
            operands.reverse();
            lines.reverse();
        }
        let dtype = kernel.lhs.types.last().map_or(DType::F32, |t| t.compute());
        let winograd = Winograd::new(batch, lines[0], &operands[1]).filter(|_| dtype == DType::F32);
        if let Some(winograd) = &winograd {
            // It writes along columns.
            direct = plain_store(kernel).filter(|of| winograd.is_direct() && of.strides[usize::from(!turned)] == 1);
        }
        let cut = Cut::new(batch, lines, k, direct.is_none());
        let lie = operands[0].along_k().and_then(Window::apart).filter(|_| winograd.is_none());
        let cut = lie.and_then(|_| cut.by_columns(batch, lines, k)).unwrap_or(cut);
        let apart = lie.filter(|_| cut.shared != Sharing::Wave(0) && cut.lines[1] <= FEW);
        Gemm { dtype, batch, lines, k, cut, operands, turned, apart, epilogue, direct, winograd }
    }

    /// A measure of the work: a multiply-add costs a fraction of a step of a loop.
    pub(crate) fn work(&self) -> usize {
        self.batch * self.lines[0] * self.lines[1] * (self.k / 4 + self.epilogue.weight())
    }

    /// Bytes of memory that tasks share while it runs.
    pub(crate) fn scratch_bytes(&self) -> usize {
        let elements = match self.cut.shared {
            _ if let Some(winograd) = &self.winograd => winograd.scratch(),
            Sharing::Wave(shared) => self.cut.batch * self.strips(shared).len(self.cut.lines[shared]),
            Sharing::Nothing if self.groups() > 1 => self.batch * self.groups() * self.lines[0] * self.lines[1],
            Sharing::Nothing | Sharing::Columns => 0,
        };
        (self.begins()[2] + elements) * self.dtype.size_bytes()
    }

    /// Where the copies of the operands and the rest begin in that memory, counted in elements.
    fn begins(&self) -> [usize; 3] {
        let [first, second] = [0, 1].map(|role| self.operands[role].scratch().next_multiple_of(16));
        [0, first, first + second]
    }

    pub(crate) fn run(&self, env: Env, parallel: bool) {
        match (&self.winograd, self.dtype) {
            (Some(winograd), _) => winograd.run(&self.begin::<f32>(env, parallel)),
            (None, DType::F64) => self.run_as::<f64>(env, parallel),
            (None, _) => self.run_as::<f32>(env, parallel),
        }
    }

    /// Does what is done once for all tasks.
    fn begin<'a, T: Element>(&'a self, env: Env<'a>, parallel: bool) -> Run<'a> {
        let [first, second, rest] = self.begins().map(|at| env.scratch.after(at * size_of::<T>()));
        let [left, right] = &self.operands;
        let sources = [left.begin::<T>(env, first, parallel), right.begin::<T>(env, second, parallel)];
        Run { gemm: self, env: Env { scratch: rest, ..env }, parallel, sources }
    }

    fn run_as<T: Element>(&self, env: Env, parallel: bool) {
        let run = self.begin::<T>(env, parallel);
        match self.cut.shared {
            Sharing::Wave(shared) => run.waves::<T>(shared),
            Sharing::Columns => run.by_columns::<T>(),
            Sharing::Nothing => run.apart::<T>(),
        }
    }

    /// The strips of an operand that is packed for all of `k` at once.
    fn strips(&self, role: usize) -> Strips {
        Strips { width: WIDTH[role], depth: self.k }
    }

    fn groups(&self) -> usize {
        self.k.div_ceil(self.cut.group)
    }

    /// The lines of a block.
    fn lines_of(&self, role: usize, block: usize) -> Range<usize> {
        let start = block * self.cut.lines[role];
        start..self.lines[role].min(start + self.cut.lines[role])
    }

    /// Lines of either role as rows and columns of the result.
    fn block(&self, batch: usize, [rows, columns]: &[Range<usize>; 2]) -> Block {
        let (rows, columns) = if self.turned { (columns, rows) } else { (rows, columns) };
        Block { batch, rows: rows.clone(), columns: columns.clone() }
    }
}

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
    fn apart<T: Element>(&self) {
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
            gemm.epilogue.finish(&mut task.loans[2], env, &block, View::of(sums));
        });
    }

    /// Wave by wave: one operand is packed, then multiplied by all blocks of the other.
    fn waves<T: Element>(&self, shared: usize) {
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
                        let packed = Packed { data, pitch: strips.width * strips.depth };
                        let (batch, shared) = (first + i / blocks, Some((shared, packed)));
                        Product { run: self, batch, lines, k: 0..gemm.k, shared }.run(task);
                    },
                );
            }
        }
    }

    /// Block by block: a thread packs columns when it comes to them, and multiplies them by all blocks of rows that it has
    /// with these.
    fn by_columns<T: Element>(&self) {
        let Run { gemm, env, parallel, .. } = *self;
        let [parts, blocks] = [1, 0].map(|role| gemm.lines[role].div_ceil(gemm.cut.lines[role]));
        let (n, strips) = (gemm.batch * parts * blocks, gemm.strips(1));
        let init = || (gemm.task(env), None);
        for_each(parallel, n, gemm.work() / n, init, |(task, packed), i| {
            let (batch, part, block) = (i / blocks / parts, i / blocks % parts, i % blocks);
            let columns = gemm.lines_of(1, part);
            let mut panel = std::mem::take(&mut task.panels[1]);
            if packed.replace((batch, part)) != Some((batch, part)) {
                self.packed::<T>(1, batch, &columns, &mut task.loans[1], &mut panel, &(0..gemm.k));
            }
            let shared = Some((1, Packed { data: panel.lanes::<T>(), pitch: strips.width * strips.depth }));
            Product { run: self, batch, lines: [gemm.lines_of(0, block), columns], k: 0..gemm.k, shared }.run(task);
            task.panels[1] = panel;
        });
    }

    /// Some lines of an operand over some steps, packed into `panel`.
    fn packed<'p, T: Element>(
        &self,
        role: usize,
        batch: usize,
        lines: &Range<usize>,
        loan: &mut Loan,
        panel: &'p mut Reg,
        steps: &Range<usize>,
    ) -> Packed<'p, T> {
        let Run { gemm, env, sources, .. } = *self;
        let strips = Strips { width: WIDTH[role], depth: steps.len() };
        let len = strips.len(lines.len());
        panel.reserve_bytes(len * size_of::<T>());
        let out = &mut panel.lanes_mut::<T>()[..len];
        gemm.operands[role].pack(loan, (sources[role], env), batch, lines, steps, (strips.width, &mut *out));
        Packed { data: out, pitch: strips.width * strips.depth }
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

/// The matrix that an epilogue only stores its sums into.
fn plain_store(kernel: &Dot) -> Option<Direct> {
    let ([Instr::Acc], [store]) = (&*kernel.epilogue.instrs, &*kernel.epilogue.stores) else { return None };
    let dtype = kernel.args[store.arg as usize].dtype;
    let index: &Index = &store.index;
    let same = dtype == *kernel.epilogue.types.first()?;
    same.then(|| Direct::new(index, store.arg as usize, [&kernel.batch, &kernel.m, &kernel.n])).flatten()
}

impl Gemm {
    /// The working memory of one task.
    pub(super) fn task(&self, env: Env) -> Task {
        let mut task = Task::bare();
        let is_shared = |role: usize| self.winograd.is_none() && self.cut.shared == Sharing::Wave(role);
        for (role, operand) in self.operands.iter().enumerate().filter(|o| !is_shared(o.0)) {
            operand.prepare(&mut task.loans[role], env);
        }
        if self.direct.is_none() {
            self.epilogue.prepare(&mut task.loans[2], env);
        }
        task
    }
}

/// One task: a block of the result, or a part of its sums.
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
    fn run(&self, task: &mut Task) {
        self.finish(task, |task, out| self.sum(task, out));
    }

    /// Finishes the block, whose sums `sum` writes to where they are wanted.
    pub(super) fn finish(&self, task: &mut Task, sum: impl FnOnce(&mut Task, Target)) {
        let Product { run: &Run { gemm, env, .. }, batch, ref lines, .. } = *self;
        let [rows, columns] = lines;
        if let Some(out) = &gemm.direct {
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
        gemm.epilogue.finish(&mut task.loans[2], env, &gemm.block(batch, lines), view);
        task.panels[2] = sums;
    }

    /// Sums the block into a matrix.
    pub(super) fn sum(&self, task: &mut Task, out: Target) {
        let gemm = self.run.gemm;
        let [rows, columns] = &self.lines;
        for from in self.k.clone().step_by(gemm.cut.depth) {
            let steps = from..self.k.end.min(from + gemm.cut.depth);
            let Task { loans: [first, second, _], panels: [left, right, _] } = task;
            let rhs = self.packed(1, columns, second, right, &steps);
            let (n, k, more) = (columns.len(), steps.len(), from > self.k.start);
            let multiply = |m, lhs, out| multiply([m, n, k], lhs, rhs, out, more);
            // Rows that lie, as many as are read together; others are packed.
            let lying = gemm.apart.map_or(0, |_| rows.len() / QUAD * QUAD);
            if let Some(apart) = gemm.apart.filter(|_| lying > 0) {
                multiply(lying, self.lying(apart, lying, &steps), out);
            }
            if lying < rows.len() {
                let rest = rows.start + lying..rows.end;
                let out = Target { at: out.at + lying as isize * out.strides[0], ..out };
                multiply(rest.len(), self.packed(0, &rest, first, left, &steps).into(), out);
            }
        }
    }

    /// The block's first rows over some steps, where they lie.
    fn lying(&self, apart: usize, rows: usize, steps: &Range<usize>) -> Rows<'_, T> {
        let Run { gemm, env, .. } = self.run;
        let window = gemm.operands[0].along_k().expect("else it would be packed");
        let data = window.lines(*env, self.batch).line(self.lines[0].start, (rows - 1) * apart + steps.end);
        Rows::lying(&data[steps.start..], apart)
    }

    /// Some of the block's lines of an operand over some steps, packed into `panel` unless that is done.
    fn packed<'p>(
        &'p self,
        role: usize,
        lines: &Range<usize>,
        loan: &mut Loan,
        panel: &'p mut Reg,
        steps: &Range<usize>,
    ) -> Packed<'p, T> {
        if let Some((of, whole)) = &self.shared
            && *of == role
        {
            return Packed { data: &whole.data[steps.start * WIDTH[role]..], pitch: whole.pitch };
        }
        self.run.packed(role, self.batch, lines, loan, panel, steps)
    }
}
