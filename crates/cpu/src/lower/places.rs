//! Where values are: which steps are one, which results are computed in their own memory, and which loads stay
//! where they lie.

use kiln_ir::kernel::{Access, Arg, Instr, Store, Value};
use kiln_ir::{DType, PointOp, ReduceOp};

use super::{Class, Formula, Lowering, is_lane};
use crate::adam;
use crate::fused::{Fused, Step, join};
use crate::program::{Micro, Put, RegId};
use crate::site::Site;

/// A difference, its square, and the sum of that.
struct Squared {
    difference: usize,
    square: usize,
    sum: usize,
}

/// Bytes of a result that caches would not keep until the next kernel reads it.
const STREAM: usize = 16 << 20;

impl Lowering<'_> {
    /// Joins each step with operands that nothing else reads, where all are one formula, and sums with products.
    pub(super) fn fold(&mut self, points: &[usize], last: bool) {
        let body = self.body;
        let mut uses = vec![0; body.instrs.len()];
        let live = self.body.live(last);
        let all = (0..live.len()).filter(|&i| live[i]).flat_map(|i| body.instrs[i].operands());
        all.chain(body.stores.iter().map(|s| s.value)).for_each(|v| uses[v as usize] += 1);
        if last {
            uses[live.len() - 1] += 1;
        }
        let squared = self.squared_differences(&live, &uses);
        let is_square = |i: usize| squared.iter().any(|s| s.square == i);
        let is_squared = |v: usize| squared.iter().any(|s| s.difference == v);
        for &i in points.iter().filter(|&&i| !is_square(i)) {
            let Some(mut whole) = self.formula(i) else { continue };
            let dtype = body.types[i].compute();
            let joined = |this: &Self, whole: &Formula| {
                whole.args.iter().enumerate().find_map(|(side, &v)| {
                    let v = v as usize;
                    let alone = (uses[v] == 1 || is_squared(v)) && this.class[v] == Class::Point;
                    let part = if alone { this.formula(v)? } else { return None };
                    // From an earlier pass, if no more registers are kept until this one than its own would be.
                    let n_varying = part.args.iter().filter(|&&v| this.class[v as usize] == Class::Point).count();
                    if this.level[v] < this.level[i] && n_varying > 1 {
                        return None;
                    }
                    let op = join(part.step, whole.step, side, dtype)?;
                    let others = whole.args.iter().enumerate().filter(|&(k, _)| k != side).map(|(_, &v)| v);
                    Some((v, Formula { step: Step::Fused(op), args: part.args.into_iter().chain(others).collect() }))
                })
            };
            while let Some((v, formula)) = joined(self, &whole) {
                self.folded[v] |= !is_squared(v);
                whole = formula;
            }
            if matches!(whole.step, Step::Fused(_)) {
                self.joined[i] = Some(whole);
            }
        }
        self.fold_squares(&squared, &live);
        for r in (0..live.len()).filter(|&r| live[r]) {
            if self.product[r].is_some() {
                continue;
            }
            let (Instr::Reduce(ReduceOp::Sum, v) | Instr::ColumnReduce(ReduceOp::Sum, v)) = body.instrs[r] else {
                continue;
            };
            let v = v as usize;
            let alone = uses[v] == 1 && self.class[v] == Class::Point && self.joined[v].is_none();
            let Instr::Op(PointOp::Mul, [x, y, _]) = body.instrs[v] else { continue };
            let float = matches!(body.types[v], DType::F32 | DType::F64);
            if alone && float && [x, y].iter().all(|&x| self.class[x as usize] == Class::Point) {
                self.folded[v] = true;
                self.product[r] = Some([x, y]);
            }
        }
    }

    /// The differences from what is once a row whose squares are summed: as a variance is found. They cost less to compute
    /// again than to keep.
    fn squared_differences(&self, live: &[bool], uses: &[usize]) -> Vec<Squared> {
        let body = self.body;
        let find = |sum: usize| {
            let Instr::Reduce(ReduceOp::Sum, square) = body.instrs[sum] else { return None };
            let Instr::Op(PointOp::Mul, [difference, other, _]) = body.instrs[square as usize] else { return None };
            let Instr::Op(PointOp::Sub, [x, y, _]) = body.instrs[difference as usize] else { return None };
            let [square, difference] = [square, difference].map(|v| v as usize);
            let classes = [x, y].map(|v| self.class[v as usize]) == [Class::Point, Class::Row];
            let same = other as usize == difference && body.types[square] == DType::F32;
            (live[sum] && uses[square] == 1 && same && classes).then_some(Squared { difference, square, sum })
        };
        (0..body.instrs.len()).filter_map(find).collect()
    }

    /// Sums the squares where they are summed only, if nothing is left that reads the differences themselves.
    fn fold_squares(&mut self, squared: &[Squared], live: &[bool]) {
        for &Squared { difference, square, sum } in squared {
            let reads = |i: usize| live[i] && !self.folded[i] && self.sources(i).contains(&(difference as Value));
            let Instr::Op(_, [x, y, _]) = self.body.instrs[difference] else { unreachable!("a difference is a step") };
            if self.only_read(difference) && (0..live.len()).all(|i| i == square || !reads(i)) {
                (self.folded[difference], self.folded[square]) = (true, true);
                (self.product[sum], self.squares[sum]) = (Some([x, y]), true);
            }
        }
    }

    /// A step as it is so far; of a sum or product, what varies comes first.
    fn formula(&self, i: usize) -> Option<Formula> {
        if let Some(joined) = &self.joined[i] {
            return Some(joined.clone());
        }
        let Instr::Op(op, args) = self.body.instrs[i] else { return None };
        let mut args = args[..op.row().arity].to_vec();
        let varies = |v: Value| self.class[v as usize] == Class::Point;
        if matches!(op, PointOp::Add | PointOp::Mul) && varies(args[1]) && !varies(args[0]) {
            args.swap(0, 1);
        }
        Some(Formula { step: Step::Op(op), args })
    }

    /// What a step reads.
    pub(super) fn sources(&self, i: usize) -> Vec<Value> {
        match (&self.joined[i], self.product[i]) {
            (Some(formula), _) => formula.args.clone(),
            (None, Some(factors)) => factors.to_vec(),
            (None, None) => self.body.instrs[i].operands(),
        }
    }

    pub(super) fn emit_stores(&mut self, pass: usize) {
        let body = self.body;
        for (s, store) in body.stores.iter().enumerate() {
            let (v, arg) = (store.value as usize, store.arg as usize);
            if self.class[v] == Class::Column || self.pass_of(store) != pass {
                continue;
            }
            if self.by_point(store) {
                let src = self.as_points(v, pass);
                let site = self.point_site(&store.index, &[], None);
                self.out.direct.resize(self.out.n_regs, None);
                let there = (0..body.instrs.len()).filter(|&u| u == v || self.early[u] == Some(s));
                let there: Vec<RegId> =
                    there.filter(|&u| self.direct(u) == Some(s)).filter_map(|u| self.reg[u]).collect();
                for reg in there {
                    self.out.direct[reg] = Some(self.out.puts.len());
                }
                let (updates, streams) = (self.args[arg].access == Access::ReadWrite, self.streams(arg));
                self.out.puts.push(Put { pass, site, arg, src, updates, streams });
            } else {
                let site = Site::new(&self.space.outer, &store.index, &[], None, |_| false);
                let src = self.reg[v].expect("computed in order");
                self.out.row_puts.push(Put { pass, site, arg, src, updates: false, streams: false });
            }
        }
    }

    pub(super) fn emit_column_stores(&mut self) {
        let outer = self.space.outer.len();
        for store in self.body.stores.iter().filter(|s| self.class[s.value as usize] == Class::Column) {
            let index = store.index.rename(&|axis| axis - outer);
            let site = Site::new(&self.space.row, &index, &[], None, |_| false);
            let (arg, src) = (store.arg as usize, self.reg[store.value as usize].expect("set before all passes"));
            self.out.column_puts.push(Put { pass: 0, site, arg, src, updates: false, streams: false });
        }
    }

    /// True iff a store happens at every point rather than once a row.
    pub(super) fn by_point(&self, store: &Store) -> bool {
        let (outer, row) = (self.space.outer.len(), self.space.row.len());
        let in_row = store.index.uses(&|a| (outer..outer + row).contains(&a));
        self.class[store.value as usize] == Class::Point || in_row || row == 0
    }

    /// True iff an argument is stored past the caches: what is read next has driven it out of them before anything reads
    /// it, and its lines need not be fetched to be overwritten.
    pub(super) fn streams(&self, arg: usize) -> bool {
        let Arg { dtype, numel, access } = self.args[arg];
        self.stream && access == Access::Write && is_lane(dtype) && numel * dtype.size_bytes() >= STREAM
    }

    /// The store in whose memory a value may be computed: its lanes are stored as they are, where nothing is loaded.
    pub(super) fn direct(&self, v: usize) -> Option<usize> {
        let own = |store: &Store| {
            let arg = &self.args[store.arg as usize];
            let same = is_lane(arg.dtype) && arg.dtype == self.body.types[v].compute();
            let free = match arg.access {
                Access::Write => !self.streams(store.arg as usize),
                Access::ReadWrite => self.updates(v, store),
                Access::Read => unreachable!("nothing is stored there"),
            };
            store.value as usize == v && self.by_point(store) && same && free
        };
        if self.class[v] != Class::Point {
            return None;
        }
        self.body.stores.iter().position(own).or(self.early[v])
    }

    /// Finds the values that are divided or multiplied into a result in a later pass: they are computed in its memory.
    pub(super) fn find_early(&mut self) {
        let body = self.body;
        for (s, store) in body.stores.iter().enumerate() {
            let v = store.value as usize;
            let Some(Formula { step: Step::Op(op), args }) = self.formula(v) else { continue };
            let inner = match op {
                PointOp::Div => Fused::Quotient,
                PointOp::Mul => Fused::Product,
                _ => continue,
            };
            let u = args[0] as usize;
            let reads = |i: usize| self.sources(i).contains(&(u as Value));
            let alone = (0..body.instrs.len())
                .filter(|&i| !self.folded[i] && reads(i))
                .all(|i| i == v || (self.reduces(i) && self.level[i] <= self.level[v]));
            let new = self.args[store.arg as usize].access == Access::Write && self.direct(v) == Some(s);
            let dtype = body.types[v].compute();
            let same = dtype == DType::F32 && self.class[u] == Class::Point && body.types[u].compute() == dtype;
            let computed = matches!(body.instrs[u], Instr::Op(..)) && !self.folded[u] && self.direct(u).is_none();
            let earlier = self.level[u] < self.level[v] && self.class[args[1] as usize] != Class::Point;
            if self.whole && alone && new && same && computed && earlier && self.only_read(u) {
                self.early[u] = Some(s);
                self.joined[v] = Some(Formula { step: Step::Fused(inner), args });
            }
        }
    }

    /// True iff a step is a reduction, along rows or over them.
    pub(super) fn reduces(&self, i: usize) -> bool {
        matches!(self.body.instrs[i], Instr::Reduce(..) | Instr::ColumnReduce(..))
    }

    /// True iff nothing but steps and reductions reads a value.
    fn only_read(&self, v: usize) -> bool {
        self.body.stores.iter().all(|s| s.value as usize != v) && !(self.wanted && v + 1 == self.body.instrs.len())
    }

    /// True iff a value is a formula of what its store overwrites, where the result may be, and nothing else reads that.
    pub(super) fn updates(&self, v: usize, store: &Store) -> bool {
        let body = self.body;
        let Some(Formula { step: Step::Fused(op), args }) = &self.joined[v] else { return false };
        let Some(own) = op.own().map(|k| args[k]) else { return false };
        let loads = |i: &Instr| matches!(i, Instr::Load { arg, .. } if *arg == store.arg);
        let same = match &body.instrs[own as usize] {
            Instr::Load { arg, index, valid, gather: None } => {
                *arg == store.arg && *index == store.index && valid.is_empty()
            }
            _ => false,
        };
        let reads = body.instrs.iter().flat_map(|i| i.operands()).chain(body.stores.iter().map(|s| s.value));
        let alone = body.instrs.iter().filter(|i| loads(i)).count() == 1 && reads.filter(|&r| r == own).count() == 1;
        same && alone && self.out.passes.len() == 1
    }

    /// True iff a value's register may stand for an argument's memory.
    pub(super) fn may_lend(&self, v: usize, class: Class, arg: usize) -> bool {
        // What is overwritten at the end of a tile must not be stored elsewhere or reduced after that.
        let body = self.body;
        let mut reductions = (0..body.instrs.len()).filter(|&i| self.reduces(i));
        let reduced = reductions.any(|r| self.sources(r).contains(&(v as Value)));
        let kept = reduced || body.stores.iter().any(|s| s.value as usize == v);
        let moved = kept && self.args[arg].access != Access::Read;
        let wanted = self.wanted && v + 1 == self.body.instrs.len();
        class == Class::Point && is_lane(self.args[arg].dtype) && !moved && !wanted && self.direct(v).is_none()
    }

    /// Puts the steps of an optimizer's update together.
    pub(super) fn join_updates(&mut self) {
        let out = &mut self.out;
        let [pass] = &mut out.passes[..] else { return };
        let reduced = pass.reductions.iter().chain(&pass.columns).flat_map(|r| std::iter::once(r.src).chain(r.by));
        let stored = out.puts.iter().chain(&out.row_puts).map(|put| put.src);
        let kept: Vec<RegId> = reduced.chain(stored).chain(out.last).collect();
        let (direct, puts) = (&out.direct, &out.puts);
        let in_place = |reg: RegId| direct[reg].is_some_and(|put| puts[put].updates);
        pass.points = adam::join(std::mem::take(&mut pass.points), &kept, &in_place);
    }

    /// Finds the loads that depend on nothing but what comes again in each tile.
    pub(super) fn find_again(&mut self, from: Option<usize>) {
        let Some(from) = from else { return };
        for i in 0..self.body.instrs.len() {
            let load = matches!(self.body.instrs[i], Instr::Load { gather: None, .. });
            self.again[i] = load
                && self.class[i] == Class::Point
                && self.axes[i] & ((1 << from) - 1) == 0
                && self.direct(i).is_none();
        }
    }

    /// Marks what is read only by steps that take a single value as well.
    pub(super) fn mark_single(&mut self) {
        let out = &mut self.out;
        out.single = vec![true; out.n_regs];
        let indices = out.passes.iter().flat_map(|pass| &pass.points).filter_map(|micro| match micro {
            Micro::Load { gather, .. } => *gather,
            _ => None,
        });
        // What there is once a row is repeated or stored row by row.
        let rows = out.passes.iter().flat_map(|pass| &pass.rows).filter(|m| !matches!(m, Micro::Expand { .. }));
        let rows = rows.map(Micro::dst);
        let whole = indices.chain(rows).chain(out.puts.iter().map(|put| put.src)).chain(out.last);
        whole.for_each(|reg| out.single[reg] = false);
    }
}
