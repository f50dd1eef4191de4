//! Rows whose elements are neighbours in memory: several lanes a row, strips of it in registers from the first pass to
//! the last.
//!
//! A row that fits is read once, however many passes there are over it. All loads of a pass stand before its
//! arithmetic, and the text of a pass is unrolled, since drivers keep in registers only what has no index.

use kiln_ir::kernel::{Instr, Store, Value};
use kiln_ir::{DType, ReduceOp};

use super::Target;
use super::code::Code;
use super::meet::{Meeting, Partial};
use super::reduce::Reduction;
use super::rows::{Rows, decompose, weight};
use super::strip::Strip;

/// Strips of a row that a lane should have, or twice as many elements; a pass has no loop up to twice as many.
const STRIPS: usize = 4;

/// Lanes of a row, where it is long enough: neighbours that ask for whole lines, and not so many that all wait; and of one
/// that is read anew in each pass, so that fewer of them are in the cache at once.
const LANES: usize = 16;
const MAX_LANES: u32 = 512;
const MAX_LANES_ANEW: u32 = 1024;

/// Registers that a lane fills with what it loaded.
const MAX_HELD: usize = 48;

/// Lines of a pass beyond which its text is a loop after all.
const MAX_LINES: usize = 2048;

/// Invocations that a workgroup has at least, where rows are short.
const SIZE: usize = 128;

/// Elements up to which one invocation does a row by itself, where there are so many rows.
const SHORT: usize = 32;
const MANY: usize = 1 << 14;

/// A loop over rows in strips.
pub(crate) struct Held<'a> {
    rows: &'a Rows<'a>,
    strip: Strip<'a>,
    /// Strips of a row, and how many of them a lane does at once.
    n_strips: usize,
    at_once: usize,
    /// True for loads that stay in registers from the first pass on.
    held: Vec<bool>,
    meeting: Meeting,
    /// Workgroups of the dispatch.
    pub(crate) workgroups: u32,
    /// True iff workgroups come back for more.
    strides: bool,
}

