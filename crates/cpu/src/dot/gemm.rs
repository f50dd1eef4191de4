//! Matrix products: operands packed into strips, blocks of sums, and what becomes of them while they are in cache.
//! This is what is known of one before it runs.
//!
//! Rows and columns take on *roles*: if the result lies column by column, the right operand is the one whose lines
//! are the tiles' rows, so that the lines of a tile are always neighbours in memory.

use std::ops::Range;

use kiln_ir::kernel::{Dot, Instr, Value};
use kiln_ir::{DType, PointOp};

use super::cut::{Cut, Sharing};
use super::element::Element;
use super::lie::{Lie, ROWS, columns};
use super::operand::{Axes, Operand};
use super::pack::Strips;
use super::run::Run;
use super::task::Task;
use super::window::Window;
use super::winograd::Winograd;
use crate::exec::Env;
use crate::panel::{Block, Direct, Panel};

/// A contraction as matrix products.
pub(crate) struct Gemm {
    dtype: DType,
    pub(super) batch: usize,
    /// Lines of either role.
    pub(super) lines: [usize; 2],
    pub(super) k: usize,
    pub(super) cut: Cut,
    /// Lines of a strip, by role.
    pub(super) widths: [usize; 2],
    /// By role.
    pub(super) operands: [Operand; 2],
    /// True iff columns have the role of rows.
    pub(super) turned: bool,
    /// How rows lie that are read where they do.
    pub(super) lie: Option<Lie>,
    pub(super) epilogue: Panel,
    /// Where the sums go if that is all the epilogue does with them.
    pub(super) direct: Option<Sink>,
    /// How else it is computed, if it is a convolution for which that pays.
    winograd: Option<Winograd>,
}

/// A matrix that sums are written to.
pub(super) struct Sink {
    pub(super) to: Direct,
    /// True iff they are added to what is there.
    pub(super) adds: bool,
}

/// Columns of a block whose rows are read where they lie, at most: for more, packing pays.
const FEW: usize = 256;

/// Elements between the first step and the last of rows that are read across where they lie: the outer cache of a core
/// holds them.
const NEAR: usize = 1 << 18;

impl Gemm {
    pub(crate) fn new(kernel: &Dot) -> Gemm {
        let numel = |dims: &[usize]| dims.iter().product::<usize>();
        let axes: Axes = [&kernel.batch, &kernel.m, &kernel.n, &kernel.k];
        let [batch, m, n, k] = axes.map(numel);
        let epilogue = Panel::new(&kernel.epilogue, &kernel.args, [axes[0], axes[1], axes[2]], false);
        // Sums of groups are added up first.
        let mut direct = sink(kernel).filter(|_| Cut::new(batch, [m, n], k, false).group == k);
        let turned =
            direct.as_ref().map_or(epilogue.swapped, |sink| sink.to.strides[0] == 1 && sink.to.strides[1] != 1);
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
            let along = |sink: &Sink| !sink.adds && sink.to.strides[usize::from(!turned)] == 1;
            direct = sink(kernel).filter(|sink| winograd.is_direct() && along(sink));
        }
        let cut = Cut::new(batch, lines, k, direct.is_none());
        let near = |lie: &Lie| matches!(lie, Lie::Along(_)) || k * lie.strides()[1] <= NEAR;
        let lie = operands[0].window().and_then(Window::lie).filter(|lie| winograd.is_none() && near(lie));
        let cut = lie.and_then(|_| cut.by_columns(batch, lines, k)).unwrap_or(cut);
        let lie = lie.filter(|_| cut.shared != Sharing::Wave(0) && cut.lines[1] <= FEW);
        let widths = [ROWS, if dtype == DType::F64 { columns::<f64>() } else { columns::<f32>() }];
        Gemm { dtype, batch, lines, k, cut, widths, operands, turned, lie, epilogue, direct, winograd }
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
    pub(super) fn strips(&self, role: usize) -> Strips {
        Strips { width: self.widths[role], depth: self.k }
    }

    pub(super) fn groups(&self) -> usize {
        self.k.div_ceil(self.cut.group)
    }

    /// The lines of a block.
    pub(super) fn lines_of(&self, role: usize, block: usize) -> Range<usize> {
        let start = block * self.cut.lines[role];
        start..self.lines[role].min(start + self.cut.lines[role])
    }

    /// Lines of either role as rows and columns of the result.
    pub(super) fn block(&self, batch: usize, [rows, columns]: &[Range<usize>; 2]) -> Block {
        let (rows, columns) = if self.turned { (columns, rows) } else { (rows, columns) };
        Block { batch, rows: rows.clone(), columns: columns.clone() }
    }
}

/// The matrix that an epilogue only stores its sums into, or adds them to.
fn sink(kernel: &Dot) -> Option<Sink> {
    let (body, [store]) = (&kernel.epilogue, &*kernel.epilogue.stores) else { return None };
    let there = |v: Value| match &body.instrs[v as usize] {
        Instr::Load { arg, index, valid, gather: None } => {
            *arg == store.arg && *index == store.index && valid.is_empty()
        }
        _ => false,
    };
    let adds = match body.instrs[store.value as usize] {
        Instr::Acc => false,
        Instr::Op(PointOp::Add, [a, b, _]) => {
            let sums = |v: Value| body.instrs[v as usize] == Instr::Acc;
            (sums(a) && there(b) || sums(b) && there(a)).then_some(true)?
        }
        _ => return None,
    };
    let same = kernel.args[store.arg as usize].dtype == body.types[store.value as usize];
    let to = Direct::new(&store.index, store.arg as usize, [&kernel.batch, &kernel.m, &kernel.n]).filter(|_| same)?;
    Some(Sink { to, adds })
}

impl Gemm {
    /// The working memory of one task.
    pub(super) fn task(&self, env: Env) -> Task {
        let mut task = Task::bare();
        let is_shared = |role: usize| self.winograd.is_none() && self.cut.shared == Sharing::Wave(role);
        for (role, operand) in self.operands.iter().enumerate().filter(|o| !is_shared(o.0)) {
            operand.prepare(&mut task.workers[role], env);
        }
        if self.direct.is_none() {
            self.epilogue.prepare(&mut task.workers[2], env);
        }
        task
    }
}
