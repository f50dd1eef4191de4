//! Scatters: slices added into zeros in the order of the slices, so without atomics.
//!
//! Either every result looks for the slices that belong to it, which reads all of the index for each
//! result; or every column of the result takes all slices in turn, which has few invocations. The
//! cheaper one runs.

use kiln_ir::kernel::Scatter;
use kiln_ir::{DType, Reject};

use super::body::{element, stored};
use super::code::{Code, per_word, value_type};
use super::module::module;
use super::{MAX_POINTS, MAX_SOFTWARE_TURNS, Schedule, Shader, Target};

/// Extents of a scatter.
struct Extents {
    outer: usize,
    index: usize,
    inner: usize,
    size: usize,
}

/// The scatter in WGSL.
pub(crate) fn emit(k: &Scatter, target: &Target) -> Result<Shader, Reject> {
    let [index, values, result] = &k.args;
    if values.dtype.compute() != result.dtype.compute() || result.dtype == DType::Bool {
        return Err(Reject::Unsupported("a scatter whose result is of another type than its values"));
    }
    if index.dtype.compute() == DType::F32 {
        return Err(Reject::Unsupported("a scatter whose index is a float"));
    }
    let numel = |dims: &[usize]| dims.iter().product::<usize>();
    let x = Extents { outer: numel(&k.outer), index: numel(&k.index), inner: numel(&k.inner), size: k.size };
    if x.outer.saturating_mul(x.index.max(x.size)).saturating_mul(x.inner) > MAX_POINTS {
        return Err(Reject::Unsupported("more than 2³¹ points"));
    }
    let packed = per_word(result.dtype) > 1;
    let by_column = match target.schedule {
        _ if packed => false,
        Schedule::Plain => false,
        Schedule::Shared => true,
        Schedule::Auto => columns_are_cheaper(&x, target),
    };
    let turns = x.index + x.size;
    let by_column = by_column && !(target.software && turns > MAX_SOFTWARE_TURNS);
    if target.software && x.index > MAX_SOFTWARE_TURNS {
        return Err(Reject::Unsupported("an index longer than a software adapter's loops"));
    }
    let (how, code, workgroups) = match by_column {
        true => columns(k, &x, target),
        false => results(k, &x, target),
    };
    let name = format!("scatter {:?}·{:?}·{:?} into {}", k.outer, k.index, k.inner, k.size);
    let wgsl = module(&[name.clone(), how.into()], &k.args, 0, &code);
    Ok(Shader { name, wgsl, workgroups, args: k.args.to_vec(), scalars: 0 })
}

/// Compares the steps that the busiest invocation does. A step of a column waits for memory; one of
/// a result compares two numbers, most of the time.
fn columns_are_cheaper(x: &Extents, target: &Target) -> bool {
    let at_once = if target.software { 16 } else { 1 << 16 };
    let turns = |invocations: usize| invocations.div_ceil(at_once);
    let by_result = turns(x.outer * x.size * x.inner) * x.index;
    let by_column = turns(x.outer * x.inner) * (x.size / 8 + 16 * x.index);
    by_column < by_result
}

/// The place of slice `i`, as a line.
fn place(code: &mut Code, k: &Scatter, i: &str) {
    let raw = element(0, k.args[0].dtype, i);
    let last = k.size.max(1) - 1;
    code.line(match k.args[0].dtype.compute() {
        DType::U32 => format!("let place = min({raw}, {last}u);"),
        _ => format!("let place = u32(clamp({raw}, 0i, {last}i));"),
    });
}

fn begin(code: &mut Code, items: usize, target: &Target) -> u32 {
    let size = if target.software { 64 } else { 256.min(target.max_invocations as usize) };
    let workgroups = items.div_ceil(size).min(target.max_workgroups as usize);
    code.line(format!("@compute @workgroup_size({size})"));
    code.open("fn main(@builtin(global_invocation_id) id: vec3<u32>)");
    code.open(format!("for (var item = id.x; item < {items}u; item += {}u)", size * workgroups));
    workgroups as u32
}

/// One invocation a result, or the results that share a word.
fn results(k: &Scatter, x: &Extents, target: &Target) -> (&'static str, String, u32) {
    let mut code = Code::default();
    let dtype = k.args[2].dtype;
    let (per, numel) = (per_word(dtype), x.outer * x.size * x.inner);
    let workgroups = begin(&mut code, numel.div_ceil(per), target);
    if per > 1 {
        code.line("var word = 0u;");
        code.open(format!("for (var at = item * {per}u; at < min(item * {per}u + {per}u, {numel}u); at++)"));
    } else {
        code.line("let at = item;");
    }
    code.line(format!("let outer = at / {}u;", (x.size * x.inner).max(1)));
    code.line(format!("let own = at / {}u % {}u;", x.inner.max(1), x.size.max(1)));
    code.line(format!("let inner = at % {}u;", x.inner.max(1)));
    code.line(format!("var sum = {}(0);", value_type(dtype)));
    code.open(format!("for (var i = 0u; i < {}u; i++)", x.index));
    place(&mut code, k, "i");
    code.open("if (place == own)");
    let from = format!("(outer * {}u + i) * {}u + inner", x.index, x.inner);
    code.line(format!("sum += {};", element(1, k.args[1].dtype, &from)));
    code.close();
    code.close();
    if per > 1 {
        code.line(format!("word |= ({}) << ((at & {}u) * {}u);", stored(dtype, "sum"), per - 1, 32 / per));
        code.close();
        code.line("a2[item] = word;");
    } else {
        code.line(format!("a2[at] = {};", stored(dtype, "sum")));
    }
    code.close();
    code.close();
    ("one invocation a result looks for its slices", code.into_text(), workgroups)
}

/// One invocation a column, that is, a place in the slices and in each of the results.
fn columns(k: &Scatter, x: &Extents, target: &Target) -> (&'static str, String, u32) {
    let mut code = Code::default();
    let workgroups = begin(&mut code, x.outer * x.inner, target);
    code.line(format!("let outer = item / {}u;", x.inner.max(1)));
    code.line(format!("let inner = item % {}u;", x.inner.max(1)));
    code.open(format!("for (var s = 0u; s < {}u; s++)", x.size));
    code.line(format!("a2[(outer * {}u + s) * {}u + inner] = {}(0);", x.size, x.inner, value_type(k.args[2].dtype)));
    code.close();
    code.open(format!("for (var i = 0u; i < {}u; i++)", x.index));
    place(&mut code, k, "i");
    let from = format!("(outer * {}u + i) * {}u + inner", x.index, x.inner);
    let value = element(1, k.args[1].dtype, &from);
    code.line(format!("a2[(outer * {}u + place) * {}u + inner] += {value};", x.size, x.inner));
    code.close();
    code.close();
    code.close();
    ("one invocation a column takes all slices in turn", code.into_text(), workgroups)
}
