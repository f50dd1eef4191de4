//! The contraction for real GPUs: tiles of both operands in workgroup memory.
//!
//! A workgroup computes a tile of the result. In steps of `k` it brings a tile of each operand into
//! workgroup memory, as `vec4` along m and n, and every invocation multiplies blocks of them in
//! registers. The next tiles are loaded before the current ones are multiplied, to hide their latency;
//! where tiles are few, parts of a workgroup share the steps of `k` and add up at the end.

use super::code::Code;
use super::dot::Matmul;
use super::epilogue::Epilogue;
use super::operand::Operand;
use super::strip::WIDTH;
use super::{LARGE, Target};

/// Extents of a tile, and of the block in it that an invocation computes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Tile {
    /// Rows.
    pub(crate) m: usize,
    /// Columns.
    pub(crate) n: usize,
    /// Steps between two barriers.
    pub(crate) k: usize,
    /// Rows and columns of an invocation's block, in groups of four.
    block: usize,
    /// Parts of the workgroup that share the steps of `k`.
    slices: usize,
    /// What it reaches where all parts of the GPU have as many tiles, GFLOP/s.
    gflops: usize,
}

/// Invocations of a subgroup's shape over a tile, where subgroups have 32: together they read few distinct vectors.
const ACROSS: usize = 8;
const DOWN: usize = 4;

/// Rows of tiles that are worked on together, so that their operands stay in cache.
const BAND: usize = 8;

impl Tile {
    /// Those that are used, largest first; speeds on an H200, whose ratios are what counts.
    const ALL: [Tile; 6] = [
        Tile { m: 128, n: 128, k: 16, block: 2, slices: 1, gflops: 46_500 },
        Tile { m: 128, n: 64, k: 16, block: 2, slices: 1, gflops: 40_700 },
        Tile { m: 64, n: 128, k: 16, block: 2, slices: 1, gflops: 40_700 },
        Tile { m: 64, n: 64, k: 16, block: 2, slices: 2, gflops: 37_700 },
        Tile { m: 16, n: 64, k: 32, block: 1, slices: 2, gflops: 20_000 },
        Tile { m: 32, n: 32, k: 32, block: 1, slices: 4, gflops: 24_300 },
    ];

    /// The largest that such a result fills, or the smallest.
    pub(crate) fn covering(m: usize, n: usize) -> Tile {
        let found = Tile::ALL.into_iter().find(|t| t.m <= m && t.n <= n);
        found.unwrap_or(Tile::ALL[Tile::ALL.len() - 1])
    }

    /// The one with which this product takes the least time; `None` where there are too few for the device.
    pub(crate) fn fastest(x: &Matmul, target: &Target) -> Option<Tile> {
        let fits =
            |t: &Tile| t.threads() as u32 <= target.max_invocations && t.bytes() as u32 <= target.max_workgroup_bytes;
        // A workgroup of any of these keeps a part busy, so that tiles are done in turns of one each; what begins the
        // first and ends the last is hidden behind nothing, and takes about a fifth of a turn.
        let time = |t: &Tile| (5 * t.tiles(x).div_ceil(target.parts) + 1) * t.m * t.n * 1_000_000 / t.gflops;
        // Of an H200's 132 parts, 48 have to have a tile, or 32 the smallest: fewer are slower than rows.
        let least = |t: &Tile| if t.m * t.n == 1024 { 32 } else { 48 };
        let enough = |t: &Tile| t.tiles(x) * LARGE >= least(t) * target.parts;
        Tile::ALL.into_iter().filter(|t| fits(t) && enough(t)).min_by_key(time)
    }

    fn tiles(&self, x: &Matmul) -> usize {
        x.batch * x.m.div_ceil(self.m) * x.n.div_ceil(self.n)
    }

    /// Invocations that compute a tile together, each a block.
    fn blocks(&self) -> usize {
        self.m * self.n / (16 * self.block * self.block)
    }

