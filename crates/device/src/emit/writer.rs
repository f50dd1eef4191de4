//! The text of a loop: sets of rows, passes over a row, stores.
//!
//! With several lanes a row, barriers must be reached by all invocations of a workgroup. So surplus
//! invocations redo the last row and only their stores are guarded.

use kiln_ir::kernel::{Instr, Store};
use kiln_ir::{DType, ReduceOp};

use super::code::{Code, value_type};
use super::looped::Shape;
use super::reduce::Reduction;
use super::rows::Rows;

/// Elements that one invocation adds up before it adds the result to the rest: then the rounding
/// error grows with the square root of a row's length instead of the length.
pub(crate) const BLOCK: usize = 256;

/// The parameters of an entry point that works by workgroups.
pub(crate) const PLACE: &str = "@builtin(workgroup_id) id: vec3<u32>, @builtin(local_invocation_index) local: u32";

/// Names the `row` that a slot of a workgroup does of this `item`, where `slots` of them are done at once; true iff the
/// last item has fewer, so that `live` says who stores.
pub(crate) fn row_of_item(code: &mut Code, slots: usize, rows: usize) -> bool {
    let ragged = !rows.is_multiple_of(slots);
    match (slots, ragged) {
        (1, _) => code.line("let row = item;"),
        (_, false) => code.line(format!("let row = item * {slots}u + slot;")),
        (_, true) => {
            code.line(format!("let live = item * {slots}u + slot < {rows}u;"));
            code.line(format!("let row = min(item * {slots}u + slot, {}u);", rows.max(1) - 1));
        }
    }
    ragged
}

/// The entry point of a loop.
pub(crate) struct Writer<'a> {
    /// What is done.
    pub(crate) rows: &'a Rows<'a>,
    /// By whom.
    pub(crate) shape: Shape,
}

