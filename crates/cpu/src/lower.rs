//! From a kernel's body to a [`Program`]: classes, passes, registers.

use kiln_ir::kernel::{Access, Arg, Body, Instr, Store, Value};
use kiln_ir::{Bound, DType, Index};

use crate::fused::{Fused, pair};
use crate::program::{Micro, Pass, Program, Put, Reduction, RegId, Rowed};
use crate::site::Site;

/// How often a value is computed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Class {
    Uniform,
    Row,
    Point,
}

struct Lowering<'a> {
    body: &'a Body,
    args: &'a [Arg],
    space: &'a Rowed,
    /// True iff registers of points outlive their pass.
    whole: bool,
    /// True iff the last step's value is wanted.
    wanted: bool,
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
    /// For each step, the operand that is computed with it, and as what.
    inner: Vec<Option<(usize, Fused)>>,
    /// True iff a step is computed with the one that reads it.
    folded: Vec<bool>,
    out: Program,
}

/// Lowers a body; `whole` iff a tile holds whole rows, `last` iff the last step's value is wanted.
pub(crate) fn lower(body: &Body, args: &[Arg], space: &Rowed, whole: bool, last: bool) -> Program {
    let out = Program {
        setup: Vec::new(),
        passes: Vec::new(),
        puts: Vec::new(),
        row_puts: Vec::new(),
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
        class: Vec::with_capacity(n),
        level: Vec::with_capacity(n),
        axes: Vec::with_capacity(n),
        reg: vec![None; n],
        expanded: vec![None; n],
        uses: vec![0; n],
        free: Vec::new(),
        inner: vec![None; n],
        folded: vec![false; n],
        out,
    };
    this.classify();
    this.emit(last);
    this.mark_single();
    this.out.busy = this.out.passes.iter().any(|pass| steps(&pass.points) >= BUSY);
    this.out.direct.resize(this.out.n_regs, None);
    this.out
}

/// Steps of a pass from which on memory would idle.
const BUSY: usize = 5;

/// How many steps compute.
fn steps(micros: &[Micro]) -> usize {
    micros.iter().filter(|m| !matches!(m, Micro::Load { .. })).count()
}

/// True iff elements lie in memory as they are computed with.
fn is_lane(dtype: DType) -> bool {
    matches!(dtype, DType::F32 | DType::F64 | DType::I32 | DType::U32)
}

/// The axes that an expression reads, as bits.
fn axes_of(index: &Index) -> u64 {
    (0..64).filter(|&a| index.uses(&|v| v == a)).fold(0, |bits, a| bits | 1 << a)
}

