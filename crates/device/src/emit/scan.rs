//! Running reductions: rows of elements that lie `inner` apart, each from its beginning or from its end.
//!
//! Either an invocation walks a row, which is best where neighbouring rows are neighbours in memory. Or `lanes` of
//! them share it tile by tile: a tile is fetched into workgroup memory as it lies, each invocation reduces a few
//! consecutive elements, all of them scan what each has, and what came before the tile is carried to the next one.
//! Nothing waits for another workgroup, so the order of every reduction is fixed.

use kiln_ir::kernel::Scan;
use kiln_ir::{DType, ReduceOp, Reject};

use super::code::{Code, literal, per_word, value_type};
use super::module::Module;
use super::writer::{BLOCK, PLACE, row_of_item};
use super::{Schedule, Shader, Target};

/// Consecutive elements of a tile that are an invocation's own.
const OWN: usize = 4;

/// From this many neighbouring rows on, loads of one step of each are as good as loads along a row.
const NEIGHBOURS: usize = 32;

/// Rows up to this length are not worth a barrier.
const SHORT: usize = 8;

/// The scan in WGSL.
pub(crate) fn emit(k: &Scan, target: &Target) -> Result<Shader, Reject> {
    let dtype = k.args[0].dtype;
    if per_word(dtype) > 1 || dtype == DType::Bool || k.op == ReduceOp::ArgMax || k.args[1].dtype != dtype {
        return Err(Reject::Unsupported("a scan of anything but words that are numbers"));
    }
    let mut shape = Shape::new(k, lanes(k, target), target);
    while shape.turns() > target.max_turns {
        shape = Shape::new(k, (2 * shape.lanes).max(32), target);
        if shape.lanes > target.max_invocations as usize {
            return Err(Reject::Unsupported("a row longer than a software adapter's loops"));
        }
    }
    if shape.bytes() > target.max_workgroup_bytes as usize {
        return Err(Reject::Unsupported("a tile larger than workgroup memory"));
    }
    let end = if k.reverse { " from the end" } else { "" };
    let name = format!("scan {} {}·{}·{}{end}", k.op.name(), k.outer, k.len, k.inner);
    let how = match shape.lanes {
        1 => "one invocation a row".to_owned(),
        n => format!("{n} invocations a row, {} elements at a time", n * OWN),
    };
    let mut code = Code::default();
    match shape.lanes {
        1 => shape.walk(&mut code),
        _ => shape.share(&mut code),
    }
    Ok(Module::new([name, how], &k.args, code.into_text(), shape.workgroups as u32).shader(target))
}

/// How many invocations share a row.
fn lanes(k: &Scan, target: &Target) -> usize {
    let most = 1 << target.max_invocations.min(256).ilog2();
    let wide = k.len.div_ceil(OWN).next_power_of_two().max(OWN);
    // A tile's elements lie as many places apart as lanes, among places in groups of their own.
    let wide = if most < OWN { 1 } else { wide.min(most) };
    match target.schedule {
        Schedule::Plain => 1,
        Schedule::Shared => wide,
        Schedule::Auto if target.software => match k.outer * k.inner < 16 && k.len >= 2048 {
            true => wide.min(32),
            false => 1,
        },
        Schedule::Auto if k.inner >= NEIGHBOURS || k.len <= SHORT => 1,
        Schedule::Auto => wide,
    }
}

/// A scan and who does it.
struct Shape<'a> {
    k: &'a Scan,
    /// Invocations of a workgroup, and those that share a row; powers of two.
    size: usize,
    lanes: usize,
    /// Rows, or as many of them as a workgroup does at once.
    items: usize,
    workgroups: usize,
}

