//! Stable sorts of rows: keys whose bits are in order, each with its place, so that no two are equal.
//!
//! Either an element counts how many come before it, which needs no barrier and pays for short rows. Or a row is
//! sorted in workgroup memory by a bitonic network, whose steps are the same whatever the elements are: Batcher 1968,
//! <https://doi.org/10.1145/1468075.1468121>, in the form whose comparators all point the same way. Longer rows than
//! fit there are refused.

use kiln_ir::kernel::Sort;
use kiln_ir::sort::Part;
use kiln_ir::{DType, Reject};

use super::body::element;
use super::code::{Code, per_word, value_type};
use super::module::module;
use super::writer::PLACE;
use super::{MAX_SOFTWARE_TURNS, Schedule, Shader, Target};

/// Rows up to this length are sorted by counting: on a GPU no more than a few steps of a network would read, and on a
/// software adapter what a barrier costs.
const COUNTED: usize = 32;
const COUNTED_IN_SOFTWARE: usize = 256;

/// The longest row that is sorted by counting where a schedule allows nothing else: the work grows with its square.
const COUNTED_AT_MOST: usize = 1024;

/// Bytes of a key and its place.
const PAIR: usize = 8;

/// The sort in WGSL.
pub(crate) fn emit(k: &Sort, target: &Target) -> Result<Shader, Reject> {
    let dtype = k.args[0].dtype;
    if k.stores.iter().any(|(part, _)| *part == Part::Values) && per_word(dtype) > 1 {
        return Err(Reject::Unsupported("sorted elements narrower than a word"));
    }
    let counted = match target.schedule {
        Schedule::Plain => true,
        Schedule::Shared => false,
        Schedule::Auto if target.software => k.len <= COUNTED_IN_SOFTWARE,
        Schedule::Auto => k.len <= COUNTED,
    };
    let shape = if counted { Shape::counting(k, target) } else { Shape::network(k, target) }?;
    let order = if k.descending { "descending" } else { "ascending" };
    let name = format!("sort {}·{}·{} {order}, first {}", k.outer, k.len, k.inner, k.keep);
    let mut code = Code::default();
    let how = match counted {
        true => "each element counts those before it".to_owned(),
        false => format!("{} invocations a row, a network of {} elements", shape.lanes, padded(k)),
    };
    if counted {
        shape.count(&mut code)
    } else {
        shape.sort(&mut code)
    }
    let wgsl = module(&[name.clone(), how], &k.args, 0, &code.into_text());
    Ok(Shader { name, wgsl, workgroups: shape.workgroups as u32, args: k.args.clone(), scalars: 0 })
}

/// Elements of the network of a row.
fn padded(k: &Sort) -> usize {
    k.len.next_power_of_two().max(2)
}

/// A sort and who does it.
struct Shape<'a> {
    k: &'a Sort,
    /// Invocations of a workgroup, and those that share a row; powers of two.
    size: usize,
    lanes: usize,
    /// Elements, or as many rows as a workgroup does at once.
    items: usize,
    workgroups: usize,
}

