//! Loops without reductions: a strip of neighbours an invocation, or a few elements where strips are no help.
//!
//! All loads stand before the first step, so that enough of memory is under way. Neighbouring invocations have
//! neighbouring strips.

use kiln_ir::kernel::{Instr, Store, Value};

use super::Target;
use super::code::Code;
use super::rows::{Rows, decompose, reached, weight};
use super::strip::Strip;

/// Bytes that an invocation of a large loop asks for at once of each argument: as one strip, or as several elements
/// that neighbouring invocations have beside each other. Both move memory at the rate of a copy; more bytes do not help,
/// and fewer take half as long again.
const BYTES: usize = 16;

/// Steps of a body beyond which arithmetic takes longer than memory, and its text would be four times as long.
const MAX_STEPS: usize = 96;

/// A loop over points, in strips along its last axis.
pub(crate) struct Points<'a> {
    rows: &'a Rows<'a>,
    strip: Strip<'a>,
    /// Steps that stores need.
    wanted: Vec<bool>,
    /// Strips in all, and of an invocation.
    n_strips: usize,
    each: usize,
    /// Invocations of a workgroup.
    pub(crate) size: usize,
    /// Workgroups of the dispatch.
    pub(crate) workgroups: u32,
    /// True iff workgroups come back for more.
    strides: bool,
}

impl<'a> Points<'a> {
    /// The loop in strips, if it can be: all that is stored lies along the last axis.
    pub(crate) fn new(rows: &'a Rows<'a>, target: &Target, least: usize) -> Option<Points<'a>> {
        let rank = rows.scope.axes.dims.len();
        let body = rows.scope.body;
        if !rows.phases.is_empty() || rank == 0 || rows.outer != rank || rows.n_rows == 0 {
            return None;
        }
        let mut strip = Strip::new(&rows.scope, rank - 1, false);
        let wanted = reached(body.stores.iter().map(|s| s.value), &body.instrs);
        let steps = weight(&body.instrs, |v| wanted[v] && strip.differs[v]);
        let packed = body.stores.iter().any(|s| rows.per_word(s) > 1);
        let apart = |v: usize| wanted[v] && strip.is_apart(v);
        let whole = body.stores.iter().all(|s| strip.is_whole_store(s));
        if packed && !whole || steps > MAX_STEPS {
            return None;
        }
        // Elements that lie apart are neighbours of those of other invocations.
        if !whole || (!packed && (0..wanted.len()).any(apart)) {
            strip = strip.in_elements();
        }
        let size = 256.max(least).min(1 << target.max_invocations.ilog2());
        let n_strips = rows.n_rows / strip.width;
        let stored = |s: &Store| rows.dtype(s).size_bytes().min(4);
        let bytes = strip.width * body.stores.iter().map(stored).max().unwrap_or(4);
        // Up to here a device has no more invocations than it can keep.
        let each = if n_strips > 2 * target.busy() { BYTES.div_ceil(bytes).min(BYTES / 4) } else { 1 };
        let items = n_strips.div_ceil(size * each);
        let workgroups = items.min(target.max_workgroups as usize);
        let strides = items > workgroups;
        Some(Points { rows, strip, wanted, n_strips, each, size, workgroups: workgroups as u32, strides })
    }

    /// How it is done, for people.
    pub(crate) fn describe(&self) -> String {
        match self.each {
            1 if self.strip.width == 1 => "one invocation a point".into(),
            1 => format!("{} points an invocation", self.strip.width),
            n => format!("{n} × {} points an invocation", self.strip.width),
        }
    }

    /// Takes from `wide` the arguments that are not always taken in strips.
    pub(crate) fn narrow(&self, wide: &mut [bool]) {
        self.strip.narrow(wide, &|v| self.wanted[v], true);
    }

    /// Leaves only these arguments to be taken in strips; false iff that is too few.
    pub(crate) fn keep(&mut self, wide: &[bool]) -> bool {
        self.strip.keep(wide);
        self.strip.width == 1 || self.rows.scope.body.stores.iter().all(|s| self.strip.is_whole_store(s))
    }

    /// What a workgroup does, whose number is `start`.
    pub(crate) fn body(&self, code: &mut Code, start: &str) {
        let per_item = self.size * self.each;
        match self.strides {
            true => {
                let (items, step) = (self.n_strips.div_ceil(per_item), self.workgroups);
                code.open(format!("for (var item = {start}; item < {items}u; item += {step}u)"));
            }
            false => code.line(format!("let item = {start};")),
        }
        let ragged = !self.n_strips.is_multiple_of(per_item);
        let names: Vec<String> =
            (0..self.each).map(|n| if self.each == 1 { String::new() } else { format!("_{n}") }).collect();
        for (n, name) in names.iter().enumerate() {
            let place = if n == 0 { "local".to_owned() } else { format!("local + {}u", n * self.size) };
            let number = format!("item * {per_item}u + {place}");
            if ragged {
                code.line(format!("let live{name} = {number} < {}u;", self.n_strips));
                code.line(format!("let strip{name} = min({number}, {}u);", self.n_strips - 1));
            } else {
                code.line(format!("let strip{name} = {number};"));
            }
            let axes = self.strip.axes(name, &|_| true);
            let used = |axis| self.rows.uses(axis);
            decompose(code, &axes, 0..axes.dims.len(), &format!("strip{name}"), &used);
            (0..self.wanted.len())
                .filter(|&v| self.is_loaded_first(v))
                .for_each(|v| self.strip.load(code, &axes, v, name));
        }
        for name in &names {
            if self.each > 1 {
                code.open("");
            }
            self.compute(code, name, ragged.then(|| format!("live{name}")));
            if self.each > 1 {
                code.close();
            }
        }
        if self.strides {
            code.close();
        }
    }

    /// True for loads that wait for nothing.
    fn is_loaded_first(&self, v: usize) -> bool {
        let waits = !matches!(self.rows.scope.body.instrs[v], Instr::Load { gather: None, .. });
        self.wanted[v] && !waits && (self.strip.width == 1 || self.strip.is_whole(v) || !self.strip.differs[v])
    }

    /// One strip, whose loads are there.
    fn compute(&self, code: &mut Code, name: &str, guard: Option<String>) {
        let stores = &self.rows.scope.body.stores;
        let axes = self.strip.axes(name, &|_| true);
        stores.iter().for_each(|s| self.strip.open_store(code, s));
        let live = if self.strip.width == 1 { guard.as_deref() } else { None };
        let nowhere = |_: Value, _: usize| None;
        self.strip.steps(
            code,
            (&axes, name),
            &|v| self.wanted[v],
            &|v| self.is_loaded_first(v),
            &nowhere,
            &mut |code, c| stores.iter().for_each(|s| self.strip.put(code, &axes, s, c, live)),
        );
        let guard = guard.filter(|_| self.strip.width > 1);
        guard.iter().for_each(|guard| code.open(format!("if ({guard})")));
        stores.iter().for_each(|s| self.strip.close_store(code, &axes, s));
        guard.iter().for_each(|_| code.close());
    }
}
