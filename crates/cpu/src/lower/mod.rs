//! From a kernel's body to a [`Program`]: classes, passes, registers.

mod classes;
mod places;
mod steps;

use kiln_ir::kernel::{Arg, Body, Instr, Value};
use kiln_ir::{DType, Index};

use crate::fused::Step;
use crate::program::{Micro, Pass, Program, Reduction, RegId, Rowed};

/// How often a value is computed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Class {
    Uniform,
    Row,
    Point,
    /// Once, after the last row.
    Column,
}

/// A step, or several as one.
#[derive(Clone)]
struct Formula {
    step: Step,
    args: Vec<Value>,
}

struct Lowering<'a> {
    body: &'a Body,
    args: &'a [Arg],
    space: &'a Rowed,
    /// True iff registers of points outlive their pass.
    whole: bool,
    /// True iff the last step's value is wanted.
    wanted: bool,
    /// True iff large results go past the caches.
    stream: bool,
    /// True iff a step is a load that gives the same for each tile.
    again: Vec<bool>,
    class: Vec<Class>,
    /// The pass before which all reductions that a value needs are done.
    level: Vec<usize>,
    /// The axes that a value depends on, as bits.
    axes: Vec<u64>,
    reg: Vec<Option<RegId>>,
    expanded: Vec<Option<RegId>>,
    /// Uses still to come of each value of class `Point`.
    uses: Vec<usize>,
    free: Vec<RegId>,
    /// For each step, the formula that it and some of its operands are.
    joined: Vec<Option<Formula>>,
    /// For each sum, the factors of what it sums, or the two numbers of whose difference it sums the square.
    product: Vec<Option<[Value; 2]>>,
    /// True iff it sums squares of differences.
    squares: Vec<bool>,
    /// True iff a step is computed with the one that reads it.
    folded: Vec<bool>,
    /// The store in whose memory a value is computed that a later pass turns into what is stored.
    early: Vec<Option<usize>>,
    out: Program,
}

/// What a body is lowered for.
#[derive(Clone, Copy, Default)]
pub(crate) struct Goal {
    /// Tiles hold whole rows.
    pub(crate) whole: bool,
    /// The last step's value is wanted.
    pub(crate) last: bool,
    /// Results that no cache would keep until they are read may go past all of them.
    pub(crate) stream: bool,
    /// The axes from this one on come again: each tile begins where they do, and holds all of them.
    pub(crate) again: Option<usize>,
}

/// Lowers a body.
pub(crate) fn lower(body: &Body, args: &[Arg], space: &Rowed, goal: Goal) -> Program {
    let Goal { whole, last, stream, again } = goal;
    let out = Program {
        setup: Vec::new(),
        again: Vec::new(),
        passes: Vec::new(),
        puts: Vec::new(),
        row_puts: Vec::new(),
        column_puts: Vec::new(),
        last: None,
        n_regs: 0,
        direct: Vec::new(),
        single: Vec::new(),
        busy: false,
        lane_bytes: if body.types.contains(&DType::F64) { 8 } else { 4 },
        dtypes: args.iter().map(|a| a.dtype).collect(),
    };
    let n = body.instrs.len();
    let mut this = Lowering {
        body,
        args,
        space,
        whole,
        wanted: last,
        stream,
        again: vec![false; n],
        class: Vec::with_capacity(n),
        level: Vec::with_capacity(n),
        axes: Vec::with_capacity(n),
        reg: vec![None; n],
        expanded: vec![None; n],
        uses: vec![0; n],
        free: Vec::new(),
        joined: vec![None; n],
        product: vec![None; n],
        squares: vec![false; n],
        folded: vec![false; n],
        early: vec![None; n],
        out,
    };
    this.classify();
    this.find_again(again);
    this.emit(last);
    this.mark_single();
    this.out.busy = this.out.passes.iter().map(|pass| n_ops(&pass.points)).sum::<usize>() >= BUSY;
    let asks = !this.out.busy;
    this.out.passes.iter_mut().flat_map(|pass| &mut pass.reductions).for_each(|r| r.asks = asks);
    this.out.direct.resize(this.out.n_regs, None);
    this.join_updates();
    this.out
}

