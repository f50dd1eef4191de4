//! Blocked matrix multiplication over operands that are matrices, or become ones in panels.

use bytemuck::Pod;
use kiln_ir::kernel::{Dot, Instr};
use kiln_ir::{DType, Index};

use crate::exec::{Env, Loan};
use crate::memory::View;
use crate::panel::{Block, Direct, Panel};
use crate::simd::Reg;
use crate::task::{for_each, map};

/// Elements of a panel: a megabyte of `f32`, which the outer caches hold.
const PANEL: usize = 1 << 18;

/// Points along the inner dim that are worth a group of their own.
const GROUP: usize = 1024;

/// Blocks that a result should have before its inner dim is cut into groups.
const BLOCKS: usize = 16;

/// Multiply-adds of a result too small to cut.
const SMALL: usize = 1 << 21;

enum Operand {
    /// A matrix in an argument.
    Direct(Direct),
    /// Evaluated, per block or whole beforehand.
    Panel { panel: Panel, whole: bool },
}

/// A contraction as matrix products.
pub(crate) struct Gemm {
    dtype: DType,
    batch: usize,
    /// `m`, `n`, `k`.
    dims: [usize; 3],
    /// Rows and columns of a block.
    block: [usize; 2],
    /// Points along `k` in a group, and in a panel.
    group: usize,
    depth: usize,
    operands: [Operand; 2],
    epilogue: Panel,
    /// Where the sums go if that is all the epilogue does with them.
    direct: Option<Direct>,
}