impl<'a> Shape<'a> {
    fn new(k: &'a Scan, lanes: usize, target: &Target) -> Shape<'a> {
        let most = 1 << target.max_invocations.min(256).ilog2();
        let size = match lanes {
            1 if target.software => most.min(64),
            lanes if target.software && target.schedule == Schedule::Auto => lanes,
            lanes => lanes.max(most),
        };
        let rows = if k.len == 0 { 0 } else { k.outer * k.inner };
        let items = if lanes == 1 { rows } else { rows.div_ceil(size / lanes) };
        let groups = if lanes == 1 { items.div_ceil(size) } else { items };
        Shape { k, size, lanes, items, workgroups: groups.min(target.max_workgroups as usize) }
    }

    /// Turns of all loops of one invocation, about.
    fn turns(&self) -> usize {
        let (len, groups) = (self.k.len, self.workgroups.max(1));
        match self.lanes {
            1 => self.items.div_ceil(groups * self.size) * (1 + len + len.div_ceil(BLOCK)),
            lanes => self.items.div_ceil(groups) * (1 + len.div_ceil(lanes * OWN) * (1 + lanes.ilog2() as usize)),
        }
    }

    /// Bytes of workgroup memory.
    fn bytes(&self) -> usize {
        let partial = if self.sums().is_scaled() { 8 } else { 4 };
        if self.lanes == 1 { 0 } else { self.size * (4 * (OWN + 1) + 2 * partial) }
    }

    fn sums(&self) -> Sums {
        Sums { op: self.k.op, dtype: self.k.args[0].dtype }
    }

    /// Where the first element of the row lies that `row` numbers.
    fn base(&self, code: &mut Code) {
        let (len, inner) = (self.k.len, self.k.inner.max(1));
        let row = match inner {
            1 => format!("row * {len}u"),
            _ => format!("row / {inner}u * {}u + row % {inner}u", len * inner),
        };
        let last = len.saturating_sub(1) * inner;
        code.line(if self.k.reverse { format!("let base = {row} + {last}u;") } else { format!("let base = {row};") });
    }

    /// Where the element lies that is the n-th in running order.
    fn at(&self, n: &str) -> String {
        let sign = if self.k.reverse { "-" } else { "+" };
        match self.k.inner {
            0 | 1 => format!("base {sign} {n}"),
            inner => format!("base {sign} {n} * {inner}u"),
        }
    }

    /// One invocation a row. Long sums are made in blocks: see [`BLOCK`].
    fn walk(&self, code: &mut Code) {
        let (len, sums) = (self.k.len, self.sums());
        let in_blocks = self.k.op == ReduceOp::Sum && sums.dtype == DType::F32 && len > 2 * BLOCK;
        code.line(format!("@compute @workgroup_size({})", self.size));
        code.open("fn main(@builtin(global_invocation_id) id: vec3<u32>)");
        let step = self.size * self.workgroups;
        code.open(format!("for (var row = id.x; row < {}u; row += {step}u)", self.items));
        self.base(code);
        let mut before = None;
        if in_blocks {
            code.line(format!("var before = {};", sums.none()));
            code.open(format!("for (var block = 0u; block < {len}u; block += {BLOCK}u)"));
            before = Some("before");
        }
        code.line(format!("var sum = {};", sums.none()));
        code.open(match before {
            Some(_) => format!("for (var n = block; n < min(block + {BLOCK}u, {len}u); n++)"),
            None => format!("for (var n = 0u; n < {len}u; n++)"),
        });
        code.line(format!("let at = {};", self.at("n")));
        code.line(format!("sum = {};", sums.join("sum", &sums.wide("a0[at]"))));
        let so_far = before.map_or("sum".to_owned(), |before| sums.join(before, "sum"));
        code.line(format!("a1[at] = {};", sums.kept(&so_far)));
        code.close();
        if let Some(before) = before {
            code.line(format!("{before} = {};", sums.join(before, "sum")));
            code.close();
        }
        code.close();
        code.close();
    }

    /// Several invocations a row.
    fn share(&self, code: &mut Code) {
        let &Shape { k, size, lanes, items, workgroups } = self;
        let (len, sums, slots) = (k.len, self.sums(), size / lanes);
        let tile = lanes * OWN;
        code.line(format!("var<workgroup> tile: array<{}, {}>;", value_type(sums.dtype), size * (OWN + 1)));
        // Two halves that take turns.
        code.line(format!("var<workgroup> part: array<{}, {}>;", sums.kind(), 2 * size));
        code.line("");
        code.line(format!("@compute @workgroup_size({size})"));
        code.open(format!("fn main({PLACE})"));
        code.line(if slots == 1 { "let lane = local;".to_owned() } else { format!("let lane = local % {lanes}u;") });
        // One place in `OWN + 1` stays empty, so that neighbours' own elements lie in different banks.
        code.line(format!("let own = local * {}u;", OWN + 1));
        if slots > 1 {
            code.line(format!("let slot = local / {lanes}u;"));
        }
        code.open(format!("for (var item = id.x; item < {items}u; item += {workgroups}u)"));
        let rows = k.outer * k.inner;
        let ragged = row_of_item(code, slots, rows);
        self.base(code);
        code.line(format!("var before = {};", sums.none()));
        code.open(format!("for (var first = 0u; first < {len}u; first += {tile}u)"));
        self.places(code);
        // Behind the end of a row lies whatever was there: nothing that is kept depends on it.
        self.each(code, |place, at| format!("tile[{place}] = a0[{at}];"));
        code.line("workgroupBarrier(); // publishes the tile");
        self.scan(code);
        if ragged {
            code.open("if (live)");
        }
        self.each(code, |place, at| format!("a1[{at}] = tile[{place}];"));
        if ragged {
            code.close();
        }
        if len > tile || items > workgroups {
            code.line("workgroupBarrier(); // all have stored the tile");
        }
        code.close();
        code.close();
        code.close();
    }

    /// Names the elements of a tile that an invocation fetches and stores, `n0`, …, and their places in the tile,
    /// `e0`, …: as they lie in memory, neighbouring invocations have neighbouring ones.
    fn places(&self, code: &mut Code) {
        let &Shape { size, lanes, .. } = self;
        let of_row = if size > lanes { format!("slot * {}u + ", lanes * (OWN + 1)) } else { String::new() };
        code.line("let n0 = first + lane;");
        code.line(format!("let e0 = {of_row}lane + lane / {OWN}u;"));
        for n in 1..OWN {
            code.line(format!("let n{n} = n0 + {}u;", n * lanes));
            code.line(format!("let e{n} = e0 + {}u;", n * (lanes + lanes / OWN)));
        }
    }

    /// Does something with each of them that lies in its row.
    fn each(&self, code: &mut Code, line: impl Fn(&str, &str) -> String) {
        let ragged = !self.k.len.is_multiple_of(self.lanes * OWN);
        for n in 0..OWN {
            let line = line(&format!("e{n}"), &self.at(&format!("n{n}")));
            if ragged {
                code.open(format!("if (n{n} < {}u)", self.k.len));
                code.line(line);
                code.close();
            } else {
                code.line(line);
            }
        }
    }

    /// Leaves each element's running reduction in the tile, and that of the whole row so far in `before`.
    fn scan(&self, code: &mut Code) {
        let &Shape { size, lanes, .. } = self;
        let sums = self.sums();
        code.line(format!("let own0 = {};", sums.wide("tile[own]")));
        for n in 1..OWN {
            let next = sums.wide(&format!("tile[own + {n}u]"));
            code.line(format!("let own{n} = {};", sums.join(&format!("own{}", n - 1), &next)));
        }
        code.line(format!("part[local] = own{};", OWN - 1));
        code.line("workgroupBarrier(); // publishes what each invocation has");
        code.line("var half = 0u;");
        code.open(format!("for (var reach = 1u; reach < {lanes}u; reach *= 2u)"));
        code.line("var sum = part[half + local];");
        code.open("if (lane >= reach)");
        code.line(format!("sum = {};", sums.join("part[half + local - reach]", "sum")));
        code.close();
        code.line(format!("half = {size}u - half;"));
        code.line("part[half + local] = sum;");
        code.line("workgroupBarrier(); // publishes what reaches twice as far");
        code.close();
        code.line("var until = before;");
        code.open("if (lane > 0u)");
        code.line(format!("until = {};", sums.join("before", "part[half + local - 1u]")));
        code.close();
        let last = match size == lanes {
            true => format!("half + {}u", lanes - 1),
            false => format!("half + slot * {lanes}u + {}u", lanes - 1),
        };
        code.line(format!("before = {};", sums.join("before", &format!("part[{last}]"))));
        for n in 0..OWN {
            let place = if n == 0 { "own".to_owned() } else { format!("own + {n}u") };
            code.line(format!("tile[{place}] = {};", sums.kept(&sums.join("until", &format!("own{n}")))));
        }
        code.line("workgroupBarrier(); // publishes the results");
    }
}

/// What is joined: numbers, but products of floats as mantissa and exponent, since a part of a row may leave the
/// range that the whole stays in.
#[derive(Clone, Copy)]
struct Sums {
    op: ReduceOp,
    dtype: DType,
}

impl Sums {
    fn is_scaled(self) -> bool {
        self.op == ReduceOp::Prod && self.dtype == DType::F32
    }