impl Writer<'_> {
    /// Arrays of partial results, one place an invocation, as declarations.
    pub(crate) fn arrays(&self) -> Vec<String> {
        let Shape { size, lanes, .. } = self.shape;
        let parts = if lanes > 1 { parts(self.rows) } else { Vec::new() };
        parts.iter().map(|(name, kind)| format!("var<workgroup> {name}: array<{kind}, {size}>;")).collect()
    }

    /// Takes from `wide` every argument that is used: all go element by element.
    pub(crate) fn narrow(&self, wide: &mut [bool]) {
        let body = self.rows.scope.body;
        for instr in &body.instrs {
            if let Instr::Load { arg, .. } = instr {
                wide[*arg as usize] = false;
            }
        }
        body.stores.iter().for_each(|s| wide[s.arg as usize] = false);
    }

    /// What an entry point does, whose first item is `start`: an invocation's with one lane, else a workgroup's.
    pub(crate) fn body(&self, code: &mut Code, start: &str) {
        let Shape { size, lanes, batch, workgroups, strides, .. } = self.shape;
        let step = if lanes == 1 { size * workgroups as usize } else { workgroups as usize };
        let items = match lanes {
            1 => self.rows.n_rows.div_ceil(batch),
            _ => self.rows.n_rows.div_ceil(self.shape.rows() * batch),
        };
        self.places(code);
        match strides {
            true => code.open(format!("for (var item = {start}; item < {items}u; item += {step}u)")),
            false if lanes == 1 && items < step => {
                code.line(format!("let item = {start};"));
                code.open(format!("if (item >= {items}u)"));
                code.line("return;");
                code.close();
            }
            false => code.line(format!("let item = {start};")),
        }
        self.rows_of_item(code);
        if strides {
            code.close();
        }
    }

    /// Which lane of which of the workgroup's rows an invocation is.
    fn places(&self, code: &mut Code) {
        let Shape { lanes, rows_first, .. } = self.shape;
        match (lanes, self.shape.rows(), rows_first) {
            (1, ..) => {}
            (_, 1, _) => code.line("let lane = local;"),
            (_, n, true) => {
                code.line(format!("let lane = local / {n}u;"));
                code.line(format!("let slot = local % {n}u;"));
            }
            (_, _, false) => {
                code.line(format!("let lane = local % {lanes}u;"));
                code.line(format!("let slot = local / {lanes}u;"));
            }
        }
    }

    /// Consecutive rows, and the words that they share.
    fn rows_of_item(&self, code: &mut Code) {
        let Shape { lanes, batch, .. } = self.shape;
        let n_rows = self.rows.n_rows;
        let row = match (lanes, self.shape.rows()) {
            (1, _) | (_, 1) => "item".to_string(),
            (_, n) => format!("(item * {n}u + slot)"),
        };
        let ragged = !n_rows.is_multiple_of(self.shape.rows() * batch) && lanes > 1;
        let row_of = |code: &mut Code, number: &str| {
            if ragged {
                code.line(format!("let live = {number} < {n_rows}u;"));
                code.line(format!("let row = min({number}, {}u);", n_rows - 1));
            } else {
                code.line(format!("let row = {};", number.trim_matches(['(', ')'])));
            }
        };
        if batch == 1 {
            row_of(code, &row);
            return self.row(code, ragged);
        }
        let (each, once) = self.rows.stores();
        let lasting = |s: &&&Store| self.rows.per_word(s) > 1 && (lanes == 1 || once.contains(s));
        for store in each.iter().chain(&once).filter(lasting) {
            code.line(format!("var word{} = 0u;", store.arg));
        }
        if lanes == 1 {
            let end = format!("min({row} * {batch}u + {batch}u, {n_rows}u)");
            code.open(format!("for (var row = {row} * {batch}u; row < {end}; row++)"));
        } else {
            code.open(format!("for (var turn = 0u; turn < {batch}u; turn++)"));
            code.line(format!("let number = {row} * {batch}u + turn;"));
            row_of(code, "number");
        }
        self.row(code, ragged);
        code.close();
    }

    /// One row: passes that reduce, then stores.
    fn row(&self, code: &mut Code, ragged: bool) {
        self.rows.coordinates(code, false, "row");
        self.rows.once(code, 0);
        for (level, phase) in self.rows.phases.iter().enumerate() {
            self.reduce(code, phase);
            match self.shape.lanes {
                1 => phase.iter().for_each(|r| r.finish(code, &acc(r), &format!("{}_at", acc(r)))),
                _ => self.meet(code, level, phase),
            }
            self.rows.once(code, level + 1);
        }
        self.stores(code, ragged);
    }

    /// A pass over the row: every lane reduces its elements.
    fn reduce(&self, code: &mut Code, phase: &[Reduction]) {
        phase.iter().for_each(|r| r.start(code, &acc(r)));
        let Shape { lanes, .. } = self.shape;
        let len = self.rows.len;
        let first = if lanes == 1 { "0u" } else { "lane" };
        let next = if lanes == 1 { "j++".to_string() } else { format!("j += {lanes}u") };
        let in_blocks = |r: &&Reduction| r.op == ReduceOp::Sum && r.dtype == DType::F32 && len / lanes > 2 * BLOCK;
        let blocked: Vec<&Reduction> = phase.iter().filter(in_blocks).collect();
        if blocked.is_empty() {
            code.open(format!("for (var j = {first}; j < {len}u; {next})"));
        } else {
            let step = lanes * BLOCK;
            code.open(format!("for (var block = 0u; block < {len}u; block += {step}u)"));
            blocked.iter().for_each(|r| r.start(code, &format!("part{}", r.value)));
            let first = if lanes == 1 { "block".to_string() } else { "block + lane".to_string() };
            code.open(format!("for (var j = {first}; j < min(block + {step}u, {len}u); {next})"));
        }
        self.rows.coordinates(code, true, "j");
        self.rows.each(code, phase.iter().map(|r| r.operand));
        for r in phase {
            let in_block = blocked.iter().any(|b| b.value == r.value);
            r.take(code, &if in_block { format!("part{}", r.value) } else { acc(r) }, "j");
        }
        code.close();
        if !blocked.is_empty() {
            blocked.iter().for_each(|r| r.combine(code, &acc(r), &format!("part{}", r.value), "0u"));
            code.close();
        }
    }
}

fn acc(r: &Reduction) -> String {
    format!("acc{}", r.value)
}

/// Where the lanes of a row meet.
impl Writer<'_> {
    /// A tree over the lanes of each row; afterwards all of them have the result.
    fn meet(&self, code: &mut Code, level: usize, phase: &[Reduction]) {
        let Shape { lanes, rows_first, batch, strides, .. } = self.shape;
        if level > 0 || batch > 1 || strides {
            code.line("workgroupBarrier(); // all have read the last result");
        }
        let parts = names(phase);
        let publish = |code: &mut Code| {
            for (r, part) in phase.iter().zip(&parts) {
                code.line(format!("{part}[local] = {};", acc(r)));
                if r.op == ReduceOp::ArgMax {
                    code.line(format!("{part}_at[local] = {}_at;", acc(r)));
                }
            }
        };
        publish(code);
        code.line("workgroupBarrier(); // publishes what each lane has");
        let (leader, distance) = match (self.shape.rows(), rows_first) {
            (1, _) => ("0u".into(), "local + half".into()),
            (n, true) => ("slot".to_string(), format!("local + half * {n}u")),
            (_, false) => (format!("slot * {lanes}u"), "local + half".to_string()),
        };
        code.open(format!("for (var half = {}u; half > 0u; half /= 2u)", lanes / 2));
        code.open("if (lane < half)");
        for (r, part) in phase.iter().zip(&parts) {
            r.combine(code, &acc(r), &format!("{part}[{distance}]"), &format!("{part}_at[{distance}]"));
        }
        publish(code);
        code.close();
        code.line("workgroupBarrier(); // publishes what each pair has");
        code.close();
        for (r, part) in phase.iter().zip(&parts) {
            r.finish(code, &format!("{part}[{leader}]"), &format!("{part}_at[{leader}]"));
        }
    }
}