/// Where an operand's elements are in a run.
enum Source<'a> {
    Matrix { view: View, of: &'a Direct },
    Whole { view: View, panel: &'a Panel, dims: [usize; 2] },
    Pack(&'a Panel),
}

/// The working memory of one task.
struct Task {
    loans: [Loan; 3],
    panels: [Reg; 3],
}

/// True iff lines of a matrix are so far apart that they share few places in a cache: copied into a panel first, they
/// are read once, where the product would read each of their cache lines again and again.
fn collides(strides: [isize; 2], size: usize) -> bool {
    // What a way of a second-level cache holds, or half of it.
    const WAY: usize = 64 << 10;
    strides.iter().any(|s| *s != 0 && (s.unsigned_abs() * size).is_multiple_of(WAY))
}

impl Gemm {
    pub(crate) fn new(kernel: &Dot) -> Gemm {
        let numel = |dims: &[usize]| dims.iter().product::<usize>();
        let (batch, m, n, k) = (numel(&kernel.batch), numel(&kernel.m), numel(&kernel.n), numel(&kernel.k));
        let axes = [[&*kernel.batch, &*kernel.m, &*kernel.k], [&*kernel.batch, &*kernel.k, &*kernel.n]];
        let own = |i: usize| Direct::operand([&kernel.lhs, &kernel.rhs][i], &kernel.args, axes[i]);
        let direct = [0, 1].map(|i| own(i).filter(|of| !collides(of.strides, kernel.args[of.arg].dtype.size_bytes())));
        let packed = [direct[0].is_none(), direct[1].is_none()];
        let (block, depth) = blocks(m, n, k, packed);
        let n_blocks = batch * m.div_ceil(block[0]) * n.div_ceil(block[1]);
        let groups = if m * n * k * batch < SMALL { 1 } else { (k / GROUP).min(BLOCKS / n_blocks.min(BLOCKS)).max(1) };
        let group = k.div_ceil(groups).next_multiple_of(if groups > 1 { depth.min(GROUP) } else { 1 });
        // An operand that several blocks need is evaluated beforehand.
        let shared = [block[1] < n, block[0] < m];
        let mut direct = direct.into_iter();
        let operands = [0, 1].map(|i| match direct.next().flatten() {
            Some(direct) => Operand::Direct(direct),
            None => {
                let body = [&kernel.lhs, &kernel.rhs][i];
                Operand::Panel { panel: Panel::new(body, &kernel.args, axes[i], true), whole: shared[i] }
            }
        });
        let axes = [&*kernel.batch, &*kernel.m, &*kernel.n];
        Gemm {
            dtype: kernel.lhs.types.last().map_or(DType::F32, |t| t.compute()),
            batch,
            dims: [m, n, k],
            block,
            group,
            depth,
            operands,
            epilogue: Panel::new(&kernel.epilogue, &kernel.args, axes, false),
            direct: if group < k { None } else { plain_store(kernel) },
        }
    }

    /// A measure of the work: a multiply-add costs a fraction of a step of a loop.
    pub(crate) fn work(&self) -> usize {
        let [m, n, k] = self.dims;
        self.batch * m * n * (k / 4 + self.epilogue.weight())
    }

    pub(crate) fn run(&self, env: Env, parallel: bool) {
        match self.dtype {
            DType::F64 => self.run_lanes::<f64>(env, parallel, 0.0, 1.0),
            _ => self.run_lanes::<f32>(env, parallel, 0.0, 1.0),
        }
    }

    fn run_lanes<T: Pod + std::ops::AddAssign + Send + Sync>(&self, env: Env, parallel: bool, zero: T, one: T) {
        let (mut lhs, mut rhs) = (Vec::new(), Vec::new());
        let sources =
            [self.source::<T>(0, &mut lhs, env, parallel, zero), self.source::<T>(1, &mut rhs, env, parallel, zero)];
        let [m, n, k] = self.dims;
        let (high, wide, deep) = (m.div_ceil(self.block[0]), n.div_ceil(self.block[1]), k.div_ceil(self.group));
        let n_blocks = self.batch * high * wide;
        let block = |i: usize| {
            let (row, column) = (i / wide % high * self.block[0], i % wide * self.block[1]);
            let rows = row..m.min(row + self.block[0]);
            Block { batch: i / (high * wide), rows, columns: column..n.min(column + self.block[1]) }
        };
        let init = || self.task(env);
        let work = self.work() / n_blocks;
        if deep == 1 {
            return for_each(parallel, n_blocks, work, init, |task, i| {
                let block = block(i);
                if let Some(out) = &self.direct {
                    let [rs, cs] = out.strides;
                    let at = out.start(block.batch, env)
                        + block.rows.start as isize * rs
                        + block.columns.start as isize * cs;
                    let dst = Target { view: env.args[out.arg], at, strides: out.strides };
                    return self.sum(task, &sources, env, &block, 0..k, dst, one);
                }
                let mut sums = std::mem::take(&mut task.panels[2]);
                self.sum_panel(task, &sources, env, &block, 0..k, &mut sums, one);
                self.epilogue.finish(&mut task.loans[2], env, &block, View::of(sums.lanes_mut::<T>()));
                task.panels[2] = sums;
            });
        }
        let mut partials = map(parallel, n_blocks * deep, init, |task, i| {
            let (block, from) = (block(i / deep), i % deep * self.group);
            let mut sums = Reg::default();
            self.sum_panel(task, &sources, env, &block, from..k.min(from + self.group), &mut sums, one);
            sums
        });
        let mut task = init();
        for (i, partials) in partials.chunks_mut(deep).enumerate() {
            let block = block(i);
            let len = block.rows.len() * block.columns.len();
            let (sums, rest) = partials.split_first_mut().expect("at least two groups");
            let sums = &mut sums.lanes_mut::<T>()[..len];
            for next in rest {
                sums.iter_mut().zip(next.lanes::<T>()).for_each(|(s, &x)| *s += x);
            }
            self.epilogue.finish(&mut task.loans[2], env, &block, View::of(sums));
        }
    }
}

/// Sizes of a block and of a panel along `k`, from which operands are packed.
fn blocks(m: usize, n: usize, k: usize, packed: [bool; 2]) -> ([usize; 2], usize) {
    let room = |other: usize| (PANEL / other).max(64).next_multiple_of(16);
    let depth = |free: usize| (PANEL / free).max(256).min(k);
    match packed {
        // Both in place: enough blocks for some threads, each large enough to pay for packing in `gemm`.
        [false, false] if m * n * k < SMALL => ([m, n], k),
        [false, false] => ([m.min(128), n.min(1024)], k),
        [true, false] => {
            let block = m.min(room(n.max(k.min(1024)))).min(1024);
            ([block, n], depth(block))
        }
        [false, true] => {
            let block = n.min(room(m.max(k.min(1024)))).min(1024);
            ([m, block], depth(block))
        }
        [true, true] if m * n <= PANEL => ([m, n], depth(m.max(n))),
        // The smaller one is evaluated whole, so the other is packed once.
        [true, true] if m >= n => blocks(m, n, k, [true, false]),
        [true, true] => blocks(m, n, k, [false, true]),
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

/// A matrix to write into.
#[derive(Clone, Copy)]
struct Target {
    view: View,
    at: isize,
    strides: [isize; 2],
}

/// A matrix to read from.
#[derive(Clone, Copy)]
struct Matrix<T> {
    at: *const T,
    strides: [isize; 2],
}

impl Gemm {
    fn task(&self, env: Env) -> Task {
        let mut task = Task { loans: [Loan::bare(), Loan::bare(), Loan::bare()], panels: Default::default() };
        let [lhs, rhs, epilogue] = &mut task.loans;
        for (operand, worker) in self.operands.iter().zip([lhs, rhs]) {
            if let Operand::Panel { panel, .. } = operand {
                panel.prepare(worker, env);
            }
        }
        if self.direct.is_none() {
            self.epilogue.prepare(epilogue, env);
        }
        task
    }

    /// The rows and columns of an operand.
    fn operand_dims(&self, i: usize) -> [usize; 2] {
        let [m, n, k] = self.dims;
        [[m, k], [k, n]][i]
    }

    /// Finds an operand, evaluating it into `memory` if several blocks need it.
    fn source<'a, T: Pod + Send + Sync>(
        &'a self,
        i: usize,
        memory: &'a mut Vec<T>,
        env: Env,
        parallel: bool,
        zero: T,
    ) -> Source<'a> {
        let panel = match &self.operands[i] {
            Operand::Direct(of) => return Source::Matrix { view: env.args[of.arg], of },
            Operand::Panel { panel, whole: false } => return Source::Pack(panel),
            Operand::Panel { panel, .. } => panel,
        };
        let dims = self.operand_dims(i);
        let (slow, fast) = if panel.swapped { (dims[1], dims[0]) } else { (dims[0], dims[1]) };
        memory.resize(self.batch * slow * fast, zero);
        let view = View::of(&mut memory[..]);
        let high = (PANEL / 16 / fast).clamp(1, slow);
        let n = slow.div_ceil(high);
        let init = || {
            let mut worker = Loan::bare();
            panel.prepare(&mut worker, env);
            worker
        };
        for_each(parallel, self.batch * n, high * fast * panel.weight(), init, |worker, j| {
            let (batch, from) = (j / n, j % n * high);
            let (some, all) = (from..slow.min(from + high), 0..fast);
            // SAFETY: each task fills its own rows of `memory`, which outlives this call.
            let out = unsafe { view.slice_mut::<T>((batch * slow + from) * fast, some.len() * fast) };
            let (rows, columns) = if panel.swapped { (all, some) } else { (some, all) };
            panel.fill(worker, env, &Block { batch, rows, columns }, out);
        });
        Source::Whole { view, panel, dims }
    }

    /// Sums a block into a dense panel, which lies as the epilogue evaluates.
    #[expect(clippy::too_many_arguments, reason = "what a block needs, and where it goes")]
    fn sum_panel<T: Pod>(
        &self,
        task: &mut Task,
        sources: &[Source; 2],
        env: Env,
        block: &Block,
        k: std::ops::Range<usize>,
        out: &mut Reg,
        one: T,
    ) {
        let len = block.rows.len() * block.columns.len();
        out.reserve_bytes(len * size_of::<T>());
        let view = View::of(&mut out.lanes_mut::<T>()[..len]);
        self.sum(task, sources, env, block, k, Target { view, at: 0, strides: self.epilogue.strides(block) }, one);
    }

    /// Sums a block along a range of `k` into a matrix.
    #[expect(clippy::too_many_arguments, reason = "what a block needs, and where it goes")]
    fn sum<T: Pod>(
        &self,
        task: &mut Task,
        sources: &[Source; 2],
        env: Env,
        block: &Block,
        k: std::ops::Range<usize>,
        dst: Target,
        one: T,
    ) {
        let (m, n) = (block.rows.len(), block.columns.len());
        let packs = sources.iter().any(|s| matches!(s, Source::Pack(_)));
        let depth = if packs { self.depth } else { k.len() };
        for from in k.clone().step_by(depth) {
            let deep = from..k.end.min(from + depth);
            let lhs = Block { columns: deep.clone(), ..block.clone() };
            let rhs = Block { rows: deep.clone(), ..block.clone() };
            let lhs = matrix::<T>(&sources[0], &mut task.loans[0], &mut task.panels[0], env, &lhs);
            let rhs = matrix::<T>(&sources[1], &mut task.loans[1], &mut task.panels[1], env, &rhs);
            multiply([m, n, deep.len()], dst, from > k.start, lhs, rhs, one);
        }
    }
}

/// A block of an operand, packed into `panel` unless it is a matrix already.
fn matrix<T: Pod>(source: &Source, worker: &mut Loan, panel: &mut Reg, env: Env, block: &Block) -> Matrix<T> {
    let (view, start, [rs, cs]) = match source {
        Source::Matrix { view, of } => (*view, of.start(block.batch, env), of.strides),
        Source::Whole { view, panel, dims } => {
            let all = Block { batch: 0, rows: 0..dims[0], columns: 0..dims[1] };
            (*view, (block.batch * dims[0] * dims[1]) as isize, panel.strides(&all))
        }
        Source::Pack(of) => {
            let len = block.rows.len() * block.columns.len();
            panel.reserve_bytes(len * size_of::<T>());
            of.fill(worker, env, block, &mut panel.lanes_mut::<T>()[..len]);
            return Matrix { at: panel.lanes::<T>().as_ptr(), strides: of.strides(block) };
        }
    };
    let at = start + block.rows.start as isize * rs + block.columns.start as isize * cs;
    check::<T>(view, at, [rs, cs], [block.rows.len(), block.columns.len()]);
    // SAFETY: the first element is inside the view, as was just checked.
    Matrix { at: unsafe { view.as_ptr::<T>().cast_const().offset(at) }, strides: [rs, cs] }
}

/// Asserts that a matrix lies inside a view.
fn check<T>(view: View, at: isize, strides: [isize; 2], dims: [usize; 2]) {
    let reach = |i: usize| strides[i] * (dims[i] as isize - 1);
    let (lo, hi) = (at + reach(0).min(0) + reach(1).min(0), at + reach(0).max(0) + reach(1).max(0));
    assert!(lo >= 0 && (hi as usize) < view.len::<T>(), "cpu: a matrix at {lo}..={hi} exceeds {}", view.len::<T>());
}

/// `dst = lhs · rhs`, added to what is there if `more`.
fn multiply<T: Pod>([m, n, k]: [usize; 3], dst: Target, more: bool, lhs: Matrix<T>, rhs: Matrix<T>, one: T) {
    check::<T>(dst.view, dst.at, dst.strides, [m, n]);
    let ([rs, cs], [lhs_rs, lhs_cs], [rhs_rs, rhs_cs]) = (dst.strides, lhs.strides, rhs.strides);
    // SAFETY: all three matrices lie in memory that outlives the call, as `check` and the panels'
    // lengths assert; tasks write disjoint blocks, and no operand overlaps the result.
    unsafe {
        let to = dst.view.as_ptr::<T>().offset(dst.at);
        let (a, b) = (lhs.at, rhs.at);
        let alone = gemm::Parallelism::None;
        gemm::gemm(
            m, n, k, to, cs, rs, more, a, lhs_cs, lhs_rs, b, rhs_cs, rhs_rs, one, one, false, false, false, alone,
        );
    }
}
