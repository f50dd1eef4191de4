//! Independent loops in one dispatch: each has workgroups of its own, numbered one loop after the other.
//!
//! The branch that picks a loop depends on the number of the workgroup alone, so barriers inside it are reached by
//! all invocations or by none.

use kiln_ir::Reject;
use kiln_ir::kernel::{Body, Loop};

use super::code::Code;
use super::looped::{Shape, merged};
use super::module::{module, n_scalars, op_names};
use super::rows::Rows;
use super::writer::{PLACE, Writer, declare, parts};
use super::{MAX_SOFTWARE_TURNS, Shader, Target};

/// The loops in WGSL.
pub(crate) fn emit(loops: &[Loop], target: &Target) -> Result<Shader, Reject> {
    let merged = loops.iter().map(merged).collect::<Result<Vec<_>, _>>()?;
    let rows: Vec<Rows> = merged.iter().map(Rows::new).collect();
    let shapes = |least| rows.iter().map(|rows| Shape::choose(rows, target, least)).collect::<Result<Vec<_>, _>>();
    // Workgroups have one size; those of each loop by itself say which.
    let size = shapes(0)?.iter().map(|s| s.size).max().unwrap_or(1);
    let shapes = shapes(size)?;
    let mut arrays: Vec<(String, &str)> = Vec::new();
    for (rows, _) in rows.iter().zip(&shapes).filter(|(_, shape)| shape.lanes > 1) {
        for part in parts(rows) {
            if !arrays.contains(&part) {
                arrays.push(part);
            }
        }
    }
    let workgroups = shapes.iter().map(|s| s.workgroups).sum::<u32>();
    let turns: usize = rows.iter().zip(&shapes).map(|(rows, shape)| shape.turns(rows)).sum();
    if shapes.iter().any(|s| s.size != size)
        || workgroups > target.max_workgroups
        || 4 * size * arrays.len() > target.max_workgroup_bytes as usize
        || (target.software && turns > MAX_SOFTWARE_TURNS)
    {
        return Err(Reject::Unsupported("loops that do not fit into one dispatch"));
    }
    let mut code = Code::default();
    if !arrays.is_empty() {
        declare(&mut code, &arrays, size);
    }
    code.line(format!("@compute @workgroup_size({size})"));
    code.open(format!("fn main({PLACE})"));
    let mut first = 0;
    for (rows, shape) in rows.iter().zip(&shapes).filter(|(_, shape)| shape.workgroups > 0) {
        let end = first + shape.workgroups;
        code.open(format!("if (id.x >= {first}u && id.x < {end}u)"));
        let group = if first == 0 { "id.x".to_owned() } else { format!("id.x - {first}u") };
        code.line(format!("let group = {group};"));
        let start = if shape.lanes == 1 { format!("group * {size}u + local") } else { "group".to_owned() };
        Writer { rows, shape }.body(&mut code, &start);
        code.close();
        first = end;
    }
    code.close();
    let bodies: Vec<&Body> = loops.iter().map(|k| &k.body).collect();
    let scalars = n_scalars(&bodies);
    let name = format!("{} loops {}", loops.len(), op_names(&bodies));
    let args = loops.first().map_or(Vec::new(), |k| k.args.clone());
    let header = [name.clone(), format!("each in workgroups of its own, {size} invocations")];
    let wgsl = module(&header, &args, scalars, &code.into_text());
    Ok(Shader { name, wgsl, workgroups, args, scalars })
}
