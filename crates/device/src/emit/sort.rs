//! Stable sorts of rows, by keys whose bits are in order.
//!
//! Either an element counts how many come before it, which needs no barrier and pays for short rows. Or a row is
//! merged in workgroup memory, from runs of one element to the whole: each element searches for how many of the
//! neighbouring run come before it, which says where it goes. Ties are the left run's, so equals stay in order. That
//! takes a barrier for each doubling, and as many steps between them as a search has; a bitonic network takes a
//! barrier for each of those steps, and four times the traffic. Rows that do not fit are refused.

use kiln_ir::kernel::Sort;
use kiln_ir::sort::Part;
use kiln_ir::{DType, Reject};

use super::body::element;
use super::code::{Code, per_word, value_type};
use super::module::Module;
use super::writer::{PLACE, row_of_item};
use super::{Schedule, Shader, Target};

/// Rows up to this length are sorted by counting: no more elements than a few searches would look at.
const COUNTED: usize = 16;

/// The longest row that is sorted by counting where a schedule allows nothing else: the work grows with its square.
const COUNTED_AT_MOST: usize = 1024;

/// Bytes of an element in workgroup memory: its key and its place, before and after a merge.
const PAIRS: usize = 16;

/// Invocations that a software adapter runs in step: llvmpipe's vectors have 256 bits on most processors.
const VECTOR: usize = 8;