impl Lowering<'_> {
    fn classify(&mut self) {
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
                Instr::Const(..) | Instr::Scalar(..) | Instr::Op(..) | Instr::Cast(..) | Instr::Reduce(..) => 0,
            } & all;
            let mut level = 0;
            for v in instr.operands() {
                axes |= self.axes[v as usize];
                level = level.max(self.level[v as usize]);
            }
            let reduced = matches!(instr, Instr::Reduce(..));
            axes &= if reduced { !row_axes } else { all };
            self.class.push(match axes {
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
    fn closure(&self, from: impl IntoIterator<Item = usize>) -> Vec<bool> {
        let mut needed = vec![false; self.body.instrs.len()];
        from.into_iter().for_each(|v| needed[v] = true);
        for i in (0..needed.len()).rev() {
            if needed[i] && !matches!(self.body.instrs[i], Instr::Reduce(..)) {
                self.body.instrs[i].operands().iter().for_each(|&v| needed[v as usize] = true);
            }
        }
        needed
    }

    /// The pass that does a store of every point: where rows are not whole, the first that has its value, unless a
    /// later one loads what it overwrites.
    fn pass_of(&self, store: &Store) -> usize {
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

    /// The steps that anything kept depends on.
    fn live(&self, last: bool) -> Vec<bool> {
        let n = self.body.instrs.len();
        let mut live = vec![false; n];
        self.body.stores.iter().for_each(|s| live[s.value as usize] = true);
        if last && n > 0 {
            live[n - 1] = true;
        }
        for i in (0..n).rev() {
            if live[i] {
                self.body.instrs[i].operands().iter().for_each(|&v| live[v as usize] = true);
            }
        }
        live
    }

    fn emit(&mut self, last: bool) {
        let live = self.live(last);
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
        let points = steps(Class::Point, self);
        self.fold(&points, last);
        let kept = last.then(|| n - 1).filter(|&v| self.class[v] == Class::Point);
        self.emit_passes(&points, &live, kept);
        self.out.last = last.then(|| self.as_points(n - 1, n_passes - 1));
    }

    /// The points' steps of every pass, its reductions, and registers for them by liveness.
    fn emit_passes(&mut self, points: &[usize], live: &[bool], kept: Option<usize>) {
        let (body, n_passes) = (self.body, self.out.passes.len());
        let reductions = |pass: usize, this: &Self| -> Vec<usize> {
            let at = |i: &usize| live[*i] && matches!(body.instrs[*i], Instr::Reduce(..)) && this.level[*i] == pass + 1;
            (0..live.len()).filter(at).collect()
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
                let mut sources: Vec<Value> = body.instrs[i].operands();
                if let Some((inner, _)) = self.inner[i] {
                    sources.extend(body.instrs[inner].operands());
                }
                for &v in &sources {
                    if !self.folded[v as usize] {
                        self.as_points(v as usize, pass);
                    }
                }
                let micro = self.micro(i, Class::Point).1;
                self.out.passes[pass].points.push(micro);
                sources.iter().for_each(|&v| self.release(v as usize));
            }
            for r in reductions {
                let Instr::Reduce(op, v) = body.instrs[r] else { unreachable!("filtered above") };
                let src = self.as_points(v as usize, pass);
                let dst = self.reg[r].expect("reductions have their registers");
                let dtype = body.types[v as usize];
                self.out.passes[pass].reductions.push(Reduction { op, dtype, src, dst });
                // The register is read after the last step of the pass: only a later pass may take it.
            }
            self.emit_stores(pass);
            self.end_pass(pass, points);
        }
    }
}

impl Lowering<'_> {
    /// The points' steps of a pass, in order: all that are due, or all that this pass needs again.
    fn steps_of(&self, pass: usize, points: &[usize], reductions: &[usize], kept: Option<usize>) -> Vec<usize> {
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

    /// Joins each step with an operand that nothing else reads, where both are one formula.
    fn fold(&mut self, points: &[usize], last: bool) {
        let body = self.body;
        let mut uses = vec![0; body.instrs.len()];
        let live = self.live(last);
        let all = (0..live.len()).filter(|&i| live[i]).flat_map(|i| body.instrs[i].operands());
        all.chain(body.stores.iter().map(|s| s.value)).for_each(|v| uses[v as usize] += 1);
        if last {
            uses[live.len() - 1] += 1;
        }
        for &i in points {
            let Instr::Op(second, args) = body.instrs[i] else { continue };
            let join = |side: usize| {
                let v = args[side] as usize;
                let alone = uses[v] == 1 && self.class[v] == Class::Point && self.level[v] == self.level[i];
                let Instr::Op(first, _) = body.instrs[v] else { return None };
                let free = alone && self.inner[v].is_none();
                pair(first, second, side, body.types[i].compute()).filter(|_| free).map(|op| (v, op))
            };
            let sides = 0..second.row().arity.min(2);
            if let Some((v, op)) = sides.filter_map(join).next() {
                self.inner[i] = Some((v, op));
                self.folded[v] = true;
            }
        }
    }

    fn count_uses(&mut self, steps: &[usize]) {
        for &i in steps {
            self.body.instrs[i].operands().iter().for_each(|&v| self.uses[v as usize] += 1);
        }
    }

    /// What is read when a pass ends is in use until then.
    fn count_ends(&mut self, pass: usize, reductions: &[usize], kept: Option<usize>) {
        for &r in reductions {
            self.body.instrs[r].operands().iter().for_each(|&v| self.uses[v as usize] += 1);
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
        if self.class[v] == Class::Point {
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
            for (i, instr) in self.body.instrs.iter().enumerate() {
                if let (Instr::Reduce(_, v), true) = (instr, self.level[i] == pass + 1 && self.reg[i].is_some()) {
                    self.release(*v as usize);
                }
            }
            return;
        }
        let shared = |i: usize| self.uses[i] > 0 && self.direct(i).is_none();
        let held: Vec<RegId> = points.iter().filter(|&&i| shared(i)).filter_map(|&i| self.reg[i]).collect();
        self.free.extend(held);
        for &i in points {
            (self.uses[i], self.reg[i]) = (0, None);
        }
    }

    fn emit_stores(&mut self, pass: usize) {
        let body = self.body;
        for (s, store) in body.stores.iter().enumerate() {
            if self.pass_of(store) != pass {
                continue;
            }
            let (v, arg) = (store.value as usize, store.arg as usize);
            if self.by_point(store) {
                let src = self.as_points(v, pass);
                let site = self.point_site(&store.index, &[], None);
                self.out.direct.resize(self.out.n_regs, None);
                if self.direct(v) == Some(s) {
                    self.out.direct[src] = Some(self.out.puts.len());
                }
                let updates = self.args[arg].access == Access::ReadWrite;
                self.out.puts.push(Put { pass, site, arg, src, updates });
            } else {
                let site = Site::new(&self.space.outer, &store.index, &[], None, |_| false);
                let src = self.reg[v].expect("computed in order");
                self.out.row_puts.push(Put { pass, site, arg, src, updates: false });
            }
        }
    }

    /// True iff a store happens at every point rather than once a row.
    fn by_point(&self, store: &Store) -> bool {
        let (outer, row) = (self.space.outer.len(), self.space.row.len());
        let in_row = store.index.uses(&|a| (outer..outer + row).contains(&a));
        self.class[store.value as usize] == Class::Point || in_row || row == 0
    }

    /// The store in whose memory a value may be computed: its lanes are stored as they are, where nothing is loaded.
    fn direct(&self, v: usize) -> Option<usize> {
        let own = |store: &Store| {
            let arg = &self.args[store.arg as usize];
            let same = is_lane(arg.dtype) && arg.dtype == self.body.types[v].compute();
            let free = match arg.access {
                Access::Write => true,
                Access::ReadWrite => self.updates(v, store),
                Access::Read => unreachable!("nothing is stored there"),
            };
            store.value as usize == v && self.by_point(store) && same && free
        };
        if self.class[v] == Class::Point { self.body.stores.iter().position(own) } else { None }
    }

    /// True iff a value is a formula of what its store overwrites, as its first operand, and nothing else reads that.
    fn updates(&self, v: usize, store: &Store) -> bool {
        let body = self.body;
        let Some((inner, op)) = self.inner[v] else { return false };
        let Instr::Op(_, [first, ..]) = body.instrs[inner] else { return false };
        let loads = |i: &Instr| matches!(i, Instr::Load { arg, .. } if *arg == store.arg);
        let same = match &body.instrs[first as usize] {
            Instr::Load { arg, index, valid, gather: None } => {
                *arg == store.arg && *index == store.index && valid.is_empty()
            }
            _ => false,
        };
        let reads = body.instrs.iter().flat_map(|i| i.operands()).chain(body.stores.iter().map(|s| s.value));
        let alone = body.instrs.iter().filter(|i| loads(i)).count() == 1 && reads.filter(|&r| r == first).count() == 1;
        op.updates() && same && alone && self.out.passes.len() == 1
    }

    /// True iff a value's register may stand for an argument's memory.
    fn may_lend(&self, v: usize, class: Class, arg: usize) -> bool {
        // What is overwritten at the end of a tile must not be stored elsewhere or reduced after that.
        let body = self.body;
        let reduced = body.instrs.iter().any(|i| matches!(i, Instr::Reduce(_, of) if *of as usize == v));
        let kept = reduced || body.stores.iter().any(|s| s.value as usize == v);
        let moved = kept && self.args[arg].access != Access::Read;
        let wanted = self.wanted && v + 1 == self.body.instrs.len();
        class == Class::Point && is_lane(self.args[arg].dtype) && !moved && !wanted && self.direct(v).is_none()
    }

    /// Marks what is read only by steps that take a single value as well.
    fn mark_single(&mut self) {
        let out = &mut self.out;
        out.single = vec![true; out.n_regs];
        let ends = out.passes.iter().flat_map(|pass| &pass.reductions).map(|r| r.src);
        let indices = out.passes.iter().flat_map(|pass| &pass.points).filter_map(|micro| match micro {
            Micro::Load { gather, .. } => *gather,
            _ => None,
        });
        // What there is once a row is repeated or stored row by row.
        let rows = out.passes.iter().flat_map(|pass| &pass.rows).filter(|m| !matches!(m, Micro::Expand { .. }));
        let rows = rows.map(Micro::dst);
        let whole = ends.chain(indices).chain(rows).chain(out.puts.iter().map(|put| put.src)).chain(out.last);
        whole.for_each(|reg| out.single[reg] = false);
    }

    /// An address over the tile's points.
    fn point_site(&self, index: &Index, bounds: &[Bound], gather: Option<(DType, usize, u64)>) -> Site {
        let to = |axis: usize| self.space.tile_axis(axis);
        let bounds: Vec<Bound> = bounds.iter().map(|b| Bound { index: b.index.rename(&to), ..*b }).collect();
        let rank = self.space.outer.len() + self.space.row.len();
        let along = |axis: usize| {
            let own = (0..rank).find(|&a| self.space.tile_axis(a) == axis);
            gather.is_some_and(|g| own.is_some_and(|a| g.2 >> a & 1 == 1))
        };
        Site::new(&self.space.tile_dims(), &index.rename(&to), &bounds, gather.map(|g| (g.0, g.1)), along)
    }

    /// An address over the rows, or over a single point.
    fn row_site(&self, class: Class, index: &Index, bounds: &[Bound], gather: Option<(DType, usize, u64)>) -> Site {
        let rank = self.space.outer.len() + self.space.row.len();
        let dims: &[usize] = if class == Class::Uniform { &[] } else { &self.space.outer };
        let to = |axis: usize| if axis == rank { dims.len() } else { axis };
        let bounds: Vec<Bound> = bounds.iter().map(|b| Bound { index: b.index.rename(&to), ..*b }).collect();
        let along = |axis: usize| gather.is_some_and(|g| g.2 >> axis & 1 == 1);
        Site::new(dims, &index.rename(&to), &bounds, gather.map(|g| (g.0, g.1)), along)
    }

    fn site(&self, class: Class, index: &Index, bounds: &[Bound], gather: Option<(DType, usize, u64)>) -> Site {
        match class {
            Class::Point => self.point_site(index, bounds, gather),
            Class::Row | Class::Uniform => self.row_site(class, index, bounds, gather),
        }
    }

    /// The step `i` for one class, with a register for its value.
    fn micro(&mut self, i: usize, class: Class) -> (RegId, Micro) {
        let own = class != Class::Point || self.direct(i).is_some();
        let dst = if own { self.fresh() } else { self.alloc() };
        let types = &self.body.types;
        let read = |v: Value| {
            let expanded = if class == Class::Point { self.expanded[v as usize] } else { None };
            expanded.or(self.reg[v as usize]).expect("operands are computed in order")
        };
        let micro = match &self.body.instrs[i] {
            Instr::Load { arg, index, gather: None, .. } if self.of_no_point(*arg, index) => {
                Micro::Fill { dtype: types[i].compute(), value: 0.0, dst }
            }
            Instr::Load { arg, index, valid, gather } => {
                let by = gather.map(|(v, n)| (types[v as usize].compute(), n, self.axes[v as usize]));
                let site = self.site(class, index, valid, by);
                let (arg, gather) = (*arg as usize, gather.map(|g| read(g.0)));
                Micro::Load { site, arg, gather, lend: self.may_lend(i, class, arg), dst }
            }
            Instr::Const(dtype, v) => Micro::Fill { dtype: dtype.compute(), value: dtype.round(*v), dst },
            Instr::Scalar(dtype, word) => Micro::Scalar { dtype: *dtype, word: *word as usize, dst },
            Instr::Coord(index) => Micro::Coord { site: self.site(class, index, &[], None), dst },
            Instr::Inside(bounds) => Micro::Inside { site: self.site(class, &Index::constant(0), bounds, None), dst },
            Instr::Op(_, args) if self.inner[i].is_some() => {
                let (inner, op) = self.inner[i].expect("just seen");
                let Instr::Op(_, [x, y, _]) = self.body.instrs[inner] else { unreachable!("only these are joined") };
                // A formula over two values does not read the third.
                let other = args.iter().copied().find(|&v| v as usize != inner).unwrap_or(y);
                Micro::Fused { op, dtype: types[i].compute(), args: [x, y, other].map(read), dst }
            }
            Instr::Op(op, args) => {
                let arity = op.row().arity;
                let dtype = types[args[arity - 1] as usize].compute();
                Micro::Op { op: *op, dtype, args: [0, 1, 2].map(|k: usize| read(args[k.min(arity - 1)])), dst }
            }
            Instr::Cast(to, v) => Micro::Cast { from: types[*v as usize].compute(), to: *to, src: read(*v), dst },
            Instr::Acc => Micro::Acc { dtype: types[i].compute(), dst },
            Instr::Reduce(..) => unreachable!("a reduction ends a pass"),
        };
        self.reg[i] = Some(dst);
        (dst, micro)
    }

    /// True iff rows are empty and this element does not exist: an address of no point may seem the same along the row.
    fn of_no_point(&self, arg: u32, index: &Index) -> bool {
        let (least, greatest) = index.range(&[&*self.space.outer, &self.space.row].concat());
        self.space.n_points() == 0 && (least < 0 || greatest >= self.args[arg as usize].numel as i64)
    }

    /// The register that has a value at every point of a tile.
    fn as_points(&mut self, v: usize, pass: usize) -> RegId {
        let reg = self.reg[v].expect("computed in order");
        if self.class[v] != Class::Row {
            return reg;
        }
        if let Some(dst) = self.expanded[v] {
            return dst;
        }
        let dst = self.fresh();
        let dtype = self.body.types[v].compute();
        debug_assert!(self.level[v] <= pass, "a row's value is there when its points need it");
        self.out.passes[self.level[v]].rows.push(Micro::Expand { dtype, src: reg, dst });
        self.expanded[v] = Some(dst);
        dst
    }

    fn fresh(&mut self) -> RegId {
        self.out.n_regs += 1;
        self.out.n_regs - 1
    }

    fn alloc(&mut self) -> RegId {
        self.free.pop().unwrap_or_else(|| self.fresh())
    }
}
