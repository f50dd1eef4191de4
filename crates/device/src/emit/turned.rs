//! Loops without reductions that read along another axis than they write: through tiles in workgroup memory.
//!
//! A workgroup reads a square of what lies turned, row by row as it lies in memory, and takes it down the columns. One
//! more place than a row needs keeps neighbours of a column in banks of their own.

use kiln_ir::kernel::{Body, Instr, Value};
use kiln_ir::{Atom, DType, Index};

use super::Target;
use super::code::{Code, value_type};
use super::index::Axes;
use super::plan::bytes;
use super::rows::{Rows, decompose, reached, weight};
use super::strip::Strip;

/// The side of a tile, and how far apart its rows are.
const SIDE: usize = 32;
const PITCH: usize = SIDE + 1;

/// Invocations of a workgroup: each reads eight elements before it waits. 64 or 256, or tiles of 64, were no faster.
const SIZE: usize = 128;

/// Extents from which on a turned axis is worth tiles.
const LEAST: usize = 16;

/// Steps beyond which arithmetic takes longer than memory.
const MAX_STEPS: usize = 96;

/// A loop over points, tile by tile.
pub(crate) struct Turned<'a> {
    rows: &'a Rows<'a>,
    /// Elements as they are read, and strips as they are written.
    reads: Strip<'a>,
    writes: Strip<'a>,
    /// The axis along which turned loads lie; stores lie along the last.
    axis: usize,
    /// The turned loads.
    turned: Vec<usize>,
    wanted: Vec<bool>,
    /// Invocations of a workgroup.
    pub(crate) size: usize,
    /// Workgroups of the dispatch.
    pub(crate) workgroups: u32,
    /// Tiles in all.
    items: usize,
}