/// Rows of `OPS` at a point from which on memory would idle.
pub(crate) const BUSY: usize = 5;

/// What a step adds that takes long over its lanes.
const SLOW: usize = 4;

/// How many rows of `OPS` some steps are as long as.
fn n_ops(micros: &[Micro]) -> usize {
    let of = |micro: &Micro| match micro {
        Micro::Load { .. } => 0,
        Micro::Adam(adam) => n_ops(&adam.steps),
        Micro::Fused { op, .. } => op.arity() - 1 + if op.is_slow() { SLOW } else { 0 },
        _ => 1,
    };
    micros.iter().map(of).sum()
}

/// True iff elements lie in memory as they are computed with.
pub(crate) fn is_lane(dtype: DType) -> bool {
    matches!(dtype, DType::F32 | DType::F64 | DType::I32 | DType::U32)
}

/// The axes that an expression reads, as bits.
fn axes_of(index: &Index) -> u64 {
    (0..64).filter(|&a| index.uses(&|v| v == a)).fold(0, |bits, a| bits | 1 << a)
}

impl Lowering<'_> {
    fn emit(&mut self, last: bool) {
        let live = self.body.live(last);
        let n = live.len();
        let steps = |class: Class, this: &Self| -> Vec<usize> {
            (0..n).filter(|&i| live[i] && this.class[i] == class).collect()
        };
        let n_passes = 1 + (0..n).filter(|&i| live[i]).map(|i| self.level[i]).max().unwrap_or(0);
        self.out.passes.resize_with(n_passes, Pass::default);
        for i in steps(Class::Uniform, self) {
            let (dst, micro) = self.micro(i, Class::Uniform);
            self.out.setup.push(micro);
            if !matches!(self.body.instrs[i], Instr::Op(..) | Instr::Cast(..) | Instr::Const(..) | Instr::Scalar(..)) {
                self.out.setup.push(Micro::Spread { dtype: self.body.types[i].compute(), dst });
            }
        }
        for i in steps(Class::Row, self) {
            match self.body.instrs[i] {
                Instr::Reduce(..) => self.reg[i] = Some(self.fresh()),
                _ => {
                    let micro = self.micro(i, Class::Row).1;
                    self.out.passes[self.level[i]].rows.push(micro);
                }
            }
        }
        steps(Class::Column, self).into_iter().for_each(|i| self.reg[i] = Some(self.fresh()));
        let points = steps(Class::Point, self);
        self.fold(&points, last);
        self.find_early();
        let kept = last.then(|| n - 1).filter(|&v| self.class[v] == Class::Point);
        self.emit_passes(&points, &live, kept);
        self.emit_column_stores();
        self.out.last = last.then(|| self.as_points(n - 1, n_passes - 1));
    }

    /// The points' steps of every pass, its reductions, and registers for them by liveness.
    fn emit_passes(&mut self, points: &[usize], live: &[bool], kept: Option<usize>) {
        let n_passes = self.out.passes.len();
        let reductions = |pass: usize, this: &Self| -> Vec<usize> {
            (0..live.len()).filter(|&i| live[i] && this.reduces_after(i, pass)).collect()
        };
        let plan: Vec<Vec<usize>> =
            (0..n_passes).map(|pass| self.steps_of(pass, points, &reductions(pass, self), kept)).collect();
        if self.whole {
            plan.iter().for_each(|steps| self.count_uses(steps));
            (0..n_passes).for_each(|pass| self.count_ends(pass, &reductions(pass, self), kept));
        }
        for (pass, steps) in plan.iter().enumerate() {
            let reductions = reductions(pass, self);
            if !self.whole {
                self.count_uses(steps);
                self.count_ends(pass, &reductions, kept);
            }
            for &i in steps {
                if self.folded[i] {
                    continue;
                }
                if self.again[i] {
                    if self.reg[i].is_none() {
                        let micro = self.micro(i, Class::Point).1;
                        self.out.again.push(micro);
                    }
                    continue;
                }
                let sources = self.sources(i);
                for &v in &sources {
                    self.as_points(v as usize, pass);
                }
                let micro = self.micro(i, Class::Point).1;
                self.out.passes[pass].points.push(micro);
                sources.iter().for_each(|&v| self.release(v as usize));
            }
            // Their registers are read after the last step of the pass: only a later pass may take them.
            for r in reductions {
                let reduction = self.reduction(r, pass);
                match self.class[r] {
                    Class::Column => self.out.passes[pass].columns.push(reduction),
                    _ => self.out.passes[pass].reductions.push(reduction),
                }
            }
            self.emit_stores(pass);
            self.end_pass(pass, points);
        }
    }

    fn reduction(&mut self, r: usize, pass: usize) -> Reduction {
        let (Instr::Reduce(op, v) | Instr::ColumnReduce(op, v)) = self.body.instrs[r] else {
            unreachable!("asked of reductions")
        };
        let (src, by) = match self.product[r] {
            Some([x, y]) => (self.as_points(x as usize, pass), Some(self.as_points(y as usize, pass))),
            None => (self.as_points(v as usize, pass), None),
        };
        let dst = self.reg[r].expect("reductions have their registers");
        Reduction { op, dtype: self.body.types[v as usize], src, by, squares: self.squares[r], dst, asks: false }
    }

    /// True iff a step is a reduction at the end of a pass.
    fn reduces_after(&self, i: usize, pass: usize) -> bool {
        match self.body.instrs[i] {
            Instr::Reduce(..) => self.level[i] == pass + 1,
            Instr::ColumnReduce(..) => self.level[i] == pass,
            _ => false,
        }
    }

    fn count_uses(&mut self, steps: &[usize]) {
        for &i in steps.iter().filter(|&&i| !self.folded[i]) {
            self.sources(i).iter().for_each(|&v| self.uses[v as usize] += 1);
        }
    }

    /// What is read when a pass ends is in use until then.
    fn count_ends(&mut self, pass: usize, reductions: &[usize], kept: Option<usize>) {
        for &r in reductions {
            self.sources(r).iter().for_each(|&v| self.uses[v as usize] += 1);
        }
        let body = self.body;
        for store in body.stores.iter().filter(|s| self.pass_of(s) == pass).collect::<Vec<_>>() {
            self.uses[store.value as usize] += 1;
        }
        if pass + 1 == self.out.passes.len() {
            kept.into_iter().for_each(|v| self.uses[v] += 1);
        }
    }

    fn release(&mut self, v: usize) {
        if self.class[v] == Class::Point && !self.again[v] {
            self.uses[v] -= 1;
            if self.uses[v] == 0 && self.direct(v).is_none() {
                self.free.extend(self.reg[v]);
            }
        }
    }

    /// Frees what the reductions of a pass have read; across passes nothing is kept unless rows are whole.
    fn end_pass(&mut self, pass: usize, points: &[usize]) {
        if pass + 1 == self.out.passes.len() {
            return;
        }
        if self.whole {
            for i in 0..self.body.instrs.len() {
                if self.reduces_after(i, pass) && self.reg[i].is_some() {
                    self.sources(i).iter().for_each(|&v| self.release(v as usize));
                }
            }
            return;
        }
        let shared = |i: usize| self.uses[i] > 0 && !self.again[i] && self.direct(i).is_none();
        let held: Vec<RegId> = points.iter().filter(|&&i| shared(i)).filter_map(|&i| self.reg[i]).collect();
        self.free.extend(held);
        for &i in points.iter().filter(|&&i| !self.again[i]) {
            (self.uses[i], self.reg[i]) = (0, None);
        }
    }
}
