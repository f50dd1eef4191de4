//! The contraction for real GPUs: tiles of both operands in workgroup memory.
//!
//! A workgroup computes a tile of the result. In steps of `k` it brings a tile of each operand into
//! workgroup memory, as `vec4` along m and n, and every invocation multiplies blocks of them in
//! registers. The next tiles are loaded before the current ones are multiplied, to hide their latency.

use super::Target;
use super::code::Code;
use super::dot::Matmul;

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
    pub(crate) quads: usize,
}

impl Tile {
    /// Those that are used, largest first.
    pub(crate) const ALL: [Tile; 3] = [
        Tile { m: 128, n: 128, k: 8, quads: 2 },
        Tile { m: 64, n: 64, k: 16, quads: 1 },
        Tile { m: 32, n: 32, k: 16, quads: 1 },
    ];

    /// Invocations of a workgroup.
    pub(crate) fn threads(&self) -> usize {
        self.m * self.n / (16 * self.quads * self.quads)
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
        let block = 4 * self.quads;
        format!("tiles of {} x {}, {} deep; {block} x {block} an invocation", self.m, self.n, self.k)
    }
}

/// The code of a contraction in these tiles, and its workgroups.
pub(crate) fn emit(x: &Matmul, tile: &Tile, target: &Target) -> (String, u32) {
    let mut code = Code::default();
    let ragged_k = !x.k.is_multiple_of(tile.k);
    x.operand(&mut code, true, (!x.m.is_multiple_of(tile.m), ragged_k));
    x.operand(&mut code, false, (ragged_k, !x.n.is_multiple_of(tile.n)));
    x.finish(&mut code, tile.n);
    code.line(format!("var<workgroup> lhs_tile: array<vec4<f32>, {}>;", tile.k * tile.pitch(tile.m)));
    code.line(format!("var<workgroup> rhs_tile: array<vec4<f32>, {}>;", tile.k * tile.pitch(tile.n)));
    code.line("");
    // An empty result has no tiles, but its text divides by their number all the same.
    let (rows, columns) = (x.m.div_ceil(tile.m).max(1), x.n.div_ceil(tile.n).max(1));
    let tiles = x.batch * x.m.div_ceil(tile.m) * x.n.div_ceil(tile.n);
    let workgroups = tiles.min(target.max_workgroups as usize);
    code.line(format!("@compute @workgroup_size({})", tile.threads()));
    code.open("fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(local_invocation_index) local: u32)");
    let across = tile.n / (4 * tile.quads);
    code.line(format!("let column = local % {across}u; // of the block, in quads"));
    code.line(format!("let row = local / {across}u;"));
    code.open(format!("for (var tile = id.x; tile < {tiles}u; tile += {workgroups}u)"));
    code.line(format!("let b = tile / {}u;", rows * columns));
    code.line(format!("let m = tile / {columns}u % {rows}u * {}u;", tile.m));
    code.line(format!("let n = tile % {columns}u * {}u;", tile.n));
    contract(&mut code, x, tile);
    keep(&mut code, x, tile);
    code.close();
    code.close();
    (code.into_text(), workgroups as u32)
}

/// The sums of an invocation's block, over all k.
fn contract(code: &mut Code, x: &Matmul, tile: &Tile) {
    for (i, j) in (0..4 * tile.quads).flat_map(|i| (0..tile.quads).map(move |j| (i, j))) {
        code.line(format!("var acc{i}_{j} = vec4<f32>();"));
    }
    let sides = [(true, "lhs", tile.m, "m"), (false, "rhs", tile.n, "n")];
    let loads = |dim: usize| tile.k * dim / 4 / tile.threads();
    // Neighbouring invocations load neighbouring elements.
    for (left, name, dim, _) in sides {
        for i in 0..loads(dim) {
            let slot = if i == 0 { "local".to_string() } else { format!("(local + {}u)", i * tile.threads()) };
            let (k, quad) = match x.contiguous(left) {
                true => (format!("{slot} / {}u", dim / 4), format!("{slot} % {}u", dim / 4)),
                false => (format!("{slot} % {}u", tile.k), format!("{slot} / {}u", tile.k)),
            };
            code.line(format!("let {name}_k{i} = {k};"));
            code.line(format!("let {name}_quad{i} = {quad};"));
            code.line(format!("var {name}_next{i} = vec4<f32>();"));
        }
    }
    let load = |code: &mut Code, k: &str| {
        for (left, name, dim, axis) in sides {
            for i in 0..loads(dim) {
                let element = |e: usize| {
                    let (along, step) = (format!("{axis} + {name}_quad{i} * 4u + {e}u"), format!("{k}{name}_k{i}"));
                    if left { format!("lhs(b, {along}, {step})") } else { format!("rhs(b, {step}, {along})") }
                };
                let elements: Vec<String> = (0..4).map(element).collect();
                code.line(format!("{name}_next{i} = vec4<f32>({});", elements.join(", ")));
            }
        }
    };
    if x.k > 0 {
        load(code, "");
    }
    code.open(format!("for (var k = 0u; k < {}u; k += {}u)", x.k, tile.k));
    for (_, name, dim, _) in sides {
        for i in 0..loads(dim) {
            let pitch = tile.pitch(dim);
            code.line(format!("{name}_tile[{name}_k{i} * {pitch}u + {name}_quad{i}] = {name}_next{i};"));
        }
    }
    code.line("workgroupBarrier(); // publishes both tiles");
    code.open(format!("if (k + {}u < {}u)", tile.k, x.k));
    load(code, &format!("k + {}u + ", tile.k));
    code.close();
    multiply(code, tile);
    code.line("workgroupBarrier(); // all have read both tiles");
    code.close();
}

/// One tile times the other, into the block's accumulators.
fn multiply(code: &mut Code, tile: &Tile) {
    code.open(format!("for (var step = 0u; step < {}u; step++)", tile.k));
    for q in 0..tile.quads {
        let (rows, columns) = (q * tile.m / (4 * tile.quads), q * tile.n / (4 * tile.quads));
        code.line(format!("let l{q} = lhs_tile[step * {}u + row + {rows}u];", tile.pitch(tile.m)));
        code.line(format!("let r{q} = rhs_tile[step * {}u + column + {columns}u];", tile.pitch(tile.n)));
    }
    for i in 0..4 * tile.quads {
        for j in 0..tile.quads {
            code.line(format!("acc{i}_{j} += l{}.{} * r{j};", i / 4, ["x", "y", "z", "w"][i % 4]));
        }
    }
    code.close();
}

/// The epilogue of an invocation's block.
fn keep(code: &mut Code, x: &Matmul, tile: &Tile) {
    for i in 0..4 * tile.quads {
        let below = i / 4 * tile.m / tile.quads + i % 4;
        code.line(format!("let m{i} = m + row * 4u + {below}u;"));
        let ragged = !x.m.is_multiple_of(tile.m);
        if ragged {
            code.open(format!("if (m{i} < {}u)", x.m));
        }
        for j in 0..tile.quads {
            code.line(format!("finish(b, m{i}, n + column * 4u + {}u, acc{i}_{j});", j * tile.n / tile.quads));
        }
        if ragged {
            code.close();
        }
    }
}
