//! The walk without workgroup memory: an invocation has four rows, and loads what it needs itself.
//!
//! The hard idea is that registers have no addresses: an invocation sums only as many columns as text can name, and
//! where rows are longer, others compute the same scores again for the next columns. Loops are few and short besides:
//! software adapters compile loads slowly and count the turns of loops.

use super::super::Target;
use super::super::code::Code;
use super::walk::{self, AXES, Block, Rows};
use super::{BIAS, DELTA, Flash, LOGSUM, NAMES, Sum, Weight};

/// Invocations of a workgroup.
const SIZE: usize = 64;

/// Quads of a sum's columns that an invocation has.
const QUADS: usize = 4;

/// Four rows of each side, of one invocation.
const BLOCK: Block = Block {
    own: Rows { name: "own", fours: 1, apart: 0, first: "own", all: 4 },
    other: Rows { name: "others", fours: 1, apart: 0, first: "others", all: 4 },
};

/// An invocation that shares its rows only with those that sum the next columns.
struct Alone {
    /// How many of these there are.
    chunks: usize,
}

/// How, the code, its workgroups, and the turns of an invocation's loops.
pub(crate) fn emit(x: &Flash, target: &Target) -> (String, String, u32, usize) {
    let mut code = Code::default();
    for operand in x.reads() {
        let block = if [BIAS, LOGSUM, DELTA].contains(&operand) { [4, 4] } else { [1, 1] };
        x.operand(&mut code, operand, block);
    }
    x.sums.iter().for_each(|sum| x.keep(&mut code, sum, &vec![false; x.args.len()]));
    let alone = Alone { chunks: x.sums.iter().map(|sum| sum.width.div_ceil(4 * QUADS)).max().unwrap_or(0).max(1) };
    let blocks = x.own.rows.div_ceil(4);
    let items = x.batch * blocks * alone.chunks;
    let size = SIZE.min(target.max_invocations as usize);
    let workgroups = x.workgroups(items.div_ceil(size), target);
    code.line(format!("@compute @workgroup_size({size})"));
    code.open("fn main(@builtin(global_invocation_id) id: vec3<u32>)");
    let step = size * workgroups;
    code.open(format!("for (var item = id.x; item < {items}u; item += {step}u)"));
    let [blocks, n] = [blocks, x.other.rows].map(|n| n.max(1));
    code.line(format!("let b = item / {}u;", blocks * alone.chunks));
    match alone.chunks {
        1 => code.line(format!("let own = item % {blocks}u * 4u;")),
        chunks => {
            code.line(format!("let own = item / {chunks}u % {blocks}u * 4u;"));
            code.line(format!(
                "let chunk = item % {chunks}u * {}u; // the first of the columns of the sums",
                4 * QUADS
            ));
        }
    }
    rows(&mut code, "own", "own", x.own.rows);
    for sum in &x.sums {
        alone.parts(sum).for_each(|(i, share)| code.line(format!("var {}{i}_{share} = vec4<f32>();", sum.name)));
    }
    if x.forward() {
        walk::begin(&mut code, &BLOCK);
    } else if x.from_queries {
        numbers(&mut code, x);
    }
    let (start, end) = match (x.causal, x.from_queries) {
        (false, _) => ("0u", format!("{}u", x.other.rows)),
        (true, true) => ("0u", format!("min(own + 4u, {}u)", x.other.rows)),
        (true, false) => ("own", format!("{}u", x.other.rows)),
    };
    code.line(format!("let end = {end};"));
    code.open(format!("for (var others = {start}; others < end; others += 4u)"));
    rows(&mut code, "other", "others", n);
    alone.meet(&mut code, x);
    code.close();
    alone.finish(&mut code, x);
    code.close();
    code.close();
    let turns = items.div_ceil(step.max(1)) * (1 + n.div_ceil(4) * alone.turns(x) + 16 * alone.quads(x));
    let side = if x.from_queries { "queries" } else { "keys" };
    let how = format!("one invocation four rows of the {side} and at most {} columns of the result", 4 * QUADS);
    (how, code.into_text(), workgroups as u32, turns)
}

/// `name0..3`: four rows from `first` on. Beyond the edge the last one is computed again, and not kept.
fn rows(code: &mut Code, name: &str, first: &str, n: usize) {
    for i in 0..4 {
        match n.is_multiple_of(4) {
            true => code.line(format!("let {name}{i} = {first} + {i}u;")),
            false => code.line(format!("let {name}{i} = min({first} + {i}u, {}u);", n.max(1) - 1)),
        }
    }
}

/// Numbers of four rows of the queries.
fn numbers(code: &mut Code, x: &Flash) {
    walk::numbers(code, x, &BLOCK, LOGSUM, "let log");
    if x.slopes() {
        walk::numbers(code, x, &BLOCK, DELTA, "let mean");
    }
}

impl Alone {
    /// Turns of the loops for four rows of the other side.
    fn turns(&self, x: &Flash) -> usize {
        let sloped = if x.slopes() { x.width(x.own.sloped) } else { 0 };
        let turns = |width: usize| width / unrolled(width);
        1 + turns(x.width(x.own.scored)) + turns(sloped) + 4 * x.sums.len()
    }

    /// Quads that an invocation keeps of a row.
    fn quads(&self, x: &Flash) -> usize {
        x.sums.iter().map(|sum| self.shares(sum)).sum()
    }
}

/// Columns that a turn multiplies.
fn unrolled(width: usize) -> usize {
    if width.is_multiple_of(4) { 4 } else { 1 }
}

