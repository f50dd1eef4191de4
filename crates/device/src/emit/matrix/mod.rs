//! The contraction of f16 on cooperative matrices, which a subgroup holds and multiplies together.
//!
//! Tiles of both operands lie in workgroup memory as they do in the arguments, as quads of f16, and
//! the next ones are loaded while these are multiplied. The hard idea is that nothing may be asked of
//! an element of a matrix: operands have to be plain (`side`), and sums go through workgroup memory
//! to the epilogue, which is then any, unless it only stores them.

mod side;

use super::code::Code;
use super::dot::Matmul;
use super::epilogue::Epilogue;
use super::tiled::corner;
use super::{Matrix, Schedule, Target};
use side::Side;

/// The line that marks a module of this schedule.
pub(crate) const ENABLE: &str = "enable wgpu_cooperative_matrix;";

/// What such a module begins with.
pub(crate) const ENABLES: [&str; 2] = ["enable f16;", ENABLE];

/// Extents of a workgroup's tile, and how its subgroups share it.
///
/// On an H200, a product of 4096³ in the largest of them takes 0.55 ms; with two tiles of each operand and
/// one barrier a step 1.7 times as long, with 64 steps 1.4 times, without padding 2.2 times.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Tile {
    /// Rows.
    m: usize,
    /// Columns.
    n: usize,
    /// Steps of k between two barriers.
    k: usize,
    /// Subgroups below each other.
    down: usize,
    /// Subgroups side by side.
    across: usize,
    /// Columns of a subgroup's sums that are on their way to the epilogue at once.
    kept: usize,
}

impl Tile {
    /// Those that are used, largest first.
    const ALL: [Tile; 2] = [
        Tile { m: 128, n: 128, k: 32, down: 2, across: 2, kept: 16 },
        Tile { m: 64, n: 64, k: 32, down: 2, across: 2, kept: 16 },
    ];

    /// Invocations of a workgroup.
    fn threads(&self, matrix: Matrix) -> usize {
        self.down * self.across * matrix.subgroup as usize
    }

    /// Rows and columns of a subgroup's part.
    fn part(&self) -> (usize, usize) {
        (self.m / self.down, self.n / self.across)
    }

    /// Quads from one row of sums to the next in workgroup memory; one is padding against conflicts.
    fn kept_pitch(&self) -> usize {
        self.kept / 4 + 1
    }

    /// Quads of sums in workgroup memory that a subgroup has for itself.
    fn kept_quads(&self, matrix: Matrix) -> usize {
        matrix.size as usize * self.kept_pitch()
    }
}

/// Rows, columns and steps from which on tiles are chosen unasked: below, most of a tile is beyond the edge.
const LEAST: usize = 32;

/// A contraction that fits this schedule.
pub(crate) struct Plan {
    tile: Tile,
    matrix: Matrix,
    lhs: Side,
    rhs: Side,
    /// The argument that whole tiles of sums are stored into as they are.
    sums: Option<u32>,
}

impl Plan {
    /// How the contraction runs on matrices; `None` where the device has none, an operand is more than
    /// loads in quads, or there is too little to do.
    pub(crate) fn choose(x: &Matmul, target: &Target) -> Option<Plan> {
        let matrix = target.matrix?;
        let (lhs, rhs) = (Side::of(x, true)?, Side::of(x, false)?);
        // An argument is declared once: as quads, or as the words that an epilogue takes apart.
        let empty = [x.batch, x.m, x.n, x.k].contains(&0);
        if empty || x.epilogue_loads(lhs.arg) || x.epilogue_loads(rhs.arg) {
            return None;
        }
        let plan = |tile: &Tile| {
            let whole = x.m.is_multiple_of(tile.m) && x.n.is_multiple_of(tile.n);
            let sums = x.stores_sums().filter(|&arg| whole && target.binds_whole(&x.args[arg as usize]));
            Plan { tile: *tile, matrix, lhs: lhs.clone(), rhs: rhs.clone(), sums }
        };
        let tiles = |tile: &Tile| x.batch * x.m.div_ceil(tile.m) * x.n.div_ceil(tile.n);
        let fits: Vec<&Tile> = Tile::ALL.iter().filter(|tile| plan(tile).fits(target)).collect();
        let found = match target.schedule {
            Schedule::Plain => None,
            Schedule::Shared => fits.iter().find(|t| t.m <= x.m && t.n <= x.n).or(fits.last()),
            Schedule::Auto if x.m.min(x.n).min(x.k) < LEAST => None,
            // Two workgroups a part keep it busy, one waiting while the other computes.
            Schedule::Auto => fits.iter().find(|t| tiles(t) >= target.busy() / 512).or(fits.last()),
        };
        found.map(|tile| plan(tile))
    }