/// The sort in WGSL.
pub(crate) fn emit(k: &Sort, target: &Target) -> Result<Shader, Reject> {
    let dtype = k.args[0].dtype;
    if k.stores.iter().any(|(part, _)| *part == Part::Values) && per_word(dtype) > 1 {
        return Err(Reject::Unsupported("sorted elements narrower than a word"));
    }
    let counted = match target.schedule {
        Schedule::Plain => true,
        Schedule::Shared => false,
        Schedule::Auto => k.len <= COUNTED,
    };
    let shape = if counted { Shape::counting(k, target) } else { Shape::merging(k, target) }?;
    let order = if k.descending { "descending" } else { "ascending" };
    let name = format!("sort {}·{}·{} {order}, first {}", k.outer, k.len, k.inner, k.keep);
    let mut code = Code::default();
    let how = match counted {
        true => "each element counts those before it".to_owned(),
        false => format!("{} invocations merge a row", shape.lanes),
    };
    if counted {
        shape.count(&mut code)
    } else {
        shape.merge(&mut code)
    }
    Ok(Module::new([name, how], &k.args, code.into_text(), shape.workgroups as u32).shader(target))
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
        if k.len > COUNTED_AT_MOST || turns > target.max_turns {
            return Err(Reject::Unsupported("a row too long to be sorted by counting"));
        }
        Ok(Shape { k, size, lanes: 1, items, workgroups })
    }

    /// As many invocations as a row has elements, or as there may be.
    fn merging(k: &'a Sort, target: &Target) -> Result<Shape<'a>, Reject> {
        let most = 1 << target.max_invocations.min(1024).ilog2();
        let room = target.max_workgroup_bytes as usize / (PAIRS * k.len.max(1));
        if room == 0 {
            return Err(Reject::Unsupported("a row too long to be sorted in workgroup memory"));
        }
        // On a software adapter more invocations than a vector's only wait for each other, and more rows too.
        let alone = target.software && target.schedule == Schedule::Auto;
        let lanes = k.len.next_power_of_two().min(if alone { VECTOR } else { most });
        let slots = if alone { 1 } else { (most.min(256) / lanes).clamp(1, 1 << room.ilog2()) };
        let rows = if k.keep == 0 { 0 } else { k.outer * k.inner };
        let items = rows.div_ceil(slots);
        let workgroups = items.min(target.max_workgroups as usize);
        let rounds = k.len.max(1).ilog2() as usize + 1;
        let turns = items.div_ceil(workgroups.max(1)) * k.len.div_ceil(lanes) * (2 + rounds * (2 + rounds / 2));
        if turns > target.max_turns {
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
    fn merge(&self, code: &mut Code) {
        let &Shape { k, size, lanes, items, workgroups } = self;
        let (len, slots, rows) = (k.len, size / lanes, k.outer * k.inner);
        // Two halves that take turns.
        code.line(format!("var<workgroup> keys: array<u32, {}>;", (2 * slots * len).max(1)));
        code.line(format!("var<workgroup> places: array<u32, {}>;", (2 * slots * len).max(1)));
        code.line("");
        self.round(code);
        code.line(format!("@compute @workgroup_size({size})"));
        code.open(format!("fn main({PLACE})"));
        if slots > 1 {
            code.line(format!("let lane = local % {lanes}u;"));
            code.line(format!("let slot = local / {lanes}u;"));
            code.line(format!("let half0 = slot * {}u;", 2 * len));
        } else {
            code.line("let lane = local;");
            code.line("let half0 = 0u;");
        }
        code.line(format!("let half1 = half0 + {len}u;"));
        code.open(format!("for (var item = id.x; item < {items}u; item += {workgroups}u)"));
        let ragged = row_of_item(code, slots, rows);
        self.base(code);
        code.open(format!("for (var n = lane; n < {len}u; n += {lanes}u)"));
        code.line(format!("keys[half0 + n] = {};", self.key("n")));
        code.line("places[half0 + n] = n;");
        code.close();
        code.line("workgroupBarrier(); // publishes the row");
        let rounds = len.max(1).next_power_of_two().ilog2();
        for round in 0..rounds {
            code.line(format!("merge(lane, half{}, half{}, {}u);", round % 2, (round + 1) % 2, 1 << round));
            code.line("workgroupBarrier(); // publishes the longer runs");
        }
        if ragged {
            code.open("if (live)");
        }
        code.open(format!("for (var n = lane; n < {}u; n += {lanes}u)", k.keep));
        code.line(format!("let place = places[half{} + n];", rounds % 2));
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

    /// The function that makes pairs of runs into runs of twice the length; the last ones of a row may be shorter, or
    /// there are none.
    fn round(&self, code: &mut Code) {
        let &Shape { k, size, lanes, .. } = self;
        let (len, some) = (k.len, k.keep < k.len);
        let end = (2 * (size / lanes) * len).max(1) - 1;
        code.open("fn merge(lane: u32, runs: u32, merged: u32, run: u32)");
        code.open(format!("for (var n = lane; n < {len}u; n += {lanes}u)"));
        if some {
            code.line("// What is not among the first of its run is not among those of the row.");
            code.open(format!("if ((n & (run - 1u)) < {}u)", k.keep));
        }
        code.line("let key = keys[runs + n];");
        code.line("let is_right = (n & run) != 0u;");
        code.line("let right = (n | (2u * run - 1u)) + 1u - run;");
        code.line("let other = runs + select(right, right - run, is_right);");
        code.line(
            "// How many of the other run there are, and how many come before: by powers of two, greatest first.",
        );
        let of_run = if some { format!("min(run, {}u)", k.keep) } else { "run".to_owned() };
        code.line(format!("let most = select(min({of_run}, max({len}u, right) - right), {of_run}, is_right);"));
        code.line("var count = 0u;");
        code.open("for (var more = run; more > 0u; more /= 2u)");
        code.line("let probe = count + more;");
        code.line(format!("let before = keys[min(other + probe - 1u, {end}u)];"));
        code.line("let is_less = before < key || (before == key && is_right);");
        code.line("count = select(count, probe, probe <= most && is_less);");
        code.close();
        code.line("let place = merged + count + select(n, n - run, is_right);");
        code.line("keys[place] = key;");
        code.line("places[place] = places[runs + n];");
        if some {
            code.close();
        }
        code.close();
        code.close();
        code.line("");
    }
}
