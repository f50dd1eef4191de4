//! Sums down columns: neighbouring rows are neighbours in memory, so an invocation has a strip of rows.
//!
//! A workgroup is a few strips wide, enough for whole lines of memory, and many lanes high.

use kiln_ir::kernel::{Instr, Value};
use kiln_ir::{DType, ReduceOp};

use super::code::Code;
use super::looped::columns;
use super::meet::{Meeting, Partial};
use super::reduce::Reduction;
use super::rows::{Rows, decompose, weight};
use super::strip::Strip;
use super::{Schedule, Target};

/// Strips side by side that a workgroup has at least: 64 bytes of single precision, half a line of memory.
const STRIPS: usize = 4;

/// Strips that a lane loads, of all arguments together, before it adds the first.
const AT_ONCE: usize = 8;

/// Elements that an invocation should have.
const ELEMENTS: usize = 8;

/// Turns after which parts are summed by themselves, for the sake of rounding errors.
const MANY_TURNS: usize = 64;

/// Steps beyond which arithmetic takes longer than memory.
const MAX_STEPS: usize = 64;

/// A loop over columns in strips.
pub(crate) struct Columns<'a> {
    rows: &'a Rows<'a>,
    strip: Strip<'a>,
    n_strips: usize,
    at_once: usize,
    meeting: Meeting,
    /// Workgroups of the dispatch.
    pub(crate) workgroups: u32,
    /// True iff workgroups come back for more.
    strides: bool,
}

