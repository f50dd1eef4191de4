//! What an invocation's own rows do when they meet rows of the other side: scores, their maximum, weights.
//!
//! The hard idea is that each invocation knows its rows' maxima, but only its own part of their sums: the maximum is
//! needed at every step and the sum at the end. So one exchange a step is enough, and one more when all is over.
//!
//! Names end in the own row, then the four of the other side: `score5_1`. What is hidden is hidden twice, from the
//! maxima and from the weights, each time by a comparison of row numbers: flags that live between would take registers.
//!
//! WGSL promises nothing of NaN. No comparison here takes one for a hidden score or an empty sum, and it matters not
//! whether `max` keeps or drops it, since its own share is `exp` of it: a NaN score reaches its row's sum, and with it
//! all results of the row, wherever a device's arithmetic and its `exp` and `log` pass NaN on.

use super::super::code::Code;
use super::{BIAS, Flash, NAMES, greatest, least};

/// Axes of a four.
pub(crate) const AXES: [&str; 4] = ["x", "y", "z", "w"];

/// Rows of one side that an invocation has, and those of all that walk with it.
pub(crate) struct Rows {
    /// The variable that has the first one.
    pub(crate) name: &'static str,
    /// How many fours, and how many rows lie from one to the next.
    pub(crate) fours: usize,
    pub(crate) apart: usize,
    /// The variable that has the first row of all, and how many they are.
    pub(crate) first: &'static str,
    pub(crate) all: usize,
}

/// The rows that meet.
pub(crate) struct Block {
    pub(crate) own: Rows,
    pub(crate) other: Rows,
}

impl Rows {
    /// The number of a row.
    pub(crate) fn at(&self, i: usize) -> String {
        format!("{} + {}u", self.name, i / 4 * self.apart + i % 4)
    }

    /// How many there are.
    pub(crate) fn n(&self) -> usize {
        4 * self.fours
    }
}

impl Block {
    /// Every own row with every four of the other side.
    pub(crate) fn pairs(&self) -> impl Iterator<Item = (usize, usize)> {
        let fours = self.other.fours;
        (0..self.own.n()).flat_map(move |i| (0..fours).map(move |j| (i, j)))
    }
}

/// What the forward pass begins its walk with.
pub(crate) fn begin(code: &mut Code, block: &Block) {
    for f in 0..block.own.fours {
        code.line(format!("var top{f} = vec4<f32>({});", least()));
        code.line(format!("var total{f} = vec4<f32>(); // of the columns that this invocation has"));
    }
}

/// `name0..`: what each four of the queries' rows has in an operand that has one number a row.
pub(crate) fn numbers(code: &mut Code, x: &Flash, block: &Block, operand: usize, name: &str) {
    let rows = if x.from_queries { &block.own } else { &block.other };
    for f in 0..rows.fours {
        let four: Vec<String> = (4 * f..4 * f + 4).map(|i| format!("{}(b, {})", NAMES[operand], rows.at(i))).collect();
        code.line(format!("{name}{f} = vec4<f32>({});", four.join(", ")));
    }
}

/// Scales the scores and adds the bias, of which `seen` says where it is not -∞.
pub(crate) fn scores(code: &mut Code, x: &Flash, block: &Block) {
    for (i, j) in block.pairs() {
        if !x.biased {
            code.line(format!("score{i}_{j} *= {};", x.scale()));
            continue;
        }
        let bias = |c: usize| {
            let (own, other) = (block.own.at(i), block.other.at(4 * j + c));
            let [query, key] = if x.from_queries { [own, other] } else { [other, own] };
            format!("{}(b, {query}, {key})", NAMES[BIAS])
        };
        code.line(format!("let bias{i}_{j} = vec4<f32>({});", (0..4).map(bias).collect::<Vec<_>>().join(", ")));
        code.line(format!("score{i}_{j} = score{i}_{j} * {} + bias{i}_{j};", x.scale()));
        // By its bits: compilers may assume that there is no infinity.
        code.line(format!("let seen{i}_{j} = bitcast<vec4<u32>>(bias{i}_{j}) != vec4<u32>(0xff800000u);"));
    }
}

/// Replaces what no row may see.
fn hide(code: &mut Code, x: &Flash, block: &Block, name: &str, otherwise: &str) {
    if x.biased {
        for (i, j) in block.pairs() {
            let kept = format!("select({otherwise}, {name}{i}_{j}, seen{i}_{j})");
            code.line(format!("{name}{i}_{j} = {kept};"));
        }
    }
    let n = x.other.rows;
    let (own, other) = (&block.own, &block.other);
    let ragged = !n.is_multiple_of(other.all);
    let mut partial: Vec<String> = Vec::new();
    if ragged {
        partial.push(format!("{} + {}u > {n}u", other.first, other.all));
    }
    if x.causal {
        partial.push(match x.from_queries {
            true => format!("{} + {}u > {}", other.first, other.all - 1, own.first),
            false => format!("{} + {}u > {}", own.first, own.all - 1, other.first),
        });
    }
    if partial.is_empty() {
        return;
    }
    code.open(format!("if ({})", partial.join(" || ")));
    for j in 0..other.fours {
        code.line(format!("let other{j} = {} + vec4<u32>(0u, 1u, 2u, 3u);", other.at(4 * j)));
    }
    for (i, j) in block.pairs() {
        let edge = ragged.then(|| format!("(other{j} < vec4<u32>({n}u))"));
        let order = x.causal.then(|| {
            let than = if x.from_queries { "<=" } else { ">=" };
            format!("(other{j} {than} vec4<u32>({}))", own.at(i))
        });
        let all: Vec<String> = [edge, order].into_iter().flatten().collect();
        code.line(format!("{name}{i}_{j} = select({otherwise}, {name}{i}_{j}, {});", all.join(" & ")));
    }
    code.close();
}

