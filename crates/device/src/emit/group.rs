//! Independent loops in one dispatch: each has workgroups of its own, numbered one loop after the other.
//!
//! The branch that picks a loop depends on the number of the workgroup alone, so barriers inside it are reached by
//! all invocations or by none.

use kiln_ir::Reject;
use kiln_ir::kernel::{Body, Loop};

use super::code::Code;
use super::looped::{begin, merged};
use super::module::{Module, n_scalars, op_names};
use super::plan::{Plan, bytes};
use super::rows::Rows;
use super::{Shader, Target};

/// The loops in WGSL.
pub(crate) fn emit(loops: &[Loop], target: &Target) -> Result<Shader, Reject> {
    let merged = loops.iter().map(|k| merged(k, target)).collect::<Result<Vec<_>, _>>()?;
    let rows: Vec<Rows> = merged.iter().map(Rows::new).collect();
    // Workgroups have one size; those of each loop by itself say which.
    let size = Plan::of_all(&rows, target, 0)?.0.iter().map(Plan::size).max().unwrap_or(1);
    let (plans, wide) = Plan::of_all(&rows, target, size)?;
    let mut arrays: Vec<String> = Vec::new();
    for array in plans.iter().flat_map(Plan::arrays) {
        if !arrays.contains(&array) {
            arrays.push(array);
        }
    }
    let workgroups = plans.iter().map(Plan::workgroups).sum::<u32>();
    let turns: usize = plans.iter().map(Plan::turns).sum();
    if plans.iter().any(|p| p.size() != size)
        || workgroups > target.max_workgroups
        || bytes(&arrays) > target.max_workgroup_bytes as usize
        || turns > target.max_turns
    {
        return Err(Reject::Unsupported("loops that do not fit into one dispatch"));
    }
    let mut code = Code::default();
    begin(&mut code, &plans, &arrays, size);
    let mut first = 0;
    for plan in plans.iter().filter(|plan| plan.workgroups() > 0) {
        let end = first + plan.workgroups();
        code.open(format!("if (id.x >= {first}u && id.x < {end}u)"));
        let group = if first == 0 { "id.x".to_owned() } else { format!("id.x - {first}u") };
        code.line(format!("let group = {group};"));
        plan.body(
            &mut code,
            &if plan.by_invocation() { format!("group * {size}u + local") } else { "group".to_owned() },
        );
        code.close();
        first = end;
    }
    code.close();
    let bodies: Vec<&Body> = loops.iter().map(|k| &k.body).collect();
    let scalars = n_scalars(&bodies);
    let name = format!("{} loops {}", loops.len(), op_names(&bodies));
    let args = loops.first().map_or(&[][..], |k| &k.args);
    let header = [name, format!("each in workgroups of its own, {size} invocations")];
    Ok(Module::new(header, args, code.into_text(), workgroups).with(&wide, scalars).shader(target))
}