    fn fits(&self, target: &Target) -> bool {
        let threads = self.tile.threads(self.matrix);
        threads <= target.max_invocations as usize && self.bytes() <= target.max_workgroup_bytes as usize
    }

    /// Workgroup memory.
    fn bytes(&self) -> usize {
        let tiles = self.lhs.quads(&self.tile) + self.rhs.quads(&self.tile);
        8 * tiles + 16 * self.kept_quads()
    }

    /// Quads of sums in workgroup memory, of all subgroups.
    fn kept_quads(&self) -> usize {
        if self.sums.is_some() { 0 } else { self.tile.down * self.tile.across * self.tile.kept_quads(self.matrix) }
    }

    /// For the header of the shader.
    pub(crate) fn describe(&self) -> String {
        let (Tile { m, n, k, .. }, size, (rows, columns)) = (self.tile, self.matrix.size, self.tile.part());
        format!("tiles of {m} x {n}, {k} deep; {rows} x {columns} a subgroup, in matrices of {size} x {size}")
    }

    /// The types as which arguments are declared that other kernels declare as `types`.
    pub(crate) fn declare(&self, types: &mut [String]) {
        for side in [&self.lhs, &self.rhs] {
            types[side.arg as usize] = "vec4<f16>".into();
        }
    }

    /// The code of the contraction, its workgroups, and which arguments are bound in strips.
    pub(crate) fn emit(&self, x: &Matmul, target: &Target) -> (String, u32, Vec<bool>) {
        let mut code = Code::default();
        let tile = &self.tile;
        // What is stored as it is is stored as elements.
        let mut wide = vec![self.sums.is_none(); x.args.len()];
        let epilogue = Epilogue::settled(x, &mut wide, &mut |_| ());
        self.lhs.functions(&mut code, x, tile);
        self.rhs.functions(&mut code, x, tile);
        if self.sums.is_none() {
            epilogue.function(&mut code, tile.n);
        }
        for side in [&self.lhs, &self.rhs] {
            code.line(format!("var<workgroup> {}_tile: array<vec4<f16>, {}>;", side.name(), side.quads(tile)));
        }
        if self.sums.is_none() {
            let kept = self.kept_quads();
            code.line(format!("var<workgroup> kept: array<vec4<f32>, {kept}>; // sums on their way to the epilogue"));
        }
        code.line("");
        let (rows, columns) = (x.m.div_ceil(tile.m), x.n.div_ceil(tile.n));
        let tiles = x.batch * rows * columns;
        let workgroups = tiles.min(target.max_workgroups as usize);
        code.line(format!("@compute @workgroup_size({})", tile.threads(self.matrix)));
        code.open("fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(local_invocation_index) local: u32)");
        code.line(format!("let subgroup = local / {}u;", self.matrix.subgroup));
        let (part_m, part_n) = tile.part();
        code.line(format!("let below = subgroup / {}u * {part_m}u; // where its part of the tile begins", tile.across));
        code.line(format!("let beside = subgroup % {}u * {part_n}u;", tile.across));
        self.lhs.places(&mut code, tile, "below");
        self.rhs.places(&mut code, tile, "beside");
        let turns = workgroups < tiles;
        match turns {
            true => code.open(format!("for (var tile = id.x; tile < {tiles}u; tile += {workgroups}u)")),
            false => code.line("let tile = id.x;"),
        }
        corner(&mut code, [rows, columns], [tile.m, tile.n]);
        self.contract(&mut code, x);
        match self.sums {
            Some(arg) => self.store(&mut code, x, arg),
            None => self.keep(&mut code, x),
        }
        if turns {
            code.close();
        }
        code.close();
        (code.into_text(), workgroups as u32, wide)
    }

    /// How many matrices of sums a subgroup has below each other, and side by side.
    fn sums(&self) -> (usize, usize) {
        let (size, (rows, columns)) = (self.matrix.size as usize, self.tile.part());
        (rows / size, columns / size)
    }

