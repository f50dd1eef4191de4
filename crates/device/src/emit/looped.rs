//! Loops: who computes which rows, and how partial results of several invocations meet.
//!
//! One scheme covers all shapes: `lanes` invocations share a row, `rows` rows share a workgroup. With
//! one lane nothing is shared and no barrier is needed; with more, each lane reduces every
//! `lanes`-th element and a tree in workgroup memory finishes, in a fixed order.

use kiln_ir::kernel::{Instr, Loop, Store};
use kiln_ir::{Atom, Index, Reject};

use super::code::Code;
use super::module::{Module, n_scalars, op_names};
use super::plan::Plan;
use super::rows::Rows;
use super::writer::{BLOCK, PLACE, parts};
use super::{Schedule, Shader, Target, check_body, space};

/// The loop in WGSL.
pub(crate) fn emit(k: &Loop, target: &Target) -> Result<Shader, Reject> {
    let merged = merged(k, target)?;
    let rows = [Rows::new(&merged)];
    let (plans, wide) = Plan::of_all(&rows, target, 0)?;
    let plan = &plans[0];
    let mut code = Code::default();
    begin(&mut code, &plans, &plan.arrays(), plan.size());
    plan.body(&mut code, "id.x");
    code.close();
    let scalars = n_scalars(&[&k.body]);
    let name = format!("loop {} {:?}|{:?}", op_names(&[&k.body]), k.outer, k.row);
    let module = Module::new([name, plan.describe()], &k.args, code.into_text(), plan.workgroups());
    Ok(module.with(&wide, scalars).shader(target))
}

/// Declares workgroup memory and opens the entry point of these plans, which share it.
pub(crate) fn begin(code: &mut Code, plans: &[Plan], arrays: &[String], size: usize) {
    arrays.iter().for_each(|array| code.line(array));
    if !arrays.is_empty() {
        code.line("");
    }
    code.line(format!("@compute @workgroup_size({size})"));
    code.open(match plans {
        [plan] if plan.by_invocation() => "fn main(@builtin(global_invocation_id) id: vec3<u32>)".to_owned(),
        _ => format!("fn main({PLACE})"),
    });
}

/// The loop with as few axes as it can have; on a device that minds, in the order in which results lie.
pub(crate) fn merged(k: &Loop, target: &Target) -> Result<Loop, Reject> {
    check_body(&k.body, &k.args, &[&k.outer[..], &k.row[..]].concat())?;
    let mut merged = k.clone();
    if target.is_wide() && k.row.is_empty() {
        space::in_order_of_stores(&mut merged.outer, &mut merged.body);
    }
    let mut groups = [std::mem::take(&mut merged.outer), std::mem::take(&mut merged.row)];
    space::merge(&mut groups, &mut [(&mut merged.body, &[0, 1])]);
    [merged.outer, merged.row] = groups;
    Ok(merged)
}

/// How rows are spread over invocations.
pub(crate) struct Shape {
    /// Invocations of a workgroup, and how many there must be at least.
    pub(crate) size: usize,
    least: usize,
    /// Invocations that share a row; a power of two.
    pub(crate) lanes: usize,
    /// True iff neighbouring invocations have neighbouring rows rather than elements.
    pub(crate) rows_first: bool,
    /// Consecutive rows that an invocation does one after the other, for the sake of shared words.
    pub(crate) batch: usize,
    /// Consecutive elements of a row that a lane does, for the same reason.
    pub(crate) chunk: usize,
    /// Workgroups of the dispatch.
    pub(crate) workgroups: u32,
    /// True iff workgroups come back for more.
    pub(crate) strides: bool,
}

impl Shape {
    /// The shape for these rows, in workgroups of at least `size` invocations.
    pub(crate) fn choose(rows: &Rows, target: &Target, least: usize) -> Result<Shape, Reject> {
        let (each, once) = rows.stores();
        let packed = |s: &&&Store| rows.per_word(s) > 1;
        let mut arguments: Vec<u32> = each.iter().chain(&once).filter(packed).map(|s| s.arg).collect();
        let n_packed = arguments.len();
        arguments.sort_unstable();
        arguments.dedup();
        let misplaced = |stores: &[&Store], each| stores.iter().filter(packed).any(|s| !rows.is_row_major(s, each));
        if misplaced(&each, true) || misplaced(&once, false) || n_packed != arguments.len() {
            return Err(Reject::Unsupported("a narrow store that is not in row-major order"));
        }
        // A word that straddles two rows is whole only for an invocation that does both.
        let straddles = |s: &&&Store| !rows.len.is_multiple_of(rows.per_word(s));
        let per = |s: &&Store| rows.per_word(s);
        let batch = once.iter().map(per).chain(each.iter().filter(straddles).map(per)).max().unwrap_or(1);
        let chunk = each.iter().map(per).max().unwrap_or(1);
        let alone = each.iter().any(|s| straddles(&s));
        let (lanes, rows_first) = if alone { (1, true) } else { lanes(rows, target) };
        let shape = Shape { size: 0, least, lanes, rows_first, batch, chunk, workgroups: 0, strides: false }
            .sized(rows, target);
        shape.within_limits(rows, target, alone)
    }