    /// Invocations of a workgroup.
    pub(crate) fn threads(&self) -> usize {
        self.blocks() * self.slices
    }

    /// `vec4`s from one step of `k` to the next in workgroup memory; one is padding against conflicts.
    fn pitch(&self, dim: usize) -> usize {
        dim / 4 + 1
    }

    /// Workgroup memory.
    pub(crate) fn bytes(&self) -> usize {
        16 * self.k * (self.pitch(self.m) + self.pitch(self.n))
    }

    /// For the header of the shader.
    pub(crate) fn describe(&self) -> String {
        let (Tile { m, n, k, slices, .. }, block) = (self, 4 * self.block);
        let shared = if *slices > 1 { format!(", k in {slices} parts") } else { String::new() };
        format!("tiles of {m} x {n}, {k} deep; {block} x {block} an invocation{shared}")
    }
}

/// The code of a contraction in these tiles, its workgroups, and which arguments are bound in strips.
pub(crate) fn emit(x: &Matmul, tile: &Tile, target: &Target) -> (String, u32, Vec<bool>) {
    let (sides, epilogue, wide) = in_strips(x);
    let mut code = Code::default();
    let ragged_k = !x.k.is_multiple_of(tile.k);
    sides[0].functions(&mut code, (!x.m.is_multiple_of(tile.m), ragged_k));
    sides[1].functions(&mut code, (!x.n.is_multiple_of(tile.n), ragged_k));
    epilogue.function(&mut code, tile.n);
    code.line(format!("var<workgroup> lhs_tile: array<vec4<f32>, {}>;", tile.k * tile.pitch(tile.m)));
    code.line(format!("var<workgroup> rhs_tile: array<vec4<f32>, {}>;", tile.k * tile.pitch(tile.n)));
    code.line("");
    let workgroups = tile.tiles(x).min(target.max_workgroups as usize);
    code.line(format!("@compute @workgroup_size({})", tile.threads()));
    code.open("fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(local_invocation_index) local: u32)");
    places(&mut code, tile);
    code.open(format!("for (var tile = id.x; tile < {}u; tile += {workgroups}u)", tile.tiles(x)));
    corner(&mut code, [x.m.div_ceil(tile.m), x.n.div_ceil(tile.n)], [tile.m, tile.n]);
    contract(&mut code, x, tile, &sides);
    add_slices(&mut code, tile);
    keep(&mut code, x, tile);
    code.close();
    code.close();
    (code.into_text(), workgroups as u32, wide)
}

