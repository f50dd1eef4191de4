//! What happens to one row: which steps are done once, which for every element, in which phase.
//!
//! The hard idea is the *phase*. A reduction needs the whole row, so everything that follows from its
//! value waits for a later pass over the row. Passes recompute what they need instead of keeping it:
//! loads of a row that was just read are cheap, and nothing limits the length of a row.

use kiln_ir::kernel::{Instr, Loop, Store, Value};
use kiln_ir::{DType, PointOp};

use super::body::Scope;
use super::code::{Code, per_word};
use super::index::Axes;
use super::reduce::Reduction;
use super::space;

/// A loop with merged axes, and the order of its steps.
pub(crate) struct Rows<'a> {
    /// Steps and axes; the row's axes come after the outer ones.
    pub(crate) scope: Scope<'a>,
    /// Number of outer axes.
    pub(crate) outer: usize,
    /// Number of rows.
    pub(crate) n_rows: usize,
    /// Elements of a row; 1 where nothing is reduced.
    pub(crate) len: usize,
    /// The reductions of each pass over the row.
    pub(crate) phases: Vec<Vec<Reduction>>,
    /// How many passes must be over before a value exists.
    level: Vec<usize>,
    varies: Vec<bool>,
    needed: Vec<bool>,
}

impl<'a> Rows<'a> {
    /// The order of the steps of a loop whose axes were merged.
    pub(crate) fn new(k: &'a Loop) -> Rows<'a> {
        let dims = [&k.outer[..], &k.row[..]].concat();
        let body = &k.body;
        let needed = reached(body.stores.iter().map(|s| s.value), &body.instrs);
        let mut level: Vec<usize> = Vec::with_capacity(body.instrs.len());
        let mut phases: Vec<Vec<Reduction>> = Vec::new();
        for (v, instr) in body.instrs.iter().enumerate() {
            let after = instr.operands().iter().map(|&a| level[a as usize]).max().unwrap_or(0);
            let Instr::Reduce(op, operand) = *instr else {
                level.push(after);
                continue;
            };
            level.push(after + 1);
            if needed[v] {
                phases.resize_with(phases.len().max(after + 1), Vec::new);
                let dtype = body.types[operand as usize].compute();
                phases[after].push(Reduction { op, dtype, value: v as Value, operand });
            }
        }
        Rows {
            varies: body.varies_in_row(k.outer.len(), dims.len()),
            n_rows: k.outer.iter().product(),
            len: k.row.iter().product(),
            outer: k.outer.len(),
            scope: Scope { body, args: &k.args, axes: Axes::numbered(&dims) },
            phases,
            level,
            needed,
        }
    }

    /// Stores done for each element of a row, and those done once.
    pub(crate) fn stores(&self) -> (Vec<&'a Store>, Vec<&'a Store>) {
        let rank = self.scope.axes.dims.len();
        let row = |axis: usize| (self.outer..rank).contains(&axis);
        self.scope.body.stores.iter().partition(|s| self.varies[s.value as usize] || s.index.uses(&row))
    }

    /// The steps that are done once a row when `level` passes are over.
    pub(crate) fn once(&self, code: &mut Code, level: usize) {
        let due = |&v: &usize| self.needed[v] && !self.varies[v] && self.level[v] == level;
        for v in (0..self.level.len()).filter(due) {
            self.scope.step(code, v as Value);
        }
    }

    /// The steps that must be done for each element to have these values.
    pub(crate) fn each(&self, code: &mut Code, values: impl Iterator<Item = Value>) {
        let wanted = reached(values, &self.scope.body.instrs);
        for v in (0..wanted.len()).filter(|&v| wanted[v] && self.varies[v]) {
            self.scope.step(code, v as Value);
        }
    }

    /// The steps of each pass over the row: of those that reduce, then of that which stores, if one does.
    pub(crate) fn passes(&self) -> Vec<Vec<bool>> {
        let each = self.stores().0;
        let phases = self.phases.iter().map(|phase| self.pass(phase.iter().map(|r| r.operand)));
        phases.chain((!each.is_empty()).then(|| self.pass(each.iter().map(|s| s.value)))).collect()
    }

    /// True for each step that a pass does for each element to have these values.
    pub(crate) fn pass(&self, values: impl Iterator<Item = Value>) -> Vec<bool> {
        self.made_of(values).iter().zip(&self.varies).map(|(made, varies)| *made && *varies).collect()
    }

    /// True for each step that these values come from; what a reduction is of was another pass's work.
    pub(crate) fn made_of(&self, values: impl Iterator<Item = Value>) -> Vec<bool> {
        let instrs = &self.scope.body.instrs;
        let mut made_of = vec![false; instrs.len()];
        values.for_each(|v| made_of[v as usize] = true);
        for v in (0..instrs.len()).rev().filter(|&v| !matches!(instrs[v], Instr::Reduce(..))) {
            if made_of[v] {
                instrs[v].operands().iter().for_each(|&a| made_of[a as usize] = true);
            }
        }
        made_of
    }

    /// True iff the step's value differs within a row.
    pub(crate) fn varies_in_row(&self, v: usize) -> bool {
        self.varies[v]
    }

    /// True iff a store depends on the step.
    pub(crate) fn is_needed(&self, v: usize) -> bool {
        self.needed[v]
    }

    /// Appends the coordinates of these axes, as named by what the code between uses.
    pub(crate) fn coordinates(&self, code: &mut Code, of_row: bool, linear: &str) {
        let axes = if of_row { self.outer..self.scope.axes.dims.len() } else { 0..self.outer };
        decompose(code, &self.scope.axes, axes, linear, &|axis| self.uses(axis));
    }

    /// True iff an index of a step that is needed, or of a store, depends on the axis.
    pub(crate) fn uses(&self, axis: usize) -> bool {
        let body = self.scope.body;
        let is = |a: usize| a == axis;
        body.stores.iter().any(|s| s.index.uses(&is))
            || body
                .instrs
                .iter()
                .zip(&self.needed)
                .any(|(instr, needed)| *needed && instr.indices().iter().any(|index| index.uses(&is)))
    }

    /// True iff the store's index is the element number in the whole space, or of the rows.
    pub(crate) fn is_row_major(&self, store: &Store, each: bool) -> bool {
        let dims = &self.scope.axes.dims;
        space::is_row_major(&store.index, if each { dims } else { &dims[..self.outer] })
    }

    /// True iff no argument is stored twice at a point.
    pub(crate) fn stores_each_argument_once(&self) -> bool {
        let stores = &self.scope.body.stores;
        (1..stores.len()).all(|n| stores[..n].iter().all(|s| s.arg != stores[n].arg))
    }

    /// How many elements of the store's argument share a word.
    pub(crate) fn per_word(&self, store: &Store) -> usize {
        per_word(self.dtype(store))
    }

    /// The dtype of the store's argument.
    pub(crate) fn dtype(&self, store: &Store) -> DType {
        self.scope.args[store.arg as usize].dtype
    }
}

/// Appends `let` lines that take a linear number apart into coordinates.
pub(crate) fn decompose(
    code: &mut Code,
    axes: &Axes,
    range: std::ops::Range<usize>,
    linear: &str,
    used: &dyn Fn(usize) -> bool,
) {
    for axis in range.clone() {
        if !used(axis) {
            continue;
        }
        // An empty space runs nowhere, but its text divides by its dims all the same.
        let step = axes.dims[axis + 1..range.end].iter().product::<usize>().max(1);
        let quotient = if step == 1 { linear.to_string() } else { format!("{linear} / {step}u") };
        let value = if axis == range.start { quotient } else { format!("{quotient} % {}u", axes.dims[axis].max(1)) };
        code.line(format!("let {} = {value};", axes.names[axis]));
    }
}

/// True for each step that one of the values comes from.
pub(crate) fn reached(values: impl Iterator<Item = Value>, instrs: &[Instr]) -> Vec<bool> {
    let mut reached = vec![false; instrs.len()];
    values.for_each(|v| reached[v as usize] = true);
    for v in (0..instrs.len()).rev().filter(|&v| !matches!(instrs[v], Instr::Acc)) {
        if reached[v] {
            instrs[v].operands().iter().for_each(|&a| reached[a as usize] = true);
        }
    }
    reached
}

/// About how many operations the steps are that `counted` picks: a random word is a hundred, and its text as long, so
/// that a loop which has it for each of four neighbours takes seconds to compile.
pub(crate) fn weight(instrs: &[Instr], counted: impl Fn(usize) -> bool) -> usize {
    let of = |instr: &Instr| if matches!(instr, Instr::Op(PointOp::Threefry, _)) { 100 } else { 1 };
    instrs.iter().enumerate().filter(|(v, _)| counted(*v)).map(|(_, instr)| of(instr)).sum()
}