impl<'a> Shape<'a> {
    /// One invocation an element.
    fn counting(k: &'a Sort, target: &Target) -> Result<Shape<'a>, Reject> {
        let most = 1 << target.max_invocations.min(256).ilog2();
        let size = if target.software { most.min(64) } else { most };
        let items = if k.keep == 0 { 0 } else { k.outer * k.len * k.inner };
        let workgroups = items.div_ceil(size).min(target.max_workgroups as usize);
        let turns = items.div_ceil(size * workgroups.max(1)) * (k.len + 1);
        if k.len > COUNTED_AT_MOST || (target.software && turns > MAX_SOFTWARE_TURNS) {
            return Err(Reject::Unsupported("a row too long to be sorted by counting"));
        }
        Ok(Shape { k, size, lanes: 1, items, workgroups })
    }

    /// As many invocations as a step of the network has comparators.
    fn network(k: &'a Sort, target: &Target) -> Result<Shape<'a>, Reject> {
        let most = 1 << target.max_invocations.min(1024).ilog2();
        let lanes = (padded(k) / 2).min(most);
        let room = target.max_workgroup_bytes as usize / (PAIR * padded(k));
        if room == 0 {
            return Err(Reject::Unsupported("a row too long to be sorted in workgroup memory"));
        }
        // Short rows share a workgroup; on a software adapter that would only lengthen it.
        let alone = target.software && target.schedule == Schedule::Auto;
        let slots = if alone { 1 } else { (most.min(256) / lanes).clamp(1, 1 << room.ilog2()) };
        let rows = if k.keep == 0 { 0 } else { k.outer * k.inner };
        let items = rows.div_ceil(slots);
        let workgroups = items.min(target.max_workgroups as usize);
        let steps = padded(k).ilog2() as usize;
        let turns =
            items.div_ceil(workgroups.max(1)) * (steps * steps * (1 + padded(k) / 2 / lanes) + padded(k) / lanes);
        if target.software && turns > MAX_SOFTWARE_TURNS {
            return Err(Reject::Unsupported("more rows than a software adapter's loops"));
        }
        Ok(Shape { k, size: slots * lanes, lanes, items, workgroups })
    }

    /// Names where the row begins in what is sorted and, as `kept`, in what is stored.
    fn base(&self, code: &mut Code) {
        let (inner, len, keep) = (self.k.inner.max(1), self.k.len, self.k.keep);
        let of = |dim: usize| match inner {
            1 => format!("row * {dim}u"),
            _ => format!("row / {inner}u * {}u + row % {inner}u", dim * inner),
        };
        code.line(format!("let base = {};", of(len)));
        code.line(if keep == len { "let kept = base;".to_owned() } else { format!("let kept = {};", of(keep)) });
    }

    /// Where the element lies that is the n-th after this place.
    fn at(&self, base: &str, n: &str) -> String {
        match self.k.inner {
            0 | 1 => format!("{base} + {n}"),
            inner => format!("{base} + {n} * {inner}u"),
        }
    }

    /// The key of the row's n-th element.
    fn key(&self, n: &str) -> String {
        let (dtype, at) = (self.k.args[0].dtype, self.at("base", n));
        let key = match dtype {
            // Truth values are words.
            DType::Bool => format!("a0[{at}]"),
            _ => format!("k_key_{}({})", value_type(dtype), element(0, dtype, &at)),
        };
        if self.k.descending { format!("~{key}") } else { key }
    }

    /// Stores the element that was at `place` as the n-th.
    fn store(&self, code: &mut Code, n: &str, place: &str) {
        let to = self.at("kept", n);
        for (part, arg) in &self.k.stores {
            code.line(match part {
                Part::Values => format!("a{arg}[{to}] = a0[{}];", self.at("base", place)),
                Part::Indices => format!("a{arg}[{to}] = i32({place});"),
            });
        }
    }

    /// Each element is stored where so many come before it.
    fn count(&self, code: &mut Code) {
        let &Shape { k, size, items, workgroups, .. } = self;
        let (len, inner) = (k.len, k.inner.max(1));
        code.line(format!("@compute @workgroup_size({size})"));
        code.open("fn main(@builtin(global_invocation_id) id: vec3<u32>)");
        code.open(format!("for (var item = id.x; item < {items}u; item += {}u)", size * workgroups));
        // Neighbouring invocations have neighbouring elements.
        code.line(format!("let place = item / {inner}u % {}u;", len.max(1)));
        code.line(match inner {
            1 => format!("let row = item / {}u;", len.max(1)),
            _ => format!("let row = item / {}u * {inner}u + item % {inner}u;", (len * inner).max(1)),
        });
        self.base(code);
        code.line(format!("let key = {};", self.key("place")));
        code.line("var before = 0u;");
        code.open(format!("for (var n = 0u; n < {len}u; n++)"));
        code.line(format!("let other = {};", self.key("n")));
        code.line("before += select(0u, 1u, other < key || (other == key && n < place));");
        code.close();
        if k.keep < len {
            code.open(format!("if (before < {}u)", k.keep));
        }
        self.store(code, "before", "place");
        if k.keep < len {
            code.close();
        }
        code.close();
        code.close();
    }

    /// Rows in workgroup memory.
    fn sort(&self, code: &mut Code) {
        let &Shape { k, size, lanes, items, workgroups } = self;
        let (len, slots, padded, rows) = (k.len, size / lanes, padded(k), k.outer * k.inner);
        code.line("// Keys and places.");
        code.line(format!("var<workgroup> pairs: array<vec2<u32>, {}>;", slots * padded));
        code.line("");
        code.line(format!("@compute @workgroup_size({size})"));
        code.open(format!("fn main({PLACE})"));
        if slots > 1 {
            code.line(format!("let lane = local % {lanes}u;"));
            code.line(format!("let slot = local / {lanes}u;"));
            code.line(format!("let own = slot * {padded}u;"));
        } else {
            code.line("let lane = local;");
            code.line("let own = 0u;");
        }
        code.open(format!("for (var item = id.x; item < {items}u; item += {workgroups}u)"));
        let ragged = !rows.is_multiple_of(slots);
        match (slots, ragged) {
            (1, _) => code.line("let row = item;"),
            (_, false) => code.line(format!("let row = item * {slots}u + slot;")),
            (_, true) => {
                code.line(format!("let live = item * {slots}u + slot < {rows}u;"));
                code.line(format!("let row = min(item * {slots}u + slot, {}u);", rows.max(1) - 1));
            }
        }
        self.base(code);
        code.open(format!("for (var n = lane; n < {padded}u; n += {lanes}u)"));
        // What pads the network comes last: no key is greater, and its places are.
        code.line("var key = 0xffffffffu;");
        code.open(format!("if (n < {len}u)"));
        code.line(format!("key = {};", self.key("n")));
        code.close();
        code.line("pairs[own + n] = vec2<u32>(key, n);");
        code.close();
        code.line("workgroupBarrier(); // publishes the row");
        self.network_steps(code);
        if ragged {
            code.open("if (live)");
        }
        code.open(format!("for (var n = lane; n < {}u; n += {lanes}u)", k.keep));
        code.line("let place = pairs[own + n].y;");
        self.store(code, "n", "place");
        code.close();
        if ragged {
            code.close();
        }
        if items > workgroups {
            code.line("workgroupBarrier(); // all have read the row");
        }
        code.close();
        code.close();
    }

    /// Sorted runs become sorted runs of twice the length: the first step compares what lies symmetric about their
    /// border, so that what follows is a smaller half and a greater one, each sorted by further halves.
    fn network_steps(&self, code: &mut Code) {
        let (lanes, padded) = (self.lanes, padded(self.k));
        code.open(format!("for (var run = 2u; run <= {padded}u; run *= 2u)"));
        code.open("for (var half = run / 2u; half > 0u; half /= 2u)");
        code.line("let across = select(half, run - 1u, half * 2u == run);");
        let alone = padded / 2 == lanes;
        match alone {
            true => code.line("let n = lane;"),
            false => code.open(format!("for (var n = lane; n < {}u; n += {lanes}u)", padded / 2)),
        }
        code.line("let low = 2u * n - (n & (half - 1u));");
        code.line("let a = pairs[own + low];");
        code.line("let b = pairs[own + (low ^ across)];");
        code.open("if (b.x < a.x || (b.x == a.x && b.y < a.y))");
        code.line("pairs[own + low] = b;");
        code.line("pairs[own + (low ^ across)] = a;");
        code.close();
        if !alone {
            code.close();
        }
        code.line("workgroupBarrier(); // publishes what was exchanged");
        code.close();
        code.close();
    }
}