impl<'a> Held<'a> {
    /// The loop in strips, if it can be; in workgroups of at least `least` invocations.
    pub(crate) fn new(rows: &'a Rows<'a>, target: &Target, least: usize) -> Option<Held<'a>> {
        let rank = rows.scope.axes.dims.len();
        if rows.phases.is_empty() || rank == rows.outer || rows.len < 8 || rows.n_rows == 0 {
            return None;
        }
        let (each, once) = rows.stores();
        let mut strip = Strip::new(&rows.scope, rank - 1, false);
        let apart = |v: usize| rows.is_needed(v) && strip.is_apart(v);
        // Elements that lie apart are neighbours of those of other lanes.
        if (0..strip.differs.len()).any(apart) && each.iter().all(|s| rows.per_word(s) == 1) {
            strip = strip.in_elements();
        }
        let alone = |s: &&&Store| rows.per_word(s) > 1 && !strip.is_whole_store(s);
        if each.iter().any(|s| alone(&s)) {
            return None;
        }
        let n_strips = rows.len / strip.width;
        let strips = if strip.width == 1 { 2 * STRIPS } else { STRIPS };
        let anew = n_strips > 2 * strips * MAX_LANES as usize;
        let most = 1 << target.max_invocations.min(if anew { MAX_LANES_ANEW } else { MAX_LANES }).ilog2();
        let least_lanes = n_strips.next_power_of_two().min(LANES);
        let mut lanes = n_strips.div_ceil(strips).next_power_of_two().clamp(least_lanes.min(most), most);
        while lanes < most && lanes * 2 <= n_strips && lanes * rows.n_rows < target.busy() {
            lanes *= 2;
        }
        if rows.len <= SHORT && rows.n_rows >= MANY {
            lanes = 1;
        }
        let turns = n_strips.div_ceil(lanes);
        let passes: Vec<Vec<bool>> = rows.passes();
        let again = |v: usize| passes.iter().filter(|pass| pass[v]).count() > 1;
        let mut held: Vec<bool> =
            (0..strip.differs.len()).map(|v| again(v) && is_loaded_first(rows, &strip, v)).collect();
        let n_held = held.iter().filter(|h| **h).count();
        let lines = |at_once: usize| {
            let steps = |pass: &Vec<bool>| weight(&rows.scope.body.instrs, |v| pass[v]);
            passes.iter().map(steps).max().unwrap_or(0) * at_once * strip.width
        };
        let whole = turns <= 2 * strips && lines(turns) <= MAX_LINES;
        let at_once = if whole { turns } else { strips.min(turns) };
        if lines(at_once) > MAX_LINES {
            return None;
        }
        if !whole || n_held * turns * strip.width > MAX_HELD {
            held.fill(false);
        }
        // Rows that share a word share a workgroup.
        let together = once.iter().map(|s| rows.per_word(s)).max().unwrap_or(1);
        let size = (lanes * together).max(SIZE).max(least);
        if size > 1 << target.max_invocations.ilog2() {
            return None;
        }
        let items = rows.n_rows.div_ceil(size / lanes);
        let workgroups = items.min(target.max_workgroups as usize);
        let held = Held {
            rows,
            strip,
            n_strips,
            at_once,
            held,
            meeting: Meeting { size, lanes, rows_first: false },
            workgroups: workgroups as u32,
            strides: items > workgroups,
        };
        (super::plan::bytes(&held.arrays()) <= target.max_workgroup_bytes as usize).then_some(held)
    }

    /// How it is done, for people.
    pub(crate) fn describe(&self) -> String {
        let turns = self.n_strips.div_ceil(self.meeting.lanes);
        let (lanes, width) = (self.meeting.lanes, self.strip.width);
        let kept = if self.held.contains(&true) { ", kept in registers" } else { "" };
        format!("{lanes} invocations a row of {}, each {turns} × {width} elements{kept}", self.rows.len)
    }

    /// Invocations of a workgroup.
    pub(crate) fn size(&self) -> usize {
        self.meeting.size
    }

    /// Declarations of workgroup memory.
    pub(crate) fn arrays(&self) -> Vec<String> {
        let phases: Vec<Vec<Partial>> = self.rows.phases.iter().map(|phase| partials(phase)).collect();
        let mut arrays = self.meeting.arrays(&phases);
        let n = self.rows_at_once();
        arrays.extend(self.packed().iter().map(|s| format!("var<workgroup> once_{}: array<u32, {n}>;", s.arg)));
        arrays
    }

    /// Turns of all loops of one invocation, about.
    pub(crate) fn turns(&self) -> usize {
        self.rows.n_rows.div_ceil(self.workgroups as usize * self.rows_at_once())
            * (self.n_strips / self.meeting.lanes + 32)
    }

    /// Takes from `wide` the arguments that are not always taken in strips.
    pub(crate) fn narrow(&self, wide: &mut [bool]) {
        self.strip.narrow(wide, &|v| self.rows.is_needed(v), true);
    }

    /// Leaves only these arguments to be taken in strips; false iff that is too few.
    pub(crate) fn keep(&mut self, wide: &[bool]) -> bool {
        self.strip.keep(wide);
        for v in 0..self.held.len() {
            self.held[v] &= is_loaded_first(self.rows, &self.strip, v);
        }
        let (each, _) = self.rows.stores();
        each.iter().all(|s| self.rows.per_word(s) == 1 || self.strip.is_whole_store(s))
    }

    fn rows_at_once(&self) -> usize {
        self.meeting.size / self.meeting.lanes
    }

    /// What a workgroup does, whose number is `start`.
    pub(crate) fn body(&self, code: &mut Code, start: &str) {
        let (lanes, n) = (self.meeting.lanes, self.rows_at_once());
        match n {
            1 => code.line("let lane = local;"),
            _ => {
                code.line(format!("let lane = local % {lanes}u;"));
                code.line(format!("let slot = local / {lanes}u;"));
            }
        }
        let items = self.rows.n_rows.div_ceil(n);
        match self.strides {
            true => code.open(format!("for (var item = {start}; item < {items}u; item += {}u)", self.workgroups)),
            false => code.line(format!("let item = {start};")),
        }
        let ragged = super::writer::row_of_item(code, n, self.rows.n_rows);
        self.row(code, ragged);
        if self.strides {
            code.close();
        }
    }

    /// One row: what stays of it, passes that reduce, then stores.
    fn row(&self, code: &mut Code, ragged: bool) {
        self.rows.coordinates(code, false, "row");
        self.rows.once(code, 0);
        if self.in_one_go() {
            (0..self.at_once).for_each(|k| self.place(code, k, "lane"));
            (0..self.at_once).for_each(|k| self.loads(code, k, &|v| self.held[v]));
        }
        for (n, phase) in self.rows.phases.iter().enumerate() {
            let partials = partials(phase);
            partials.iter().for_each(|(r, acc)| r.start(code, acc));
            self.pass(code, self.rows.pass(phase.iter().map(|r| r.operand)), Some(phase), &[]);
            let again = self.strides || n > 0;
            self.meeting.meet(code, &partials, again);
            partials.iter().for_each(|(r, acc)| r.finish(code, acc, &format!("{acc}_at")));
            self.rows.once(code, n + 1);
        }
        let (each, once) = self.rows.stores();
        if !each.is_empty() {
            if ragged {
                code.open("if (live)");
            }
            self.pass(code, self.rows.pass(each.iter().map(|s| s.value)), None, &each);
            if ragged {
                code.close();
            }
        }
        self.packed_stores(code);
        if once.iter().any(|s| self.rows.per_word(s) == 1) {
            code.open(if ragged { "if (lane == 0u && live)" } else { "if (lane == 0u)" });
            for store in once.iter().filter(|s| self.rows.per_word(s) == 1) {
                let value = self.rows.scope.stored(store);
                code.line(format!("a{}[{}] = {value};", store.arg, self.rows.scope.axes.index(&store.index)));
            }
            code.close();
        }
    }

    /// The stores of rows of which several share a word.
    fn packed(&self) -> Vec<&'a Store> {
        let (_, once) = self.rows.stores();
        once.into_iter().filter(|s| self.rows.per_word(s) > 1).collect()
    }

    /// Stores of rows that share words: all are published, then some invocations write a word each.
    fn packed_stores(&self, code: &mut Code) {
        let (packed, n) = (self.packed(), self.rows_at_once());
        if packed.is_empty() {
            return;
        }
        if self.strides {
            code.line("workgroupBarrier(); // all have read the last rows");
        }
        code.open("if (lane == 0u)");
        packed.iter().for_each(|s| code.line(format!("once_{}[slot] = {};", s.arg, self.rows.scope.stored(s))));
        code.close();
        code.line("workgroupBarrier(); // publishes what is kept of each row");
        for store in packed {
            let (arg, per) = (store.arg, self.rows.per_word(store));
            let (here, all) = (n / per, self.rows.n_rows.div_ceil(per));
            code.open(format!("if (local < {here}u && item * {here}u + local < {all}u)"));
            let part = |i: usize| format!("once_{arg}[local * {per}u + {i}u] << {}u", i * (32 / per));
            let parts: Vec<String> = (0..per).map(|i| format!("({})", part(i))).collect();
            code.line(format!("a{arg}[item * {here}u + local] = {};", parts.join(" | ")));
            code.close();
        }
    }

    /// True iff a lane does all its strips at once.
    fn in_one_go(&self) -> bool {
        self.at_once * self.meeting.lanes >= self.n_strips
    }

    /// Names the strip that a lane does as its `k`-th, counted from `first`, and its coordinates.
    fn place(&self, code: &mut Code, k: usize, first: &str) {
        let plus = if k == 0 { String::new() } else { format!(" + {}u", k * self.meeting.lanes) };
        if self.is_ragged(k) {
            code.line(format!("let live_{k} = {first}{plus} < {}u;", self.n_strips));
            code.line(format!("let strip_{k} = min({first}{plus}, {}u);", self.n_strips - 1));
        } else {
            code.line(format!("let strip_{k} = {first}{plus};"));
        }
        let axes = self.strip.axes(&format!("_{k}"), &|axis| axis >= self.rows.outer);
        let used = |axis| self.rows.uses(axis);
        decompose(code, &axes, self.rows.outer..axes.dims.len(), &format!("strip_{k}"), &used);
    }

    /// True iff the `k`-th strip may lie beyond the row.
    fn is_ragged(&self, k: usize) -> bool {
        match self.in_one_go() {
            true => (k + 1) * self.meeting.lanes > self.n_strips,
            false => !self.n_strips.is_multiple_of(self.at_once * self.meeting.lanes),
        }
    }

    fn loads(&self, code: &mut Code, k: usize, which: &dyn Fn(usize) -> bool) {
        let suffix = format!("_{k}");
        let axes = self.strip.axes(&suffix, &|axis| axis >= self.rows.outer);
        (0..self.held.len()).filter(|&v| which(v)).for_each(|v| self.strip.load(code, &axes, v, &suffix));
    }

    /// A pass over the row that makes the steps `wanted`, and reduces or stores.
    fn pass(&self, code: &mut Code, wanted: Vec<bool>, phase: Option<&[Reduction]>, stores: &[&Store]) {
        let lanes = self.meeting.lanes;
        let first = |v: usize| wanted[v] && !self.held[v] && is_loaded_first(self.rows, &self.strip, v);
        let is_block = !self.in_one_go() || (0..wanted.len()).any(first);
        if self.in_one_go() && is_block {
            code.open("");
        } else if is_block {
            let step = self.at_once * lanes;
            code.open(format!("for (var first = lane; first < {}u; first += {step}u)", self.end(step)));
            (0..self.at_once).for_each(|k| self.place(code, k, "first"));
        }
        (0..self.at_once).for_each(|k| self.loads(code, k, &first));
        // Many turns add up what each turn sums, so that rounding errors grow with the turns alone.
        let in_parts = |r: &Reduction| !self.in_one_go() && r.op == ReduceOp::Sum && r.dtype == DType::F32;
        let parts: Vec<&Reduction> = phase.unwrap_or(&[]).iter().filter(|r| in_parts(r)).collect();
        parts.iter().for_each(|r| r.start(code, &format!("part{}", r.value)));
        for k in 0..self.at_once {
            let suffix = format!("_{k}");
            let axes = self.strip.axes(&suffix, &|axis| axis >= self.rows.outer);
            code.open(if self.is_ragged(k) { format!("if (live_{k})") } else { String::new() });
            stores.iter().for_each(|s| self.strip.open_store(code, s));
            self.strip.steps(
                code,
                (&axes, &suffix),
                &|v| wanted[v],
                &|v| self.held[v] || first(v),
                &|_: Value, _: usize| None,
                &mut |code, c| {
                    for r in phase.unwrap_or(&[]) {
                        let acc = if in_parts(r) { format!("part{}", r.value) } else { acc(r) };
                        r.take(code, &acc, &self.element(k, c));
                    }
                    stores.iter().for_each(|s| self.strip.put(code, &axes, s, c, None));
                },
            );
            stores.iter().for_each(|s| self.strip.close_store(code, &axes, s));
            code.close();
        }
        parts.iter().for_each(|r| r.combine(code, &acc(r), &format!("part{}", r.value), "0u"));
        if is_block {
            code.close();
        }
    }

    /// Where a loop ends whose last turn may be ragged: all lanes take it, since their strips are guarded.
    fn end(&self, step: usize) -> usize {
        self.n_strips.next_multiple_of(step)
    }

    /// The number of an element in its row.
    fn element(&self, k: usize, c: usize) -> String {
        match (self.strip.width, c) {
            (1, _) => format!("strip_{k}"),
            (width, 0) => format!("strip_{k} * {width}u"),
            (width, c) => format!("strip_{k} * {width}u + {c}u"),
        }
    }
}

/// True for loads that wait for nothing and are one value, or one strip.
fn is_loaded_first(rows: &Rows, strip: &Strip, v: usize) -> bool {
    let waits = !matches!(rows.scope.body.instrs[v], Instr::Load { gather: None, .. });
    rows.varies_in_row(v) && !waits && (strip.width == 1 || strip.is_whole(v) || !strip.differs[v])
}

fn acc(r: &Reduction) -> String {
    format!("acc{}", r.value)
}

fn partials(phase: &[Reduction]) -> Vec<Partial> {
    phase.iter().map(|r| (*r, acc(r))).collect()
}
