//! The walk for real GPUs: a workgroup has a tile of rows, and meets the other side 64 rows at a time.
//!
//! The hard idea is that both operands of every product pass through one *stage* in workgroup memory, a slice at a
//! time, so that memory depends on the tile and not on the number of columns. Only the weights are there whole: what
//! registers have found by rows is read by columns. An invocation has four own rows: of the scores it has four
//! columns, of the sums every 16th quad of columns.

use super::super::code::Code;
use super::super::{Schedule, Target};
use super::walk::{self, Team};
use super::{BIAS, COTANGENT, Flash, KEY, NAMES, QUERY, Sum, VALUE};

/// Rows of the other side that are met at once.
const OTHERS: usize = 64;

/// Invocations that share four rows: each has four columns of the scores.
const ACROSS: usize = OTHERS / 4;

/// Steps of a sum that stand in the text one after the other.
const STEPS: usize = 16;

/// How much of a product a workgroup has at once.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Tile {
    /// Own rows.
    rows: usize,
    /// Columns of both operands of a product that are staged together.
    slice: usize,
}

impl Tile {
    /// The largest tile that fits and still gives every part of a large GPU something to do; `None` if none fits.
    pub(crate) fn choose(x: &Flash, target: &Target) -> Option<Tile> {
        let fits = |tile: &Tile| {
            tile.threads() as u32 <= target.max_invocations && tile.bytes() as u32 <= target.max_workgroup_bytes
        };
        let products = [Some(x.own.scored), x.slopes().then_some(x.own.sloped)];
        // A wider slice needs fewer barriers, unless it is mostly beyond the edge.
        let widest = if products.into_iter().flatten().all(|operand| whole(x.width(operand))) { 32 } else { 16 };
        let mut found = None;
        for rows in [64, 32, 16] {
            let tiles = [widest, 16].map(|slice| Tile { rows, slice });
            found = tiles.into_iter().find(fits).or(found);
            let enough = match target.schedule {
                Schedule::Shared => x.own.rows >= rows,
                _ => x.batch * x.own.rows.div_ceil(rows) >= 128,
            };
            if found.is_some() && enough {
                break;
            }
        }
        found
    }

    /// Invocations of a workgroup.
    fn threads(&self) -> usize {
        self.rows / 4 * ACROSS
    }

    /// `vec4`s from one column of the own rows to the next in workgroup memory; one is padding against conflicts.
    fn pitch(&self) -> usize {
        self.rows / 4 + 1
    }

    /// `vec4`s of the stage: a slice of own rows, then one of others.
    fn stage(&self) -> usize {
        self.slice * (self.pitch() + ACROSS + 1)
    }

    /// Workgroup memory.
    fn bytes(&self) -> usize {
        16 * (self.stage() + OTHERS * self.pitch())
    }

    /// How many rows of this many quads are staged together.
    fn staged_rows(&self, quads: usize) -> usize {
        let most = OTHERS.min(self.stage() / quads);
        1 << most.ilog2()
    }
}

/// True iff slices of 32 columns hold no more beyond the edge than slices of 16.
fn whole(width: usize) -> bool {
    width.next_multiple_of(32) == width.next_multiple_of(16)
}

/// Quads of a sum's columns.
fn quads(sum: &Sum) -> usize {
    sum.width.div_ceil(4)
}