impl Alone {
    /// Own rows meet others.
    fn meet(&self, code: &mut Code, x: &Flash) {
        self.product(code, x, [x.own.scored, x.other.scored], "score");
        walk::scores(code, x, &BLOCK);
        if x.forward() {
            walk::maxima(code, x, &BLOCK, |_| ());
            for sum in &x.sums {
                for (i, share) in self.parts(sum) {
                    code.line(format!("{}{i}_{share} *= fade0.{};", sum.name, AXES[i]));
                }
            }
        } else if !x.from_queries {
            numbers(code, x);
        }
        walk::shares(code, x, &BLOCK, "log");
        if x.slopes() {
            self.product(code, x, [x.own.sloped, x.other.sloped], "slope");
            for (i, axis) in AXES.into_iter().enumerate() {
                let mean = if x.from_queries { format!("mean0.{axis}") } else { "mean0".into() };
                code.line(format!("slope{i}_0 = share{i}_0 * (slope{i}_0 - {mean}) * {};", x.scale()));
            }
        }
        for sum in &x.sums {
            self.accumulate(code, x, sum, if sum.weight == Weight::Share { "share" } else { "slope" });
        }
    }

    /// Keeps what the walk has found.
    fn finish(&self, code: &mut Code, x: &Flash) {
        if x.forward() {
            walk::portions(code, x, &BLOCK);
        }
        walk::keep(code, x, &BLOCK, |code, i| {
            for sum in &x.sums {
                for share in 0..self.shares(sum) {
                    let (column, inside) = self.column(sum, share);
                    let factor = if x.forward() { format!(" * portion0.{}", AXES[i]) } else { String::new() };
                    let name = sum.name;
                    let keep = format!("keep_{name}(b, own + {i}u, {column}, {name}{i}_{share}{factor});");
                    walk::guarded(code, inside, &keep);
                }
            }
            walk::keep_log(code, x, &BLOCK, i, (self.chunks > 1).then(|| "chunk == 0u".into()));
        });
    }

    /// Quads of a sum's columns that an invocation has.
    fn shares(&self, sum: &Sum) -> usize {
        sum.width.div_ceil(4).min(QUADS)
    }

    /// Every row with every such quad.
    fn parts(&self, sum: &Sum) -> impl Iterator<Item = (usize, usize)> {
        let shares = self.shares(sum);
        (0..4).flat_map(move |i| (0..shares).map(move |share| (i, share)))
    }

    /// The first column of such a quad, and when the quad is not beyond the edge if it may be.
    fn column(&self, sum: &Sum, share: usize) -> (String, Option<String>) {
        let column = if self.chunks > 1 { format!("chunk + {}u", 4 * share) } else { format!("{}u", 4 * share) };
        // Only the last of the chunks may be beyond the edge.
        let beyond = self.chunks * 4 * QUADS > sum.width.next_multiple_of(4) && self.chunks > 1;
        let inside = beyond.then(|| format!("{column} < {}u", sum.width));
        (column, inside)
    }

    /// `name0_0..name3_0`: the products of four own rows with four others.
    fn product(&self, code: &mut Code, x: &Flash, [own, other]: [usize; 2], name: &str) {
        let width = x.width(own);
        let step = unrolled(width);
        (0..4).for_each(|i| code.line(format!("var {name}{i}_0 = vec4<f32>();")));
        code.open(format!("for (var c = 0u; c < {width}u; c += {step}u)"));
        for c in 0..step {
            let others: Vec<String> = (0..4).map(|i| format!("{}(b, other{i}, c + {c}u)", NAMES[other])).collect();
            code.line(format!("let r{c} = vec4<f32>({});", others.join(", ")));
            (0..4).for_each(|i| code.line(format!("{name}{i}_0 += {}(b, own{i}, c + {c}u) * r{c};", NAMES[own])));
        }
        code.close();
    }

    /// Adds rows of the other side, times the weights `name0_0..name3_0`, to a sum.
    fn accumulate(&self, code: &mut Code, x: &Flash, sum: &Sum, name: &str) {
        if self.shares(sum) == 0 {
            return;
        }
        code.open("for (var j = 0u; j < 4u; j++)");
        let weights: Vec<String> = (0..4).map(|i| format!("{name}{i}_0[j]")).collect();
        code.line(format!("let w = vec4<f32>({});", weights.join(", ")));
        let last = x.other.rows.max(1) - 1;
        code.line(match x.other.rows.is_multiple_of(4) {
            true => "let at_row = others + j;".to_string(),
            false => format!("let at_row = min(others + j, {last}u);"),
        });
        for share in 0..self.shares(sum) {
            // Beyond the edge the last column is summed again, and not kept.
            let column = |c: usize| match self.chunks {
                1 => format!("{}u", c.min(sum.width - 1)),
                n if n * 4 * QUADS == sum.width => format!("chunk + {c}u"),
                _ => format!("min(chunk + {c}u, {}u)", sum.width - 1),
            };
            let columns =
                (4 * share..4 * share + 4).map(|c| format!("{}(b, at_row, {})", NAMES[sum.operand], column(c)));
            code.line(format!("let r{share} = vec4<f32>({});", columns.collect::<Vec<_>>().join(", ")));
            for (i, axis) in AXES.into_iter().enumerate() {
                code.line(format!("{}{i}_{share} += w.{axis} * r{share};", sum.name));
            }
        }
        code.close();
    }
}
