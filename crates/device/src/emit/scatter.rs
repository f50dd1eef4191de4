//! Scatters: slices added into zeros in the order of the slices, so without atomics.
//!
//! Either every result looks for the slices that belong to it, which needs no barrier. Or a workgroup has a block of
//! the result's rows and looks at the whole index, piece by piece. What it finds comes in any order, and is put in the
//! order of rows and slices before it is added, so that every sum keeps its order and is written once.

use kiln_ir::kernel::Scatter;
use kiln_ir::{DType, Reject};

use super::body::{element, stored};
use super::code::{Code, per_word, value_type};
use super::module::Module;
use super::strip::{WIDTH, vector_type};
use super::writer::PLACE;
use super::{MAX_POINTS, Schedule, Shader, Target};

/// Extents of a scatter.
struct Extents {
    outer: usize,
    index: usize,
    inner: usize,
    size: usize,
}

/// Looks at an index, by all invocations together, beyond which slices are sooner sorted by where they go: sorting
/// takes dozens of kernels, and some hundred operations for each slice and each result.
const MAX_LOOKS: usize = 1 << 29;
const MAX_RESULT_LOOKS: usize = 1 << 32;
const MAX_SOFTWARE_LOOKS: usize = 1 << 25;

impl Extents {
    /// How often an element of the index is looked at. Where slices are long, adding them is what takes time.
    fn looks(&self, by_block: bool) -> usize {
        let results = self.outer.saturating_mul(self.size).saturating_mul(self.inner);
        match by_block {
            true if self.inner >= LONG_SLICE => 0,
            true => self.index.saturating_mul(self.outer.saturating_mul(self.size).min(BLOCKS.max(self.outer))),
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
    if x.index > target.max_turns {
        return Err(Reject::Unsupported("an index longer than a software adapter's loops"));
    }
    let most = match by_block {
        _ if target.software => MAX_SOFTWARE_LOOKS,
        true => MAX_LOOKS,
        false => MAX_RESULT_LOOKS,
    };
    if target.schedule == Schedule::Auto && x.looks(by_block) > most {
        return Err(Reject::Unsupported("an index that is sooner sorted than searched"));
    }
    let (how, code, workgroups) = match by_block {
        true => blocks(k, &x, target),
        false => results(k, &x, target),
    };
    let name = format!("scatter {:?}·{:?}·{:?} into {}", k.outer, k.index, k.inner, k.size);
    let wide = by_block && width(k, &x) > 1;
    let module = Module::new([name, how.into()], &k.args, code, workgroups);
    Ok(module.with(&[false, wide, wide], 0).shader(target))
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
const BLOCKS: usize = 1024;

/// Invocations of a workgroup that has a block.
const SIZE: usize = 256;

/// Elements of the index that a workgroup looks at before it adds what it found; a power of two below 2¹⁶, since the
/// place in a piece is half a word. Lists as long as a piece take 8 KiB, so that many workgroups are at work side by side
/// while each waits for the index.
const PIECE: usize = 1024;

/// Elements of the index, and slices of one row, that an invocation asks for at once.
const AT_ONCE: usize = 4;
const TOGETHER: usize = 8;

/// One workgroup a block of rows. It collects which slices of a piece of the index are its own, puts them in the order
/// of rows and then of slices, and teams of invocations add up a row each.
fn blocks(k: &Scatter, x: &Extents, target: &Target) -> (&'static str, String, u32) {
    let mut code = Code::default();
    let size = 1 << target.max_invocations.min(SIZE as u32).ilog2();
    let block = (x.outer * x.size).div_ceil(BLOCKS).clamp(1, x.size.clamp(1, 1 << 15));
    let per_outer = x.size.div_ceil(block).max(1);
    let n_blocks = x.outer * x.size.div_ceil(block);
    let workgroups = n_blocks.min(target.max_workgroups as usize);
    // Two lists of words, and a count.
    let fits = 1 << (target.max_workgroup_bytes as usize / 8 - 1).ilog2();
    let piece = x.index.next_power_of_two().clamp(size, PIECE).min(fits);
    code.line("var<workgroup> n_found: atomic<u32>;");
    code.line(format!("var<workgroup> found: array<u32, {piece}>;"));
    code.line(format!("var<workgroup> sorted: array<u32, {piece}>;"));
    code.line("");
    code.line("// How many of the words that were found are below this one.");
    code.open("fn place_of(word: u32, count: u32) -> u32");
    code.line("var start = 0u;");
    code.open("for (var end = count; start < end; )");
    code.line("let middle = (start + end) / 2u;");
    code.line("let before = sorted[middle] < word;");
    code.line("start = select(start, middle + 1u, before);");
    code.line("end = select(middle, end, before);");
    code.close();
    code.line("return start;");
    code.close();
    code.line("");
    code.line(format!("@compute @workgroup_size({size})"));
    code.open(format!("fn main({PLACE})"));
    code.open(format!("for (var block = id.x; block < {n_blocks}u; block += {workgroups}u)"));
    code.line(format!("let outer = block / {per_outer}u;"));
    code.line(format!("let first = block % {per_outer}u * {block}u;"));
    code.open(format!("for (var piece = 0u; piece < {}u; piece += {piece}u)", x.index.max(1)));
    code.open("if (local == 0u)");
    code.line("atomicStore(&n_found, 0u);");
    code.close();
    code.line("workgroupBarrier(); // publishes the count, and all have read the last piece");
    find(&mut code, k, x, [size, piece, block]);
    code.line("workgroupBarrier(); // publishes what was found");
    code.line("let count = atomicLoad(&n_found);");
    code.open(format!("for (var n = local; n < count; n += {size}u)"));
    code.line("let own = found[n];");
    code.line("var rank = 0u;");
    code.open("for (var other = 0u; other < count; other++)");
    code.line("rank += select(0u, 1u, found[other] < own);");
    code.close();
    code.line("sorted[rank] = own;");
    code.close();
    code.line("workgroupBarrier(); // publishes the order");
    add(&mut code, k, x, [size, piece, block]);
    code.close();
    code.close();
    code.close();
    ("a workgroup has a block of rows and looks for its slices", code.into_text(), workgroups as u32)
}

/// Collects the slices of a piece that belong to the block: the row in the upper half of a word, the slice in the lower.
fn find(code: &mut Code, k: &Scatter, x: &Extents, [size, piece, block]: [usize; 3]) {
    let at_once = AT_ONCE.min(piece / size);
    let ragged = !x.index.is_multiple_of(piece) || x.index == 0;
    code.open(format!("for (var at = local; at < {piece}u; at += {}u)", at_once * size));
    let at = |n: usize| if n == 0 { "at".to_owned() } else { format!("at + {}u", n * size) };
    for n in 0..at_once {
        let slice = match ragged {
            true => format!("min(piece + {}, {}u)", at(n), x.index.max(1) - 1),
            false => format!("piece + {}", at(n)),
        };
        code.line(format!("let own_{n} = {} - first;", clamped(k, &slice)));
    }
    for n in 0..at_once {
        let inside = if ragged { format!(" && piece + {} < {}u", at(n), x.index) } else { String::new() };
        code.open(format!("if (own_{n} < {block}u{inside})"));
        code.line(format!("found[atomicAdd(&n_found, 1u)] = (own_{n} << 16u) | ({});", at(n)));
        code.close();
    }
    code.close();
}

/// Adds what was found of a piece to the rows of the block, each by a team. The first piece writes every row; later ones
/// go from word to word, since few rows have some.
fn add(code: &mut Code, k: &Scatter, x: &Extents, [size, piece, block]: [usize; 3]) {
    let strips = x.inner / width(k, x);
    let team = strips.max(1).next_power_of_two().min(size);
    let (first, step) = (format!("local / {team}u"), size / team);
    let only = x.index <= piece;
    if !only {
        code.open("if (piece == 0u)");
    }
    code.open(format!("for (var row = {first}; row < min({block}u, {}u - first); row += {step}u)", x.size));
    code.line("let start = place_of(row << 16u, count);");
    add_row(code, k, x, (strips, team), true);
    code.close();
    if only {
        return;
    }
    code.close();
    code.open("else");
    code.open(format!("for (var start = {first}; start < count; start += {step}u)"));
    code.line("let row = sorted[start] >> 16u;");
    code.open("if (start > 0u && (sorted[start - 1u] >> 16u) == row)");
    code.line("continue; // another team has the row");
    code.close();
    add_row(code, k, x, (strips, team), false);
    code.close();
    code.close();
}

/// Adds the words from `start` on that belong to `row` to zero, or to what is there.
fn add_row(code: &mut Code, k: &Scatter, x: &Extents, (strips, team): (usize, usize), to_zero: bool) {
    let width = width(k, x);
    code.line("let end = place_of((row + 1u) << 16u, count);");
    code.open(format!("for (var inner = local % {team}u; inner < {strips}u; inner += {team}u)"));
    let result = format!("a2[(outer * {}u + first + row) * {strips}u + inner]", x.size);
    code.line(match (to_zero, width) {
        (false, _) => format!("var sum = {result};"),
        (true, 1) => format!("var sum = {}();", value_type(k.args[2].dtype)),
        (true, _) => format!("var sum = {}();", vector_type(k.args[2].dtype)),
    });
    code.line("var n = start;");
    let slice = |n: &str| {
        let from = format!("(outer * {}u + piece + (sorted[{n}] & 0xffffu)) * {strips}u + inner", x.index);
        if width == 1 { element(1, k.args[1].dtype, &from) } else { format!("a1[{from}]") }
    };
    // The slices of a row that has many are asked for together, and added one after the other.
    code.open(format!("for (; n + {TOGETHER}u <= end; n += {TOGETHER}u)"));
    (0..TOGETHER).for_each(|i| code.line(format!("let slice_{i} = {};", slice(&format!("n + {i}u")))));
    (0..TOGETHER).for_each(|i| code.line(format!("sum += slice_{i};")));
    code.close();
    code.open("for (; n < end; n++)");
    code.line(format!("sum += {};", slice("n")));
    code.close();
    code.line(format!("{result} = sum;"));
    code.close();
}

/// Elements of a slice that an invocation adds at once.
fn width(k: &Scatter, x: &Extents) -> usize {
    let plain = k.args[1].dtype == k.args[2].dtype && matches!(k.args[2].dtype, DType::F32 | DType::I32 | DType::U32);
    if plain && x.inner.is_multiple_of(WIDTH) && x.inner > 0 { WIDTH } else { 1 }
}