impl<'a> Turned<'a> {
    /// The loop in tiles, if there is something to turn; in workgroups of at least `least` invocations.
    pub(crate) fn new(rows: &'a Rows<'a>, target: &Target, least: usize) -> Option<Turned<'a>> {
        let body = rows.scope.body;
        let dims = &rows.scope.axes.dims;
        if !rows.phases.is_empty() || dims.len() < 2 || rows.outer != dims.len() || rows.n_rows == 0 {
            return None;
        }
        let last = dims.len() - 1;
        let wanted = reached(body.stores.iter().map(|s| s.value), &body.instrs);
        let (axis, turned) = turned(body, dims, &wanted)?;
        let along = |s: &kiln_ir::kernel::Store| coefficient(&s.index, last) == 1;
        let reads = Strip::new(&rows.scope, last, false).in_elements();
        let mut writes = Strip::new(&rows.scope, last, false);
        let packed = body.stores.iter().any(|s| rows.per_word(s) > 1);
        if !packed {
            writes = writes.in_elements();
        }
        let steps = weight(&body.instrs, |v| wanted[v]);
        // What shares words is stored in whole ones, and so in strips.
        let whole = !packed || writes.width > 1 && body.stores.iter().all(|s| writes.is_whole_store(s));
        let size = SIZE.max(least).min(1 << target.max_invocations.ilog2());
        let square = SIDE * SIDE / writes.width;
        if !body.stores.iter().all(along) || !whole || steps > MAX_STEPS || !square.is_multiple_of(size) {
            return None;
        }
        let rest = rows.n_rows / dims[axis] / dims[last];
        let items = rest * dims[axis].div_ceil(SIDE) * dims[last].div_ceil(SIDE);
        let workgroups = items.min(target.max_workgroups as usize) as u32;
        let turned = Turned { rows, reads, writes, axis, turned, wanted, size, workgroups, items };
        (bytes(&turned.arrays()) <= target.max_workgroup_bytes as usize).then_some(turned)
    }

    /// How it is done, for people.
    pub(crate) fn describe(&self) -> String {
        format!("a workgroup a tile of {SIDE} × {SIDE}, read along axis {} and written along the last", self.axis)
    }

    /// Declarations of workgroup memory.
    pub(crate) fn arrays(&self) -> Vec<String> {
        let array = |(n, v): (usize, &usize)| {
            let kind = value_type(self.rows.scope.body.types[*v]);
            format!("var<workgroup> tile_{kind}_{n}: array<{kind}, {}>;", SIDE * PITCH)
        };
        self.turned.iter().enumerate().map(array).collect()
    }

    /// Takes from `wide` the arguments that are not always taken in strips.
    pub(crate) fn narrow(&self, wide: &mut [bool]) {
        self.reads.narrow(wide, &|v| self.turned.contains(&v), false);
        self.writes.narrow(wide, &|v| self.wanted[v] && !self.turned.contains(&v), true);
    }

    /// Leaves only these arguments to be taken in strips; false iff that is too few.
    pub(crate) fn keep(&mut self, wide: &[bool]) -> bool {
        self.writes.keep(wide);
        self.writes.width == 1 || self.rows.scope.body.stores.iter().all(|s| self.writes.is_whole_store(s))
    }

    /// What a workgroup does, whose number is `start`.
    pub(crate) fn body(&self, code: &mut Code, start: &str) {
        let strides = self.items > self.workgroups as usize;
        match strides {
            true => {
                code.open(format!("for (var item = {start}; item < {}u; item += {}u)", self.items, self.workgroups))
            }
            false => code.line(format!("let item = {start};")),
        }
        self.tile(code);
        // Invocations of all turns read with neighbours along the axis, and write with neighbours along the last.
        code.line(format!("let near = local % {SIDE}u;"));
        code.line(format!("let far = local / {SIDE}u;"));
        for k in 0..SIDE * SIDE / self.size {
            let far = plus("far", k * self.size / SIDE);
            let axes = self.places(code, &self.reads, &format!("_in{k}"), ["near", &far]);
            self.turned.iter().for_each(|&v| self.reads.load(code, &axes, v, &format!("_in{k}")));
        }
        let width = self.writes.width;
        let strips = SIDE / width;
        if width > 1 {
            code.line(format!("let strip = local % {strips}u;"));
            code.line(format!("let line = local / {strips}u;"));
        }
        let [strip, line] = if width > 1 { ["strip", "line"] } else { ["near", "far"] };
        let lines: Vec<String> = (0..SIDE * strips / self.size).map(|k| plus(line, k * self.size / strips)).collect();
        for (k, line) in lines.iter().enumerate() {
            let axes = self.places(code, &self.writes, &format!("_{k}"), [line, strip]);
            let loads = (0..self.wanted.len()).filter(|&v| self.is_loaded_first(v));
            loads.for_each(|v| self.writes.load(code, &axes, v, &format!("_{k}")));
        }
        if strides {
            code.line("workgroupBarrier(); // all have read the last tile");
        }
        for (n, v) in self.turned.iter().enumerate() {
            let kind = value_type(self.rows.scope.body.types[*v]);
            for k in 0..SIDE * SIDE / self.size {
                let far = plus("far", k * self.size / SIDE);
                code.line(format!("tile_{kind}_{n}[({far}) * {PITCH}u + near] = q{v}_in{k};"));
            }
        }
        code.line("workgroupBarrier(); // publishes the tile");
        for (k, line) in lines.iter().enumerate() {
            code.open("");
            self.compute(code, k, [strip, line]);
            code.close();
        }
        if strides {
            code.close();
        }
    }

    /// Names the tile's coordinates: `tile_near` along the axis, `tile_far` along the last, and all others.
    fn tile(&self, code: &mut Code) {
        let dims = &self.rows.scope.axes.dims;
        let last = dims.len() - 1;
        let (across, down) = (dims[self.axis].div_ceil(SIDE), dims[last].div_ceil(SIDE));
        code.line(format!("let tile_far = item % {down}u;"));
        code.line(format!("let tile_near = item / {down}u % {across}u;"));
        let others: Vec<usize> = (0..last).filter(|&a| a != self.axis).collect();
        let names = others.iter().map(|&a| self.rows.scope.axes.names[a].clone()).collect();
        let axes = Axes { dims: others.iter().map(|&a| dims[a]).collect(), names };
        if !others.is_empty() {
            code.line(format!("let rest = item / {}u;", across * down));
            decompose(code, &axes, 0..others.len(), "rest", &|n| self.rows.uses(others[n]));
        }
    }

    /// Names the coordinates of a place of the tile, inside the space whatever the place.
    fn places(&self, code: &mut Code, strip: &Strip, suffix: &str, [near, far]: [&str; 2]) -> Axes {
        let last = self.rows.scope.axes.dims.len() - 1;
        let axes = strip.axes(suffix, &|a| a == self.axis || a == last);
        let along = [(self.axis, format!("tile_near * {SIDE}u + {near}"), SIDE)];
        let across = [(last, format!("tile_far * {}u + {far}", SIDE / strip.width), SIDE / strip.width)];
        for (axis, place, side) in along.into_iter().chain(across) {
            let place = match axes.dims[axis].is_multiple_of(side) {
                true => place,
                false => format!("min({place}, {}u)", axes.dims[axis] - 1),
            };
            code.line(format!("let {} = {place};", axes.names[axis]));
        }
        axes
    }

    /// The condition that a place is inside the space, unless all are.
    fn is_inside(&self, near: &str, far: &str) -> Option<String> {
        let dims = &self.rows.scope.axes.dims;
        let (last, width) = (dims.len() - 1, self.writes.width);
        let near = (!dims[self.axis].is_multiple_of(SIDE))
            .then(|| format!("tile_near * {SIDE}u + {near} < {}u", dims[self.axis]));
        let far = (!dims[last].is_multiple_of(SIDE))
            .then(|| format!("tile_far * {}u + {far} < {}u", SIDE / width, dims[last] / width));
        let conditions: Vec<String> = near.into_iter().chain(far).collect();
        (!conditions.is_empty()).then(|| conditions.join(" && "))
    }

    /// True for loads that the writing side needs and that wait for nothing.
    fn is_loaded_first(&self, v: usize) -> bool {
        let waits = !matches!(self.rows.scope.body.instrs[v], Instr::Load { gather: None, .. });
        let one = self.writes.width == 1 || self.writes.is_whole(v) || !self.writes.differs[v];
        self.wanted[v] && !waits && one && !self.turned.contains(&v)
    }

    /// The steps and stores of the `k`-th strip that an invocation writes, which is this one of this line.
    fn compute(&self, code: &mut Code, k: usize, [strip, line]: [&str; 2]) {
        let last = self.rows.scope.axes.dims.len() - 1;
        let suffix = format!("_{k}");
        let axes = self.writes.axes(&suffix, &|a| a == self.axis || a == last);
        let stores = &self.rows.scope.body.stores;
        let width = self.writes.width;
        let from_tile = |v: Value, c: usize| {
            let n = self.turned.iter().position(|t| *t == v as usize)?;
            let kind = value_type(self.rows.scope.body.types[v as usize]);
            let row = if width == 1 { strip.to_owned() } else { plus(&format!("{strip} * {width}u"), c) };
            Some(format!("tile_{kind}_{n}[({row}) * {PITCH}u + {line}]"))
        };
        let guard = self.is_inside(line, strip);
        guard.iter().for_each(|guard| code.open(format!("if ({guard})")));
        stores.iter().for_each(|s| self.writes.open_store(code, s));
        self.writes.steps(
            code,
            (&axes, &suffix),
            &|v| self.wanted[v],
            &|v| self.is_loaded_first(v),
            &from_tile,
            &mut |code, c| stores.iter().for_each(|s| self.writes.put(code, &axes, s, c, None)),
        );
        stores.iter().for_each(|s| self.writes.close_store(code, &axes, s));
        guard.iter().for_each(|_| code.close());
    }
}

/// `text + n`.
fn plus(text: &str, n: usize) -> String {
    if n == 0 { text.to_owned() } else { format!("{text} + {n}u") }
}

fn coefficient(index: &Index, axis: usize) -> i64 {
    index.terms.iter().filter(|t| t.1 == Atom::Var(axis)).map(|t| t.0).sum()
}

/// The axis other than the last along which loads lie, and those loads.
fn turned(body: &Body, dims: &[usize], wanted: &[bool]) -> Option<(usize, Vec<usize>)> {
    let last = dims.len() - 1;
    let is_turned = |v: usize, axis: usize| match &body.instrs[v] {
        Instr::Load { index, gather: None, .. } => {
            let crosses = coefficient(index, last).unsigned_abs() > 1;
            wanted[v] && crosses && coefficient(index, axis) == 1 && body.types[v].compute() != DType::Bool
        }
        _ => false,
    };
    let loads = |axis: usize| (0..wanted.len()).filter(|&v| is_turned(v, axis)).collect::<Vec<_>>();
    let axes = (0..last).filter(|&axis| dims[axis].min(dims[last]) >= LEAST);
    axes.map(|axis| (axis, loads(axis))).find(|(_, loads)| !loads.is_empty())
}