/// Both operands and the epilogue, with the arguments that all of them take in strips.
fn in_strips(x: &Matmul) -> ([Operand<'_>; 2], Epilogue<'_>, Vec<bool>) {
    let mut sides = [true, false].map(|left| Operand::new(x, left));
    let mut wide = vec![true; x.args.len()];
    let epilogue = Epilogue::settled(x, &mut wide, &mut |wide| sides.iter().for_each(|side| side.narrow(wide)));
    sides.iter_mut().for_each(|side| side.keep(&wide));
    (sides, epilogue, wide)
}

/// Which block of the tile an invocation has, and which part of `k`.
fn places(code: &mut Code, tile: &Tile) {
    let inner = match tile.slices {
        1 => "local",
        _ => {
            code.line(format!("let slice = local / {}u;", tile.blocks()));
            code.line(format!("let inner = local % {}u;", tile.blocks()));
            "inner"
        }
    };
    // Subgroups lie beside each other, then below.
    let beside = tile.n / (4 * tile.block) / ACROSS;
    let lanes = ACROSS * DOWN;
    let (first, below) = match beside {
        1 => (String::new(), format!("{inner} / {ACROSS}u")),
        _ => (
            format!("{inner} / {lanes}u % {beside}u * {ACROSS}u + "),
            format!("{inner} / {}u * {DOWN}u + {inner} % {lanes}u / {ACROSS}u", lanes * beside),
        ),
    };
    code.line(format!("let column = {first}{inner} % {ACROSS}u; // of the block, in quads"));
    code.line(format!("let row = {below};"));
}

/// The batch, first row and first column of tile number `tile`, of so many below and beside each other in a batch, each
/// of these extents; tiles of a band go down before they go across.
pub(crate) fn corner(code: &mut Code, [rows, columns]: [usize; 2], [m, n]: [usize; 2]) {
    // An empty result has no tiles, but its text divides by their number all the same.
    let (rows, columns) = (rows.max(1), columns.max(1));
    code.line(format!("let b = tile / {}u;", rows * columns));
    code.line(format!("let band = tile % {}u / {}u * {BAND}u;", rows * columns, BAND * columns));
    let high = match rows % BAND {
        0 => format!("{BAND}u"),
        _ => format!("min({BAND}u, {rows}u - band)"),
    };
    code.line(format!("let high = {high}; // tiles of the band below each other"));
    code.line(format!("let within = tile % {}u % {}u;", rows * columns, BAND * columns));
    code.line(format!("let m = (band + within % high) * {m}u;"));
    code.line(format!("let n = within / high * {n}u;"));
}

/// The sums of an invocation's block, over its part of k.
fn contract(code: &mut Code, x: &Matmul, tile: &Tile, sides: &[Operand; 2]) {
    for (i, j) in (0..4 * tile.block).flat_map(|i| (0..tile.block).map(move |j| (i, j))) {
        code.line(format!("var acc{i}_{j} = vec4<f32>();"));
    }
    let sides = [(&sides[0], "lhs", tile.m, "m"), (&sides[1], "rhs", tile.n, "n")];
    let loads = |dim: usize| tile.k * dim / WIDTH / tile.threads();
    // Neighbouring invocations load neighbouring elements.
    for (side, name, dim, _) in sides {
        for i in 0..loads(dim) {
            let slot = if i == 0 { "local".to_string() } else { format!("(local + {}u)", i * tile.threads()) };
            let (k, own) = match (side.along_k, side.k_first) {
                (true, _) => {
                    (format!("{slot} % {}u * {WIDTH}u", tile.k / WIDTH), format!("{slot} / {}u", tile.k / WIDTH))
                }
                (_, true) => (format!("{slot} % {}u", tile.k), format!("{slot} / {}u * {WIDTH}u", tile.k)),
                _ => (format!("{slot} / {}u", dim / WIDTH), format!("{slot} % {}u * {WIDTH}u", dim / WIDTH)),
            };
            code.line(format!("let {name}_k{i} = {k};"));
            code.line(format!("let {name}_own{i} = {own};"));
            code.line(format!("var {name}_next{i} = vec4<f32>();"));
        }
    }
    let load = |code: &mut Code, k: &str, inside: bool| {
        for (side, name, dim, axis) in sides {
            for i in 0..loads(dim) {
                let call = side.call(&format!("{axis} + {name}_own{i}"), &format!("{k}{name}_k{i}"), inside);
                code.line(format!("{name}_next{i} = {call};"));
            }
        }
    };
    if x.k > 0 {
        load(code, "", false);
    }
    code.open(format!("for (var k = 0u; k < {}u; k += {}u)", x.k, tile.k));
    for (side, name, dim, _) in sides {
        for i in 0..loads(dim) {
            publish(code, side, (name, i), tile.pitch(dim));
        }
    }
    code.line("workgroupBarrier(); // publishes both tiles");
    let next = format!("k + {}u + ", tile.k);
    let ragged = !x.k.is_multiple_of(tile.k);
    if ragged {
        code.open(format!("if (k + {}u <= {}u)", 2 * tile.k, x.k));
        load(code, &next, true);
        code.close();
    }
    code.open(format!("{}if (k + {}u < {}u)", if ragged { "else " } else { "" }, tile.k, x.k));
    load(code, &next, false);
    code.close();
    multiply(code, tile);
    code.line("workgroupBarrier(); // all have read both tiles");
    code.close();
}

/// What was loaded, into workgroup memory.
fn publish(code: &mut Code, side: &Operand, (name, i): (&str, usize), pitch: usize) {
    let (own, k) = (format!("{name}_own{i}"), format!("{name}_k{i}"));
    if !side.along_k {
        return code.line(format!("{name}_tile[{k} * {pitch}u + {own} / {WIDTH}u] = {name}_next{i};"));
    }
    for c in 0..WIDTH {
        let step = if c == 0 { k.clone() } else { format!("({k} + {c}u)") };
        let place = format!("{name}_tile[{step} * {pitch}u + {own} / {WIDTH}u][{own} % {WIDTH}u]");
        code.line(format!("{place} = {name}_next{i}[{c}];"));
    }
}

/// One tile times the other, into the block's accumulators. All steps stand in the text: as a loop they take half as
/// long again.
fn multiply(code: &mut Code, tile: &Tile) {
    let steps = tile.k / tile.slices;
    let (left, right) = (tile.pitch(tile.m), tile.pitch(tile.n));
    let start = |name: &str, pitch: usize| match tile.slices {
        1 => name.to_string(),
        _ => format!("slice * {}u + {name}", steps * pitch),
    };
    code.line(format!("let lhs_at = {};", start("row", left)));
    code.line(format!("let rhs_at = {};", start("column", right)));
    for step in 0..steps {
        code.open("");
        for q in 0..tile.block {
            let (rows, columns) = (q * tile.m / (4 * tile.block), q * tile.n / (4 * tile.block));
            code.line(format!("let l{q} = lhs_tile[lhs_at + {}u];", step * left + rows));
            code.line(format!("let r{q} = rhs_tile[rhs_at + {}u];", step * right + columns));
        }
        for i in 0..4 * tile.block {
            for j in 0..tile.block {
                code.line(format!("acc{i}_{j} += l{}.{} * r{j};", i / 4, ["x", "y", "z", "w"][i % 4]));
            }
        }
        code.close();
    }
}

/// The sums of all parts of k, in their order, for the invocations of the first; some accumulators at a time, through
/// memory that is free by now.
fn add_slices(code: &mut Code, tile: &Tile) {
    let accumulators: Vec<String> =
        (0..4 * tile.block).flat_map(|i| (0..tile.block).map(move |j| format!("acc{i}_{j}"))).collect();
    let at_once = tile.k * tile.pitch(tile.m) / tile.blocks();
    for slice in 1..tile.slices {
        for some in accumulators.chunks(at_once) {
            let place = |n: usize| format!("lhs_tile[inner + {}u]", n * tile.blocks());
            code.open(format!("if (slice == {slice}u)"));
            some.iter().enumerate().for_each(|(n, acc)| code.line(format!("{} = {acc};", place(n))));
            code.close();
            code.line("workgroupBarrier(); // publishes some sums");
            code.open("if (slice == 0u)");
            some.iter().enumerate().for_each(|(n, acc)| code.line(format!("{acc} += {};", place(n))));
            code.close();
            code.line("workgroupBarrier(); // all have read them");
        }
    }
}

/// The epilogue of an invocation's block.
fn keep(code: &mut Code, x: &Matmul, tile: &Tile) {
    if tile.slices > 1 {
        code.open("if (slice == 0u)");
    }
    for i in 0..4 * tile.block {
        let below = i / 4 * tile.m / tile.block + i % 4;
        code.line(format!("let m{i} = m + row * 4u + {below}u;"));
        let ragged = !x.m.is_multiple_of(tile.m);
        if ragged {
            code.open(format!("if (m{i} < {}u)", x.m));
        }
        for j in 0..tile.block {
            code.line(format!("finish(b, m{i}, n + column * 4u + {}u, acc{i}_{j});", j * tile.n / tile.block));
        }
        if ragged {
            code.close();
        }
    }
    if tile.slices > 1 {
        code.close();
    }
}