    /// The sums of every subgroup's part, over all k.
    fn contract(&self, code: &mut Code, x: &Matmul) {
        let (tile, size) = (&self.tile, self.matrix.size);
        let (down, across) = self.sums();
        for (i, j) in (0..down).flat_map(|i| (0..across).map(move |j| (i, j))) {
            code.line(format!("var acc{i}_{j} = coop_mat{size}x{size}<f32, C>();"));
        }
        let sides = [&self.lhs, &self.rhs];
        let threads = tile.threads(self.matrix);
        sides.iter().for_each(|side| side.start(code, x, tile, threads));
        let load = |code: &mut Code, k: &str| sides.iter().for_each(|side| side.load(code, x, tile, threads, k));
        load(code, "0u");
        code.open(format!("for (var k = 0u; k < {}u; k += {}u)", x.k, tile.k));
        sides.iter().for_each(|side| side.stage(code, tile, threads));
        code.line("workgroupBarrier(); // publishes both tiles");
        code.open(format!("if (k + {}u < {}u)", tile.k, x.k));
        load(code, &format!("k + {}u", tile.k));
        code.close();
        self.multiply(code);
        code.line("workgroupBarrier(); // all have read both tiles");
        code.close();
    }

    /// One tile times the other, into the subgroup's sums.
    fn multiply(&self, code: &mut Code) {
        let size = self.matrix.size as usize;
        let (down, across) = self.sums();
        for step in (0..self.tile.k).step_by(size) {
            code.open("");
            for i in 0..down {
                self.lhs.fetch(code, &self.tile, self.matrix, i, step);
            }
            for j in 0..across {
                self.rhs.fetch(code, &self.tile, self.matrix, j, step);
                for i in 0..down {
                    code.line(format!("acc{i}_{j} = coopMultiplyAdd(lhs{i}, rhs{j}, acc{i}_{j});"));
                }
            }
            code.close();
        }
    }

    /// Every sum to where it is stored as it is.
    fn store(&self, code: &mut Code, x: &Matmul, arg: u32) {
        let (size, (down, across)) = (self.matrix.size as usize, self.sums());
        // A store's operands need names of their own: naga 30.0.1 has no code for expressions there.
        code.line(format!("let pitch = {}u;", x.n));
        code.line(format!("let first = (b * {}u + m + below) * pitch + n + beside;", x.m));
        for (i, j) in (0..down).flat_map(|i| (0..across).map(move |j| (i, j))) {
            code.line(format!("let to{i}_{j} = first + {}u;", i * size * x.n + j * size));
            code.line(format!("coopStoreT(acc{i}_{j}, &a{arg}[to{i}_{j}], pitch);"));
        }
    }

    /// Every sum's way through workgroup memory to the epilogue, which is written once: written out for
    /// all of a subgroup's matrices it would be most of the text.
    fn keep(&self, code: &mut Code, x: &Matmul) {
        let (tile, size) = (&self.tile, self.matrix.size as usize);
        let (down, across) = self.sums();
        let (at_once, quads) = (tile.kept / size, tile.kept / 4);
        let beside = across / at_once;
        code.line(format!("let own = subgroup * {}u;", tile.kept_quads(self.matrix)));
        code.line(format!("let pitch = {}u;", tile.kept_pitch()));
        code.open(format!("for (var part = 0u; part < {}u; part++)", down * beside));
        code.open("switch (part)");
        for (i, j) in (0..down).flat_map(|i| (0..beside).map(move |j| (i, j))) {
            let last = i + 1 == down && j + 1 == beside;
            code.open(if last { "default:".into() } else { format!("case {}u:", i * beside + j) });
            code.line(format!("coopStoreT(acc{i}_{}, &kept[own], pitch);", j * at_once));
            for c in 1..at_once {
                code.line(format!("let to{c} = own + {}u;", c * size / 4));
                code.line(format!("coopStoreT(acc{i}_{}, &kept[to{c}], pitch);", j * at_once + c));
            }
            code.close();
        }
        code.close();
        code.line("workgroupBarrier(); // publishes the sums");
        let lane = format!("local % {}u", self.matrix.subgroup);
        code.open(format!("for (var at = {lane}; at < {}u; at += {}u)", size * quads, self.matrix.subgroup));
        code.line(format!("let row = m + below + part / {beside}u * {size}u + at / {quads}u;"));
        code.line(format!("let column = n + beside + part % {beside}u * {}u + at % {quads}u * 4u;", tile.kept));
        let ragged = !x.m.is_multiple_of(tile.m);
        if ragged {
            code.open(format!("if (row < {}u)", x.m));
        }
        code.line(format!("finish(b, row, column, kept[own + at / {quads}u * pitch + at % {quads}u]);"));
        if ragged {
            code.close();
        }
        code.close();
        code.line("workgroupBarrier(); // all have read the sums");
        code.close();
    }
}