    /// The WGSL type.
    fn kind(self) -> &'static str {
        if self.is_scaled() { "vec2<f32>" } else { value_type(self.dtype) }
    }

    /// That of no elements.
    fn none(self) -> String {
        match self.is_scaled() {
            true => "vec2<f32>(1.0, 0.0)".into(),
            false => literal(self.dtype, self.op.identity(self.dtype)),
        }
    }

    /// That of an element.
    fn wide(self, x: &str) -> String {
        if self.is_scaled() { format!("k_scaled({x})") } else { x.into() }
    }

    /// That of a piece and the one after it.
    fn join(self, a: &str, b: &str) -> String {
        let suffix = value_type(self.dtype);
        match self.op {
            ReduceOp::Sum => format!("{a} + {b}"),
            ReduceOp::Prod if self.is_scaled() => format!("k_scaled_times({a}, {b})"),
            ReduceOp::Prod => format!("{a} * {b}"),
            ReduceOp::Max => format!("k_max_{suffix}({a}, {b})"),
            ReduceOp::Min => format!("k_min_{suffix}({a}, {b})"),
            ReduceOp::ArgMax => unreachable!("refused before"),
        }
    }

    /// The element that is stored.
    fn kept(self, sum: &str) -> String {
        if self.is_scaled() { format!("k_unscaled({sum})") } else { sum.into() }
    }
}