/// The arrays of partial results, for the pass that needs most.
pub(crate) fn parts(rows: &Rows) -> Vec<(String, &'static str)> {
    let mut parts: Vec<(String, &'static str)> = Vec::new();
    for phase in &rows.phases {
        for (r, part) in phase.iter().zip(names(phase)) {
            let mut add = |name: String, kind| {
                if parts.iter().all(|p| p.0 != name) {
                    parts.push((name, kind));
                }
            };
            if r.op == ReduceOp::ArgMax {
                add(format!("{part}_at"), "u32");
            }
            add(part, value_type(r.word()));
        }
    }
    parts
}

/// One array per reduction of a pass; passes share arrays of the same type.
fn names(phase: &[Reduction]) -> Vec<String> {
    let kind = |r: &Reduction| value_type(r.word());
    let nth = |n: usize| phase[..n].iter().filter(|r| kind(r) == kind(&phase[n])).count();
    (0..phase.len()).map(|n| format!("part_{}_{}", kind(&phase[n]), nth(n))).collect()
}

/// What is kept of a row.
impl Writer<'_> {
    fn stores(&self, code: &mut Code, ragged: bool) {
        let (each, once) = self.rows.stores();
        if !each.is_empty() {
            if ragged {
                code.open("if (live)");
            }
            self.store_each(code, &each);
            if ragged {
                code.close();
            }
        }
        if once.is_empty() {
            return;
        }
        let guard = match (self.shape.lanes, ragged) {
            (1, _) => None,
            (_, true) => Some("if (lane == 0u && live)"),
            (_, false) => Some("if (lane == 0u)"),
        };
        guard.iter().for_each(|guard| code.open(guard));
        for store in &once {
            self.store(code, store, "row", self.rows.n_rows);
        }
        guard.iter().for_each(|_| code.close());
    }

    /// A last pass over the row, for what is kept of its elements.
    fn store_each(&self, code: &mut Code, each: &[&Store]) {
        let Shape { lanes, batch, chunk, .. } = self.shape;
        let len = self.rows.len;
        let words = |code: &mut Code| {
            for store in each.iter().filter(|s| self.rows.per_word(s) > 1) {
                code.line(format!("var word{} = 0u;", store.arg));
            }
        };
        match (lanes, chunk) {
            (1, _) => {
                if batch == 1 {
                    words(code);
                }
                code.open(format!("for (var j = 0u; j < {len}u; j++)"));
            }
            (_, 1) => code.open(format!("for (var j = lane; j < {len}u; j += {lanes}u)")),
            _ => {
                let step = lanes * chunk;
                code.open(format!("for (var first = lane * {chunk}u; first < {len}u; first += {step}u)"));
                words(code);
                code.open(format!("for (var j = first; j < first + {chunk}u; j++)"));
            }
        }
        self.rows.coordinates(code, true, "j");
        self.rows.each(code, each.iter().map(|s| s.value));
        if each.iter().any(|s| self.rows.per_word(s) > 1) {
            code.line(if self.rows.n_rows == 1 { "let at = j;".into() } else { format!("let at = row * {len}u + j;") });
        }
        for store in each {
            self.store(code, store, "at", self.rows.n_rows * len);
        }
        code.close();
        if lanes > 1 && chunk > 1 {
            code.close();
        }
    }

    /// A store; of a narrow dtype, into a word that is written when its last element is there.
    fn store(&self, code: &mut Code, store: &Store, at: &str, end: usize) {
        let (arg, per) = (store.arg, self.rows.per_word(store));
        let value = self.rows.scope.stored(store);
        if per == 1 {
            return code.line(format!("a{arg}[{}] = {value};", self.rows.scope.axes.index(&store.index)));
        }
        let (last, bits) = (per - 1, 32 / per);
        code.line(format!("word{arg} |= ({value}) << (({at} & {last}u) * {bits}u);"));
        code.open(match end.is_multiple_of(per) {
            true => format!("if (({at} & {last}u) == {last}u)"),
            false => format!("if (({at} & {last}u) == {last}u || {at} == {}u)", end - 1),
        });
        code.line(format!("a{arg}[{at} / {per}u] = word{arg};"));
        code.line(format!("word{arg} = 0u;"));
        code.close();
    }
}