/// How, the code, its workgroups, and the turns of an invocation's loops, where these arguments are bound in strips.
pub(crate) fn emit(x: &Flash, tile: &Tile, target: &Target, wide: &[bool]) -> (String, String, u32, usize) {
    let mut code = Code::default();
    let [queries, keys] = if x.from_queries { [tile.rows, OTHERS] } else { [OTHERS, tile.rows] };
    for operand in x.reads() {
        let block = match operand {
            BIAS => [queries, keys],
            KEY | VALUE => [keys, tile.slice],
            _ => [queries, tile.slice],
        };
        match operand {
            QUERY | KEY | VALUE | COTANGENT => x.operand4(&mut code, operand, block, wide),
            _ => x.operand(&mut code, operand, block),
        }
    }
    x.sums.iter().for_each(|sum| x.keep(&mut code, sum, wide));
    code.line(format!("var<workgroup> stage: array<vec4<f32>, {}>; // slices of the operands", tile.stage()));
    if !x.sums.is_empty() {
        let weights = OTHERS * tile.pitch();
        code.line(format!("var<workgroup> weights: array<vec4<f32>, {weights}>; // [other, own]"));
    }
    code.line("");
    let per_batch = x.own.rows.div_ceil(tile.rows).max(1);
    let tiles = x.batch * x.own.rows.div_ceil(tile.rows);
    let workgroups = x.workgroups(tiles, target);
    code.line(format!("@compute @workgroup_size({})", tile.threads()));
    code.open("fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(local_invocation_index) local: u32)");
    code.line(format!("let column = local % {ACROSS}u; // of the scores and the sums, in quads"));
    code.line(format!("let row = local / {ACROSS}u; // of the tile, in fours"));
    code.open(format!("for (var tile = id.x; tile < {tiles}u; tile += {workgroups}u)"));
    code.line(format!("let b = tile / {per_batch}u;"));
    code.line(format!("let first = tile % {per_batch}u * {}u;", tile.rows));
    code.line("let own = first + row * 4u;");
    walk::begin(&mut code, x, tile);
    // What is hidden from all rows of the tile is not visited.
    let n = x.other.rows;
    let (start, end) = match (x.causal, x.from_queries) {
        (false, _) => ("0u".to_string(), format!("{n}u")),
        (true, true) => ("0u".to_string(), format!("min(first + {}u, {n}u)", tile.rows)),
        (true, false) => (format!("first / {OTHERS}u * {OTHERS}u"), format!("{n}u")),
    };
    code.line(format!("let end = {end};"));
    code.open(format!("for (var at = {start}; at < end; at += {OTHERS}u)"));
    code.line("let others = at + column * 4u;");
    walk::meet(&mut code, x, tile);
    code.close();
    walk::finish(&mut code, x, tile);
    code.close();
    code.close();
    let turns = tiles.div_ceil(workgroups.max(1)) * (2 + n.div_ceil(OTHERS) * turns(x, tile));
    let side = if x.from_queries { "queries" } else { "keys" };
    let how = format!(
        "a workgroup {} rows of the {side}, {OTHERS} of the other side at a time in slices of {}; 4 x 4 an invocation",
        tile.rows, tile.slice
    );
    (how, code.into_text(), workgroups as u32, turns)
}

/// Turns of the loops for one tile of the other side, and for what is kept.
fn turns(x: &Flash, tile: &Tile) -> usize {
    let product = |width: usize| width.div_ceil(tile.slice) * (1 + 2 * tile.slice);
    let products = product(x.width(x.own.scored)) + if x.slopes() { product(x.width(x.own.sloped)) } else { 0 };
    let sums: usize = x.sums.iter().map(|sum| 3 * OTHERS + 16 * tile.shares(sum)).sum();
    products + sums + 3 * ACROSS
}

/// Appends the loads of `n` quads at `slot` of the stage by all invocations of the workgroup.
fn load(code: &mut Code, tile: &Tile, n: usize, quad: impl FnOnce(&mut Code)) {
    let threads = tile.threads();
    if n == threads {
        code.open("");
        code.line("let slot = local;");
    } else if n.is_multiple_of(threads) {
        code.open(format!("for (var turn = 0u; turn < {}u; turn++)", n / threads));
        code.line(format!("let slot = turn * {threads}u + local;"));
    } else {
        code.open(format!("for (var slot = local; slot < {n}u; slot += {threads}u)"));
    }
    quad(code);
    code.close();
}

impl Team for Tile {
    fn rows(&self) -> (usize, &'static str) {
        (self.rows, "first")
    }

    fn others(&self) -> (usize, &'static str) {
        (OTHERS, "at")
    }

    fn shares(&self, sum: &Sum) -> usize {
        quads(sum).div_ceil(ACROSS)
    }

    fn column(&self, sum: &Sum, share: usize) -> (String, Option<String>) {
        let quad = if share == 0 { "column".to_string() } else { format!("(column + {}u)", share * ACROSS) };
        let inside = ((share + 1) * ACROSS > quads(sum)).then(|| format!("{quad} < {}u", quads(sum)));
        (format!("{quad} * 4u"), inside)
    }

