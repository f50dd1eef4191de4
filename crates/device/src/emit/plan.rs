//! How a loop is done: the one schedule of several that suits it.
//!
//! Arguments are declared once a module, as elements or as strips. So loops of one kernel first say which arguments
//! they take in strips only, then are told which of these all agree on.

use kiln_ir::Reject;

use super::Target;
use super::code::Code;
use super::columns::Columns;
use super::held::Held;
use super::looped::{Shape, columns};
use super::points::Points;
use super::rows::Rows;
use super::turned::Turned;
use super::writer::Writer;

/// A loop's schedule.
pub(crate) enum Plan<'a> {
    /// Element by element.
    Elements(Writer<'a>),
    /// Points in strips.
    Points(Points<'a>),
    /// Points in tiles.
    Turned(Turned<'a>),
    /// Rows in strips.
    Held(Held<'a>),
    /// Strips of rows.
    Columns(Columns<'a>),
}

impl<'a> Plan<'a> {
    /// The loop's schedule, in workgroups of at least `least` invocations; with `strips`, one that takes some.
    pub(crate) fn new(rows: &'a Rows<'a>, target: &Target, least: usize, strips: bool) -> Result<Plan<'a>, Reject> {
        let shape = Shape::choose(rows, target, least)?;
        if !target.is_wide() || !strips || !rows.stores_each_argument_once() {
            return Ok(Plan::Elements(Writer { rows, shape }));
        }
        if let Some(turned) = Turned::new(rows, target, least) {
            return Ok(Plan::Turned(turned));
        }
        if let Some(points) = Points::new(rows, target, least) {
            return Ok(Plan::Points(points));
        }
        if columns(rows) {
            if let Some(columns) = Columns::new(rows, target, least) {
                return Ok(Plan::Columns(columns));
            }
        } else if let Some(held) = Held::new(rows, target, least) {
            return Ok(Plan::Held(held));
        }
        Ok(Plan::Elements(Writer { rows, shape }))
    }

    /// The plans of loops that are one kernel, and which arguments are in strips.
    pub(crate) fn of_all(
        rows: &'a [Rows<'a>],
        target: &Target,
        least: usize,
    ) -> Result<(Vec<Plan<'a>>, Vec<bool>), Reject> {
        let n_args = rows.first().map_or(0, |rows| rows.scope.args.len());
        let mut plans = rows.iter().map(|rows| Plan::new(rows, target, least, true)).collect::<Result<Vec<_>, _>>()?;
        loop {
            let mut wide = vec![true; n_args];
            plans.iter().for_each(|plan| plan.narrow(&mut wide));
            let mut content = true;
            for (plan, rows) in plans.iter_mut().zip(rows) {
                if !plan.keep(&wide) {
                    *plan = Plan::new(rows, target, least, false)?;
                    content = false;
                }
            }
            if content {
                return Ok((plans, wide));
            }
        }
    }

    fn narrow(&self, wide: &mut [bool]) {
        match self {
            Plan::Elements(writer) => writer.narrow(wide),
            Plan::Points(points) => points.narrow(wide),
            Plan::Turned(turned) => turned.narrow(wide),
            Plan::Held(held) => held.narrow(wide),
            Plan::Columns(columns) => columns.narrow(wide),
        }
    }

    fn keep(&mut self, wide: &[bool]) -> bool {
        match self {
            Plan::Elements(_) => true,
            Plan::Points(points) => points.keep(wide),
            Plan::Turned(turned) => turned.keep(wide),
            Plan::Held(held) => held.keep(wide),
            Plan::Columns(columns) => columns.keep(wide),
        }
    }

    /// Invocations of a workgroup.
    pub(crate) fn size(&self) -> usize {
        match self {
            Plan::Elements(writer) => writer.shape.size,
            Plan::Points(points) => points.size,
            Plan::Turned(turned) => turned.size,
            Plan::Held(held) => held.size(),
            Plan::Columns(columns) => columns.size(),
        }
    }

    /// Workgroups of the dispatch.
    pub(crate) fn workgroups(&self) -> u32 {
        match self {
            Plan::Elements(writer) => writer.shape.workgroups,
            Plan::Points(points) => points.workgroups,
            Plan::Turned(turned) => turned.workgroups,
            Plan::Held(held) => held.workgroups,
            Plan::Columns(columns) => columns.workgroups,
        }
    }

    /// Turns of all loops of one invocation, about.
    pub(crate) fn turns(&self) -> usize {
        match self {
            Plan::Elements(writer) => writer.shape.turns(writer.rows),
            Plan::Points(_) | Plan::Turned(_) => 1,
            Plan::Held(held) => held.turns(),
            Plan::Columns(columns) => columns.turns(),
        }
    }

    /// Declarations of workgroup memory.
    pub(crate) fn arrays(&self) -> Vec<String> {
        match self {
            Plan::Elements(writer) => writer.arrays(),
            Plan::Points(_) => Vec::new(),
            Plan::Turned(turned) => turned.arrays(),
            Plan::Held(held) => held.arrays(),
            Plan::Columns(columns) => columns.arrays(),
        }
    }

    /// How it is done, for people.
    pub(crate) fn describe(&self) -> String {
        match self {
            Plan::Elements(writer) => writer.shape.describe(writer.rows),
            Plan::Points(points) => points.describe(),
            Plan::Turned(turned) => turned.describe(),
            Plan::Held(held) => held.describe(),
            Plan::Columns(columns) => columns.describe(),
        }
    }

    /// Whether an entry point knows invocations by their number among all, rather than by workgroup.
    pub(crate) fn by_invocation(&self) -> bool {
        matches!(self, Plan::Elements(writer) if writer.shape.lanes == 1)
    }

    /// What an entry point does, where a workgroup's number is `group`.
    pub(crate) fn body(&self, code: &mut Code, group: &str) {
        match self {
            Plan::Elements(writer) => writer.body(code, group),
            Plan::Points(points) => points.body(code, group),
            Plan::Turned(turned) => turned.body(code, group),
            Plan::Held(held) => held.body(code, group),
            Plan::Columns(columns) => columns.body(code, group),
        }
    }
}

/// Bytes of workgroup memory that these declarations take; their elements are words.
pub(crate) fn bytes(arrays: &[String]) -> usize {
    let numel = |line: &String| line.rsplit(", ").next()?.trim_end_matches(">;").parse::<usize>().ok();
    arrays.iter().map(|line| 4 * numel(line).unwrap_or(0)).sum()
}