    /// The shape with workgroups for all rows.
    fn sized(mut self, rows: &Rows, target: &Target) -> Shape {
        let most = target.max_invocations as usize;
        self.size = match self.lanes {
            1 if target.software => 64,
            lanes if target.software && target.schedule == Schedule::Auto => lanes,
            lanes => lanes.max(256),
        }
        .max(self.least)
        .min(most);
        let items = rows.n_rows.div_ceil(self.rows() * self.batch);
        self.workgroups = items.min(target.max_workgroups as usize) as u32;
        self.strides = items > self.workgroups as usize;
        self
    }

    /// The shape, with fewer lanes if they need too much workgroup memory, and with more if a software
    /// adapter would not finish.
    fn within_limits(self, rows: &Rows, target: &Target, alone: bool) -> Result<Shape, Reject> {
        let mut shape = self;
        if shape.lanes > 1 && 4 * shape.size * parts(rows).len() > target.max_workgroup_bytes as usize {
            shape = Shape { lanes: 1, rows_first: true, ..shape }.sized(rows, target);
        }
        while shape.turns(rows) > target.max_turns {
            let lanes = shape.lanes * 2;
            let bytes = 4 * lanes * parts(rows).len();
            if alone || lanes > target.max_invocations as usize || bytes > target.max_workgroup_bytes as usize {
                return Err(Reject::Unsupported("a row longer than a software adapter's loops"));
            }
            shape = Shape { lanes, rows_first: false, ..shape }.sized(rows, target);
        }
        Ok(shape)
    }

    /// Turns of all loops of one invocation, about.
    pub(crate) fn turns(&self, rows: &Rows) -> usize {
        let items = rows.n_rows.div_ceil(self.rows() * self.batch);
        let passes = rows.phases.len() + usize::from(!rows.stores().0.is_empty());
        let row = passes * (rows.len.div_ceil(self.lanes) + rows.len / (self.lanes * BLOCK) + 12);
        items.div_ceil(self.workgroups.max(1) as usize) * self.batch * (1 + row)
    }

    /// Who does what, for people.
    pub(crate) fn describe(&self, rows: &Rows) -> String {
        let spread = match self.lanes {
            1 if rows.phases.is_empty() => "one invocation a point".to_string(),
            1 => format!("one invocation a row of {}", rows.len),
            lanes => format!("{lanes} invocations a row of {}", rows.len),
        };
        match self.batch {
            1 => spread,
            n => format!("{spread}, {n} rows in turn"),
        }
    }

    /// Rows that a workgroup does at once.
    pub(crate) fn rows(&self) -> usize {
        self.size / self.lanes
    }
}

/// How many invocations share a row, and whether neighbours have neighbouring rows.
fn lanes(rows: &Rows, target: &Target) -> (usize, bool) {
    let most = 1 << target.max_invocations.min(256).ilog2();
    let (n, len) = (rows.n_rows, rows.len);
    let power = |x: usize| 1usize << x.max(1).ilog2();
    if rows.phases.is_empty() || target.schedule == Schedule::Plain {
        return (1, true);
    }
    let forced = target.schedule == Schedule::Shared;
    if target.software && !forced {
        return if n < 16 && len >= 2048 { (32, false) } else { (1, true) };
    }
    if columns(rows) {
        // Enough invocations to fill a large GPU, each with enough to do.
        let lanes = power((1 << 17) / n.max(1)).min(power(len / 8)).clamp(1, most / 8);
        return (if forced { lanes.max(4) } else { lanes }, true);
    }
    if len <= 32 && !forced {
        return (1, true);
    }
    let wide = len >= 1 << 14 && n < 128 && target.max_invocations >= 1024;
    (if wide { 1024 } else { power(len / 4).clamp(4, most) }, false)
}

/// True iff neighbouring rows, not neighbouring elements of a row, are neighbours in memory, in most of what is loaded.
pub(crate) fn columns(rows: &Rows) -> bool {
    let Some(last_outer) = rows.outer.checked_sub(1) else { return false };
    let dims = &rows.scope.axes.dims;
    let rank = dims.len();
    let (mut outer, mut row) = (0, 0);
    for instr in &rows.scope.body.instrs {
        let Instr::Load { index, .. } = instr else { continue };
        let points: usize = (0..rank).filter(|&axis| index.uses(&|a| a == axis)).map(|axis| dims[axis]).product();
        // An axis may be two in memory, of which the nearer is the remainder.
        let is_one = |axis: usize| {
            let steps = |atom: &Atom| match atom {
                Atom::Var(a) => *a == axis,
                Atom::Mod(e, _) => **e == Index::var(axis),
                Atom::Div(..) => false,
            };
            index.terms.iter().any(|(c, atom)| c.abs() == 1 && steps(atom))
        };
        outer += if is_one(last_outer) { points } else { 0 };
        row += if rank > rows.outer && is_one(rank - 1) { points } else { 0 };
    }
    outer > row
}