    fn leads(&self) -> Option<&'static str> {
        Some("column == 0u")
    }

    /// Neighbouring invocations load neighbouring columns.
    fn product(&self, code: &mut Code, x: &Flash, [own, other]: [usize; 2], name: &str) {
        (0..4).for_each(|i| code.line(format!("var {name}{i} = vec4<f32>();")));
        let (slice, pitch, width) = (self.slice, self.pitch(), x.width(own));
        let others = slice * pitch;
        let quads = slice / 4;
        let columns = if width > slice { "c + at_column".to_string() } else { "at_column".to_string() };
        if width > slice {
            code.open(format!("for (var c = 0u; c < {width}u; c += {slice}u)"));
        }
        code.line("workgroupBarrier(); // all have read the stage");
        let side = |code: &mut Code, operand: usize, (rows, first): (usize, &str), (start, pitch): (&str, usize)| {
            load(code, self, quads * rows, |code| {
                code.line(format!("let at_row = slot / {quads}u;"));
                code.line(format!("let at_column = slot % {quads}u * 4u;"));
                code.line(format!("let four = {}4(b, {first} + at_row, {columns});", NAMES[operand]));
                for c in 0..4 {
                    let place = format!("{start}(at_column + {c}u) * {pitch}u + at_row / 4u");
                    code.line(format!("stage[{place}][at_row % 4u] = four[{c}];"));
                }
            });
        };
        side(code, own, (self.rows, "first"), ("", pitch));
        side(code, other, (OTHERS, "at"), (&format!("{others}u + "), ACROSS + 1));
        code.line("workgroupBarrier(); // publishes a slice of both operands");
        for step in 0..slice {
            code.open("");
            code.line(format!("let l = stage[row + {}u];", step * pitch));
            code.line(format!("let r = stage[column + {}u];", others + step * (ACROSS + 1)));
            for (i, axis) in ["x", "y", "z", "w"].into_iter().enumerate() {
                code.line(format!("{name}{i} += l.{axis} * r;"));
            }
            code.close();
        }
        if width > slice {
            code.close();
        }
    }

    fn exchange(&self, code: &mut Code, name: &str, what: &str, combine: &str) {
        let fours = self.rows / 4;
        code.line("workgroupBarrier(); // all have read the stage");
        code.line(format!("stage[column * {fours}u + row] = {name};"));
        code.line(format!("workgroupBarrier(); // publishes the {what} of each invocation's columns"));
        code.line(format!("{name} = stage[row];"));
        code.open(format!("for (var lane = 1u; lane < {ACROSS}u; lane++)"));
        code.line(format!("{};", combine.replace("{}", &format!("stage[lane * {fours}u + row]"))));
        code.close();
    }

    fn accumulate(&self, code: &mut Code, x: &Flash, sum: &Sum, name: &str) {
        if self.shares(sum) == 0 {
            return;
        }
        if sum.name != x.sums[0].name {
            code.line("workgroupBarrier(); // all have read the last weights");
        }
        for (n, axis) in ["x", "y", "z", "w"].into_iter().enumerate() {
            let four: Vec<String> = (0..4).map(|i| format!("{name}{i}.{axis}")).collect();
            let place = format!("(column * 4u + {n}u) * {}u + row", self.pitch());
            code.line(format!("weights[{place}] = vec4<f32>({});", four.join(", ")));
        }
        let n = quads(sum);
        let rows = self.staged_rows(n);
        code.open(format!("for (var part = 0u; part < min({OTHERS}u, end - at); part += {rows}u)"));
        code.line("workgroupBarrier(); // publishes the weights; all have read the stage");
        load(code, self, rows * n, |code| {
            code.line(format!("let at_row = at + part + slot / {n}u;"));
            code.line(format!("let c = slot % {n}u * 4u;"));
            code.line(format!("stage[slot] = {}4(b, at_row, c);", NAMES[sum.operand]));
        });
        code.line("workgroupBarrier(); // publishes rows of the other side");
        let steps = rows.min(STEPS);
        code.open(format!("for (var step = 0u; step < {rows}u; step += {steps}u)"));
        code.line(format!("let weight = (part + step) * {}u + row;", self.pitch()));
        for step in 0..steps {
            code.open("");
            code.line(format!("let w = weights[weight + {}u];", step * self.pitch()));
            for share in 0..self.shares(sum) {
                // Beyond the edge the last quad is summed again, and not kept.
                let last = n - 1;
                let quad = match (share * ACROSS, (share + 1) * ACROSS > n) {
                    (0, false) => "column".to_string(),
                    (first, false) => format!("column + {first}u"),
                    (first, true) => format!("min(column + {first}u, {last}u)"),
                };
                code.line(format!("let r{share} = stage[(step + {step}u) * {n}u + {quad}];"));
            }
            for (i, axis) in ["x", "y", "z", "w"].into_iter().enumerate() {
                for share in 0..self.shares(sum) {
                    code.line(format!("{}{i}_{share} += w.{axis} * r{share};", sum.name));
                }
            }
            code.close();
        }
        code.close();
        code.close();
    }
}
