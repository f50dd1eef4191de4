//! Scatters: slices added into zeros in the order of the slices, so without atomics.
//!
//! Either every result looks for the slices that belong to it, which needs no barrier. Or a workgroup has a block of
//! the result's rows, reads the whole index once, piece by piece, and adds what falls into its rows; there each
//! invocation has columns of its own, so that every sum keeps its order.

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

/// Looks at an index, by all invocations together, beyond which slices are sooner sorted by where they go: sorting
/// takes dozens of kernels, and some hundred operations for each slice and each result.
const MAX_LOOKS: usize = 1 << 32;
const MAX_SOFTWARE_LOOKS: usize = 1 << 25;

impl Extents {
    /// How often an element of the index is looked at. Invocations of a block look at four at once, and where slices
    /// are long, adding them is what takes time.
    fn looks(&self, by_block: bool) -> usize {
        let results = self.outer.saturating_mul(self.size).saturating_mul(self.inner);
        match by_block {
            true if self.inner >= LONG_SLICE => 0,
            true => self.index.saturating_mul(results.min(self.outer.saturating_mul(BLOCKS * 256))) / 4,
            false => self.index.saturating_mul(results),
        }
    }
}

/// Elements of a slice from which on sorting slices moves more than searching an index reads.
const LONG_SLICE: usize = 64;

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
    // Elements that share a word belong to one invocation, which blocks do not promise.
    let by_block = match target.schedule {
        Schedule::Plain => false,
        Schedule::Shared => !packed,
        Schedule::Auto => !packed && !target.software,
    };
    if target.software && x.index > MAX_SOFTWARE_TURNS {
        return Err(Reject::Unsupported("an index longer than a software adapter's loops"));
    }
    let most = if target.software { MAX_SOFTWARE_LOOKS } else { MAX_LOOKS };
    if target.schedule == Schedule::Auto && x.looks(by_block) > most {
        return Err(Reject::Unsupported("an index that is sooner sorted than searched"));
    }
    let (how, code, workgroups) = match by_block {
        true => blocks(k, &x, target),
        false => results(k, &x, target),
    };
    let name = format!("scatter {:?}·{:?}·{:?} into {}", k.outer, k.index, k.inner, k.size);
    let wgsl = module(&[name.clone(), how.into()], &k.args, 0, &code);
    Ok(Shader { name, wgsl, workgroups, args: k.args.to_vec(), scalars: 0 })
}

/// The place of slice `i`, as a line.
fn place(code: &mut Code, k: &Scatter, i: &str) {
    code.line(format!("let place = {};", clamped(k, i)));
}

/// The place of slice `i`.
fn clamped(k: &Scatter, i: &str) -> String {
    let raw = element(0, k.args[0].dtype, i);
    let last = k.size.max(1) - 1;
    match k.args[0].dtype.compute() {
        DType::U32 => format!("min({raw}, {last}u)"),
        _ => format!("u32(clamp({raw}, 0i, {last}i))"),
    }
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

/// Workgroups that occupy a large GPU; more would read the index more often.
const BLOCKS: usize = 256;

/// One workgroup a block of rows; its invocations are `lanes` columns wide and several bands of rows high.
fn blocks(k: &Scatter, x: &Extents, target: &Target) -> (&'static str, String, u32) {
    let mut code = Code::default();
    let size = 1 << target.max_invocations.min(256).ilog2();
    let lanes = x.inner.max(1).next_power_of_two().min(size);
    let bands = size / lanes;
    // Rows of a band, and of a block.
    let band = x.size.div_ceil(BLOCKS * bands).max(1);
    let block = band * bands;
    let per_outer = x.size.div_ceil(block).max(1);
    let n_blocks = x.outer * x.size.div_ceil(block);
    let workgroups = n_blocks.min(target.max_workgroups as usize);
    let pieces = size / 4;
    let zero = value_type(k.args[2].dtype);
    code.line(format!("var<workgroup> places: array<vec4<u32>, {pieces}>;"));
    code.line("");
    code.line(format!("@compute @workgroup_size({size})"));
    code.open("fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(local_invocation_index) local: u32)");
    code.line(format!("let lane = local % {lanes}u;"));
    code.open(format!("for (var block = id.x; block < {n_blocks}u; block += {workgroups}u)"));
    code.line(format!("let outer = block / {per_outer}u;"));
    code.line(format!("let first = block % {per_outer}u * {block}u + local / {lanes}u * {band}u;"));
    code.line(format!("let result = outer * {}u;", x.size * x.inner));
    code.open(format!("for (var row = first; row < min(first + {band}u, {}u); row++)", x.size));
    code.open(format!("for (var inner = lane; inner < {}u; inner += {lanes}u)", x.inner));
    code.line(format!("a2[result + row * {}u + inner] = {zero}(0);", x.inner));
    code.close();
    code.close();
    code.open(format!("for (var i = 0u; i < {}u; i += {size}u)", x.index));
    code.open(format!("if (local < {pieces}u)"));
    code.line("var four = vec4<u32>(0xffffffffu);");
    for (n, axis) in ["x", "y", "z", "w"].into_iter().enumerate() {
        let slice = format!("i + local * 4u + {n}u");
        code.open(format!("if ({slice} < {}u)", x.index));
        code.line(format!("four.{axis} = {};", clamped(k, &slice)));
        code.close();
    }
    code.line("places[local] = four;");
    code.close();
    code.line("workgroupBarrier(); // publishes the places");
    code.open(format!("for (var j = 0u; j < {pieces}u; j++)"));
    code.line("let own = places[j] - vec4<u32>(first);");
    code.open(format!("if (any(own < vec4<u32>({band}u)))"));
    for (n, axis) in ["x", "y", "z", "w"].into_iter().enumerate() {
        code.open(format!("if (own.{axis} < {band}u)"));
        code.open(format!("for (var inner = lane; inner < {}u; inner += {lanes}u)", x.inner));
        let from = format!("(outer * {}u + i + j * 4u + {n}u) * {}u + inner", x.index, x.inner);
        let value = element(1, k.args[1].dtype, &from);
        code.line(format!("a2[result + (first + own.{axis}) * {}u + inner] += {value};", x.inner));
        code.close();
        code.close();
    }
    code.close();
    code.close();
    code.line("workgroupBarrier(); // all have read the places");
    code.close();
    code.close();
    code.close();
    ("a workgroup has a block of rows and reads the whole index", code.into_text(), workgroups as u32)
}
