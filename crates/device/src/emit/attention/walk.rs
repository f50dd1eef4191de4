//! What four own rows do when they meet four of the other side: scores, their maximum, weights, sums.
//!
//! The hard idea is that each invocation knows its rows' maxima, but only its own part of their sums: the maximum is
//! needed at every step and the sum at the end. So one exchange a step is enough, and one more when all is over.
//!
//! WGSL promises nothing of NaN. No comparison here takes one for a hidden score or an empty sum, and it matters not
//! whether `max` keeps or drops it, since its own share is `exp` of it: a NaN score reaches its row's sum, and with it
//! all results of the row, wherever a device's arithmetic and its `exp` and `log` pass NaN on.

use super::super::code::Code;
use super::{BIAS, Flash, NAMES, Sum, Weight, greatest, least};

/// The invocations that share own rows, and how they come by products of rows.
///
/// Their code has in scope `b`, `own`, the first of an invocation's four own rows, `others`, the first of the four that
/// these meet, and `end`, beyond which no row of the other side is met.
pub(crate) trait Team {
    /// Own rows of a team, and the first of them.
    fn rows(&self) -> (usize, &'static str);

    /// Rows of the other side that a team meets at once, and the first of them.
    fn others(&self) -> (usize, &'static str);

    /// Quads of a sum's columns that an invocation has.
    fn shares(&self, sum: &Sum) -> usize;

    /// The first column of such a quad, and when the quad is not beyond the edge if it may be.
    fn column(&self, sum: &Sum, share: usize) -> (String, Option<String>);

    /// When an invocation is the one of its team that keeps what rows have one of, if there are others.
    fn leads(&self) -> Option<&'static str>;

    /// `name0..3`: the products of four own rows with four others.
    fn product(&self, code: &mut Code, x: &Flash, operands: [usize; 2], name: &str);

    /// Combines a variable of four rows over the invocations of the team; `combine` has `{}` for that of another.
    fn exchange(&self, code: &mut Code, name: &str, what: &str, combine: &str);

    /// Adds rows of the other side, times the weights `name0..3`, to a sum.
    fn accumulate(&self, code: &mut Code, x: &Flash, sum: &Sum, name: &str);
}

const AXES: [&str; 4] = ["x", "y", "z", "w"];

/// What an invocation begins its walk with.
pub(crate) fn begin(code: &mut Code, x: &Flash, team: &dyn Team) {
    for sum in &x.sums {
        for (i, share) in (0..4).flat_map(|i| (0..team.shares(sum)).map(move |share| (i, share))) {
            code.line(format!("var {}{i}_{share} = vec4<f32>();", sum.name));
        }
    }
    if x.forward() {
        code.line(format!("var top = vec4<f32>({});", least()));
        code.line("var total = vec4<f32>(); // of the columns that this invocation has");
    } else if x.from_queries {
        numbers(code, x, "own");
    }
}

/// Numbers of four rows of the queries.
fn numbers(code: &mut Code, x: &Flash, first: &str) {
    let four = |name: &str| (0..4).map(|i| format!("{name}(b, {first} + {i}u)")).collect::<Vec<_>>().join(", ");
    code.line(format!("let sum_log = vec4<f32>({});", four("logsum")));
    if x.slopes() {
        code.line(format!("let mean = vec4<f32>({});", four("delta")));
    }
}

/// Own rows meet others.
pub(crate) fn meet(code: &mut Code, x: &Flash, team: &dyn Team) {
    team.product(code, x, [x.own.scored, x.other.scored], "score");
    let masked = scores(code, x, team);
    if x.forward() {
        maxima(code, x, team, masked);
    } else if !x.from_queries {
        numbers(code, x, "others");
    }
    shares_of(code, x, masked);
    if x.slopes() {
        team.product(code, x, [x.own.sloped, x.other.sloped], "slope");
        for (i, axis) in AXES.into_iter().enumerate() {
            let mean = if x.from_queries { format!("mean.{axis}") } else { "mean".into() };
            code.line(format!("slope{i} = share{i} * (slope{i} - {mean}) * {};", x.scale()));
        }
    }
    for sum in &x.sums {
        team.accumulate(code, x, sum, if sum.weight == Weight::Share { "share" } else { "slope" });
    }
}

/// Scales the scores and adds the bias; says what is hidden in `seen0..3`, if anything may be.
fn scores(code: &mut Code, x: &Flash, team: &dyn Team) -> bool {
    let n = x.other.rows;
    let ((rows, first), (at_once, at)) = (team.rows(), team.others());
    let ragged = !n.is_multiple_of(at_once);
    let masked = ragged || x.causal || x.biased;
    for i in 0..4 {
        let bias = |c: usize| match x.from_queries {
            true => format!("{}(b, own + {i}u, others + {c}u)", NAMES[BIAS]),
            false => format!("{}(b, others + {c}u, own + {i}u)", NAMES[BIAS]),
        };
        if x.biased {
            code.line(format!("let bias{i} = vec4<f32>({});", (0..4).map(bias).collect::<Vec<_>>().join(", ")));
            code.line(format!("score{i} = score{i} * {} + bias{i};", x.scale()));
            // By its bits: compilers may assume that there is no infinity.
            code.line(format!("var seen{i} = bitcast<vec4<u32>>(bias{i}) != vec4<u32>(0xff800000u);"));
        } else {
            code.line(format!("score{i} *= {};", x.scale()));
            if masked {
                code.line(format!("var seen{i} = vec4<bool>(true);"));
            }
        }
    }
    let mut partial: Vec<String> = Vec::new();
    if ragged {
        partial.push(format!("{at} + {at_once}u > {n}u"));
    }
    if x.causal {
        partial.push(match x.from_queries {
            true => format!("{at} + {}u > {first}", at_once - 1),
            false => format!("{first} + {}u > {at}", rows - 1),
        });
    }
    if !partial.is_empty() {
        code.open(format!("if ({})", partial.join(" || ")));
        code.line("let other = others + vec4<u32>(0u, 1u, 2u, 3u);");
        for i in 0..4 {
            let edge = ragged.then(|| format!("(other < vec4<u32>({n}u))"));
            let order = x.causal.then(|| match x.from_queries {
                true => format!("(other <= vec4<u32>(own + {i}u))"),
                false => format!("(other >= vec4<u32>(own + {i}u))"),
            });
            let bias = x.biased.then(|| format!("seen{i}"));
            let all: Vec<String> = [bias, edge, order].into_iter().flatten().collect();
            code.line(format!("seen{i} = {};", all.join(" & ")));
        }
        code.close();
    }
    masked
}

/// The maxima of the rows so far, and what has been summed in proportion to them.
fn maxima(code: &mut Code, x: &Flash, team: &dyn Team, masked: bool) {
    code.line("var higher = top;");
    for (i, axis) in AXES.into_iter().enumerate() {
        let score = match masked {
            true => format!("select(vec4<f32>({}), score{i}, seen{i})", least()),
            false => format!("score{i}"),
        };
        code.line(format!("let best{i} = {score};"));
        let greatest = format!("max(max(best{i}.x, best{i}.y), max(best{i}.z, best{i}.w))");
        code.line(format!("higher.{axis} = max(higher.{axis}, {greatest});"));
    }
    team.exchange(code, "higher", "maxima", "higher = max(higher, {})");
    code.line("let fade = exp(top - higher);");
    code.line("top = higher;");
    code.line("total *= fade;");
    for sum in &x.sums {
        for (i, axis) in AXES.into_iter().enumerate() {
            (0..team.shares(sum)).for_each(|share| code.line(format!("{}{i}_{share} *= fade.{axis};", sum.name)));
        }
    }
}

/// `share0..3`, 0 for what is hidden.
fn shares_of(code: &mut Code, x: &Flash, masked: bool) {
    for (i, axis) in AXES.into_iter().enumerate() {
        let shift = match (x.forward(), x.from_queries) {
            (true, _) => format!("vec4<f32>(top.{axis})"),
            (false, true) => format!("vec4<f32>(sum_log.{axis})"),
            (false, false) => "sum_log".into(),
        };
        let share = format!("exp(score{i} - {shift})");
        match masked {
            true => code.line(format!("let share{i} = select(vec4<f32>(), {share}, seen{i});")),
            false => code.line(format!("let share{i} = {share};")),
        }
    }
    if x.forward() {
        let sum = |i: usize| format!("dot(share{i}, vec4<f32>(1.0f))");
        code.line(format!("total += vec4<f32>({});", (0..4).map(sum).collect::<Vec<_>>().join(", ")));
    }
}

/// Keeps what the walk of a tile has found.
pub(crate) fn finish(code: &mut Code, x: &Flash, team: &dyn Team) {
    if x.forward() {
        team.exchange(code, "total", "sums", "total += {}");
        // A sum of shares is never -0.
        code.line("let empty = bitcast<vec4<u32>>(total) == vec4<u32>(); // by its bits, since NaN is not 0");
        if !x.sums.is_empty() {
            code.line("let portion = select(1.0f / total, vec4<f32>(), empty);");
        }
    }
    let ragged = !x.own.rows.is_multiple_of(team.rows().0);
    for (i, axis) in AXES.into_iter().enumerate() {
        if ragged {
            code.open(format!("if (own + {i}u < {}u)", x.own.rows));
        }
        for sum in &x.sums {
            for share in 0..team.shares(sum) {
                let name = sum.name;
                let (column, inside) = team.column(sum, share);
                let factor = if x.forward() { format!(" * portion.{axis}") } else { String::new() };
                let keep = format!("keep_{name}(b, own + {i}u, {column}, {name}{i}_{share}{factor});");
                guarded(code, inside, &keep);
            }
        }
        if let Some(arg) = x.logsum {
            let log = format!("select(log(total.{axis}) + top.{axis}, {}, empty.{axis})", greatest());
            let keep = format!("a{arg}[b * {}u + own + {i}u] = {log};", x.own.rows);
            guarded(code, team.leads().map(String::from), &keep);
        }
        if ragged {
            code.close();
        }
    }
}

/// A line, under a condition if there is one.
fn guarded(code: &mut Code, condition: Option<String>, line: &str) {
    condition.iter().for_each(|condition| code.open(format!("if ({condition})")));
    code.line(line);
    condition.iter().for_each(|_| code.close());
}