impl<'a> Columns<'a> {
    /// The loop in strips of columns, if it can be: it reduces once, and keeps what it reduced.
    pub(crate) fn new(rows: &'a Rows<'a>, target: &Target, least: usize) -> Option<Columns<'a>> {
        let rank = rows.scope.axes.dims.len();
        let (each, once) = rows.stores();
        if rows.phases.len() != 1 || !each.is_empty() || !columns(rows) || rank == rows.outer || rows.n_rows == 0 {
            return None;
        }
        let strip = Strip::new(&rows.scope, rows.outer - 1, true);
        let pass = &rows.passes()[0];
        let steps = weight(&rows.scope.body.instrs, |v| pass[v]);
        let alone = once.iter().any(|s| rows.per_word(s) > 1 && !strip.is_whole_store(s));
        let n_whole = (0..strip.differs.len()).filter(|&v| strip.is_whole(v) && rows.varies_in_row(v)).count();
        if strip.width == 1 || alone || steps > MAX_STEPS || n_whole == 0 {
            return None;
        }
        let size = 256.max(least).min(1 << target.max_invocations.ilog2());
        let (n_strips, power) = (rows.n_rows / strip.width, |x: usize| 1usize << x.max(1).ilog2());
        let lanes = power(target.busy() / n_strips).min(power(rows.len / ELEMENTS)).clamp(1, size / STRIPS);
        let lanes = if target.schedule == Schedule::Shared { lanes.max(4) } else { lanes };
        let items = n_strips.div_ceil(size / lanes);
        let workgroups = items.min(target.max_workgroups as usize);
        let columns = Columns {
            rows,
            strip,
            n_strips,
            at_once: AT_ONCE.div_ceil(n_whole).min(rows.len.div_ceil(lanes)).max(1),
            meeting: Meeting { size, lanes, rows_first: true },
            workgroups: workgroups as u32,
            strides: items > workgroups,
        };
        (super::plan::bytes(&columns.arrays()) <= target.max_workgroup_bytes as usize).then_some(columns)
    }

    /// How it is done, for people.
    pub(crate) fn describe(&self) -> String {
        format!("{} invocations a row of {}, each {} rows", self.meeting.lanes, self.rows.len, self.strip.width)
    }

    /// Invocations of a workgroup.
    pub(crate) fn size(&self) -> usize {
        self.meeting.size
    }

    /// Declarations of workgroup memory.
    pub(crate) fn arrays(&self) -> Vec<String> {
        self.meeting.arrays(&[self.partials()])
    }

    /// Turns of all loops of one invocation, about.
    pub(crate) fn turns(&self) -> usize {
        let items = self.n_strips.div_ceil(self.meeting.size / self.meeting.lanes);
        items.div_ceil(self.workgroups as usize) * (self.rows.len / self.meeting.lanes + 16)
    }

    /// Takes from `wide` the arguments that are not always taken in strips.
    pub(crate) fn narrow(&self, wide: &mut [bool]) {
        self.strip.narrow(wide, &|v| self.rows.is_needed(v), true);
    }

    /// Leaves only these arguments to be taken in strips; false iff that is too few.
    pub(crate) fn keep(&mut self, wide: &[bool]) -> bool {
        self.strip.keep(wide);
        self.rows.stores().1.iter().all(|s| self.rows.per_word(s) == 1 || self.strip.is_whole_store(s))
    }

    /// Each reduction, once for each row of a strip.
    fn partials(&self) -> Vec<Partial> {
        let of_strip = |r: &Reduction| (0..self.strip.width).map(|c| (*r, acc(r, c))).collect::<Vec<_>>();
        self.rows.phases[0].iter().flat_map(of_strip).collect()
    }

    /// What a workgroup does, whose number is `start`.
    pub(crate) fn body(&self, code: &mut Code, start: &str) {
        let n = self.meeting.size / self.meeting.lanes;
        code.line(format!("let lane = local / {n}u;"));
        code.line(format!("let slot = local % {n}u;"));
        let items = self.n_strips.div_ceil(n);
        match self.strides {
            true => code.open(format!("for (var item = {start}; item < {items}u; item += {}u)", self.workgroups)),
            false => code.line(format!("let item = {start};")),
        }
        let ragged = super::writer::row_of_item(code, n, self.n_strips);
        let axes = self.strip.axes("", &|_| false);
        decompose(code, &axes, 0..self.rows.outer, "row", &|axis| self.rows.uses(axis));
        (0..self.strip.differs.len())
            .filter(|&v| self.is_first(v))
            .for_each(|v| self.rows.scope.step(code, v as Value));
        (0..self.strip.differs.len())
            .filter(|&v| self.is_invariant(v))
            .for_each(|v| self.strip.load(code, &axes, v, ""));
        let partials = self.partials();
        partials.iter().for_each(|(r, acc)| r.start(code, acc));
        self.pass(code);
        self.meeting.meet(code, &partials, self.strides);
        self.stores(code, ragged);
        if self.strides {
            code.close();
        }
    }

    /// True for steps that the rows of a strip share, and their elements too.
    fn is_first(&self, v: usize) -> bool {
        self.rows.is_needed(v) && !self.strip.differs[v] && !self.rows.varies_in_row(v)
    }

    /// True for loads of a strip that is the same for all elements of its columns.
    fn is_invariant(&self, v: usize) -> bool {
        let waits = !matches!(self.rows.scope.body.instrs[v], Instr::Load { gather: None, .. });
        self.rows.is_needed(v) && !waits && self.strip.is_whole(v) && !self.rows.varies_in_row(v)
    }

    /// The pass down the columns, several elements at once.
    fn pass(&self, code: &mut Code) {
        let (lanes, len, outer) = (self.meeting.lanes, self.rows.len, self.rows.outer);
        let phase = &self.rows.phases[0];
        let step = lanes * self.at_once;
        let ragged = !len.is_multiple_of(step);
        code.open(format!("for (var first = lane; first < {}u; first += {step}u)", len.next_multiple_of(step)));
        let wanted = self.rows.made_of(phase.iter().map(|r| r.operand));
        let wanted = |v: usize| wanted[v] && !self.is_first(v);
        let first = |v: usize| {
            let waits = !matches!(self.rows.scope.body.instrs[v], Instr::Load { gather: None, .. });
            wanted(v) && !waits && !self.is_invariant(v) && (self.strip.is_whole(v) || !self.strip.differs[v])
        };
        let invariant =
            |v: Value, c: usize| self.is_invariant(v as usize).then(|| self.strip.component(v as usize, "", c));
        for k in 0..self.at_once {
            let plus = if k == 0 { String::new() } else { format!(" + {}u", k * lanes) };
            match ragged {
                true => code.line(format!("let j_{k} = min(first{plus}, {}u);", len - 1)),
                false => code.line(format!("let j_{k} = first{plus};")),
            }
            let suffix = format!("_{k}");
            let axes = self.strip.axes(&suffix, &|axis| axis >= outer);
            let used = |axis| self.rows.uses(axis);
            decompose(code, &axes, outer..axes.dims.len(), &format!("j_{k}"), &used);
            (0..self.strip.differs.len()).filter(|&v| first(v)).for_each(|v| self.strip.load(code, &axes, v, &suffix));
        }
        let in_parts = |r: &Reduction| len / lanes > MANY_TURNS && r.op == ReduceOp::Sum && r.dtype == DType::F32;
        let name = |r: &Reduction, c| if in_parts(r) { format!("part{}_{c}", r.value) } else { acc(r, c) };
        let all = || phase.iter().flat_map(|r| (0..self.strip.width).map(move |c| (r, c)));
        all().filter(|(r, _)| in_parts(r)).for_each(|(r, c)| r.start(code, &name(r, c)));
        for k in 0..self.at_once {
            let plus = if k == 0 { String::new() } else { format!(" + {}u", k * lanes) };
            code.open(if ragged { format!("if (first{plus} < {len}u)") } else { String::new() });
            let suffix = format!("_{k}");
            let axes = self.strip.axes(&suffix, &|axis| axis >= outer);
            self.strip.steps(code, (&axes, &suffix), &wanted, &first, &invariant, &mut |code, c| {
                phase.iter().for_each(|r| r.take(code, &name(r, c), &format!("j_{k}")));
            });
            code.close();
        }
        all().filter(|(r, _)| in_parts(r)).for_each(|(r, c)| r.combine(code, &acc(r, c), &name(r, c), "0u"));
        code.close();
    }

    /// What is kept of a strip of rows, by the first lane.
    fn stores(&self, code: &mut Code, ragged: bool) {
        let (_, once) = self.rows.stores();
        code.open(if ragged { "if (lane == 0u && live)" } else { "if (lane == 0u)" });
        let axes = self.strip.axes("", &|_| false);
        once.iter().for_each(|s| self.strip.open_store(code, s));
        let wanted = |v: usize| self.rows.is_needed(v) && !self.rows.varies_in_row(v) && !self.is_first(v);
        let finished = |v: Value, c: usize| {
            if self.is_invariant(v as usize) {
                return Some(self.strip.component(v as usize, "", c));
            }
            let r = self.rows.phases[0].iter().find(|r| r.value == v)?;
            Some(r.finished(&acc(r, c), &format!("{}_at", acc(r, c))))
        };
        self.strip.steps(code, (&axes, ""), &wanted, &|_| false, &finished, &mut |code, c| {
            once.iter().for_each(|s| self.strip.put(code, &axes, s, c, None));
        });
        once.iter().for_each(|s| self.strip.close_store(code, &axes, s));
        code.close();
    }
}

fn acc(r: &Reduction, c: usize) -> String {
    format!("acc{}_{c}", r.value)
}