/// The maxima of the rows so far, in `top0..`, and in `fade0..` what has been summed is to be multiplied with.
pub(crate) fn maxima(code: &mut Code, x: &Flash, block: &Block, exchange: impl FnOnce(&mut Code)) {
    hide(code, x, block, "score", &format!("vec4<f32>({})", least()));
    (0..block.own.fours).for_each(|f| code.line(format!("var higher{f} = top{f};")));
    for i in 0..block.own.n() {
        let (f, axis) = (i / 4, AXES[i % 4]);
        let first = format!("score{i}_0");
        let best = (1..block.other.fours).fold(first, |best, j| format!("max({best}, score{i}_{j})"));
        code.line(format!("let best{i} = {best};"));
        let greatest = format!("max(max(best{i}.x, best{i}.y), max(best{i}.z, best{i}.w))");
        code.line(format!("higher{f}.{axis} = max(higher{f}.{axis}, {greatest});"));
    }
    exchange(code);
    for f in 0..block.own.fours {
        code.line(format!("let fade{f} = exp(top{f} - higher{f});"));
        code.line(format!("top{f} = higher{f};"));
        code.line(format!("total{f} *= fade{f};"));
    }
}

/// `share0_0..`, 0 for what is hidden; `log` are the logarithms of the sums, where those are known.
pub(crate) fn shares(code: &mut Code, x: &Flash, block: &Block, log: &str) {
    for (i, j) in block.pairs() {
        let (f, axis) = (i / 4, AXES[i % 4]);
        let shift = match (x.forward(), x.from_queries) {
            (true, _) => format!("vec4<f32>(top{f}.{axis})"),
            (false, true) => format!("vec4<f32>({log}{f}.{axis})"),
            (false, false) => format!("{log}{j}"),
        };
        code.line(format!("var share{i}_{j} = exp(score{i}_{j} - {shift});"));
    }
    hide(code, x, block, "share", "vec4<f32>()");
    if x.forward() {
        for f in 0..block.own.fours {
            let sum = |i: usize| {
                let shares: Vec<String> = (0..block.other.fours).map(|j| format!("share{i}_{j}")).collect();
                format!("dot({}, vec4<f32>(1.0f))", shares.join(" + "))
            };
            let sums: Vec<String> = (4 * f..4 * f + 4).map(sum).collect();
            code.line(format!("total{f} += vec4<f32>({});", sums.join(", ")));
        }
    }
}

/// `portion0..`, which make shares of what was summed, once `total0..` are whole.
pub(crate) fn portions(code: &mut Code, x: &Flash, block: &Block) {
    for f in 0..block.own.fours {
        // A sum of shares is never -0.
        let bits = format!("bitcast<vec4<u32>>(total{f})");
        code.line(format!("let empty{f} = {bits} == vec4<u32>(); // by its bits, since NaN is not 0"));
        if !x.sums.is_empty() {
            code.line(format!("let portion{f} = select(1.0f / total{f}, vec4<f32>(), empty{f});"));
        }
    }
}

/// Keeps what the walk has found, row by row.
pub(crate) fn keep(code: &mut Code, x: &Flash, block: &Block, mut row: impl FnMut(&mut Code, usize)) {
    let ragged = !x.own.rows.is_multiple_of(block.own.all);
    for i in 0..block.own.n() {
        if ragged {
            code.open(format!("if ({} < {}u)", block.own.at(i), x.own.rows));
        }
        row(code, i);
        if ragged {
            code.close();
        }
    }
}

/// Keeps the logarithm of a row's sum, if it is asked for.
pub(crate) fn keep_log(code: &mut Code, x: &Flash, block: &Block, i: usize, condition: Option<String>) {
    let (f, axis) = (i / 4, AXES[i % 4]);
    if let Some(arg) = x.logsum {
        let log = format!("select(log(total{f}.{axis}) + top{f}.{axis}, {}, empty{f}.{axis})", greatest());
        let keep = format!("a{arg}[b * {}u + {}] = {log};", x.own.rows, block.own.at(i));
        guarded(code, condition, &keep);
    }
}

/// A line, under a condition if there is one.
pub(crate) fn guarded(code: &mut Code, condition: Option<String>, line: &str) {
    condition.iter().for_each(|condition| code.open(format!("if ({condition})")));
    code.line(line);
    condition.iter().for_each(|_| code.close());
}
