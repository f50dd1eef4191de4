//! An operand of a contraction on matrices: what it must be, and its way into workgroup memory.
//!
//! A tile lies there as in the argument: rows of quads along k, or along m (of the left operand) or n
//! (of the right one). Matrices are loaded from either, row by row or column by column.

use kiln_ir::Index;

use super::super::Matrix;
use super::super::code::Code;
use super::super::dot::Matmul;
use super::super::index::Axes;
use super::super::rows::decompose;
use super::Tile;

/// An operand that is elements of an f16 argument, four neighbours at a time.
#[derive(Clone)]
pub(super) struct Side {
    /// The argument.
    pub(super) arg: u32,
    left: bool,
    index: Index,
    /// True iff neighbours along k are neighbours in memory; else those along m or n are.
    along_k: bool,
    /// Elements from one step of k to the next.
    k_stride: usize,
}

impl Side {
    /// The operand, or `None` where it computes, has bounds, looks up, or has no quads.
    pub(super) fn of(x: &Matmul, left: bool) -> Option<Side> {
        let (arg, index) = x.halves(left)?;
        let groups = groups(left);
        let dims = groups.map(|g| x.groups[g].clone()).concat();
        let strides = index.affine(dims.len())?;
        let end = |place: usize| groups[..=place].iter().map(|&g| x.groups[g].len()).sum::<usize>();
        let (k_place, own_place) = if left { (2, 1) } else { (1, 2) };
        if x.groups[3].len() != 1 || strides.iter().any(|&stride| stride < 0) || index.constant < 0 {
            return None;
        }
        let k_axis = end(k_place) - 1;
        let own_axis = (!x.groups[groups[own_place]].is_empty()).then(|| end(own_place) - 1);
        let in_quads = |&axis: &usize| {
            let aligned = |(v, &stride): (usize, &i64)| if v == axis { stride == 1 } else { stride % 4 == 0 };
            dims[axis].is_multiple_of(4) && index.constant % 4 == 0 && strides.iter().enumerate().all(aligned)
        };
        let axis = [Some(k_axis), own_axis].into_iter().flatten().find(in_quads)?;
        let k_stride = strides[k_axis] as usize;
        Some(Side { arg, left, index: index.clone(), along_k: axis == k_axis, k_stride })
    }

    /// What it is called in the text.
    pub(super) fn name(&self) -> &'static str {
        if self.left { "lhs" } else { "rhs" }
    }

    /// Extent of a tile along m or n.
    fn dim(&self, tile: &Tile) -> usize {
        if self.left { tile.m } else { tile.n }
    }

    /// Rows of a tile, and quads in one.
    fn shape(&self, tile: &Tile) -> (usize, usize) {
        match self.along_k {
            true => (self.dim(tile), tile.k / 4),
            false => (tile.k, self.dim(tile) / 4),
        }
    }

    /// Quads from one row of a tile to the next; two are padding against conflicts, since a matrix's row
    /// must begin at a multiple of 16 bytes.
    fn pitch(&self, tile: &Tile) -> usize {
        self.shape(tile).1 + 2
    }

    /// Quads of one tile in workgroup memory.
    pub(super) fn quads(&self, tile: &Tile) -> usize {
        self.shape(tile).0 * self.pitch(tile)
    }

    /// Quads that each invocation brings, and rows from one to the next.
    fn loads(&self, tile: &Tile, threads: usize) -> (usize, usize) {
        let (rows, quads) = self.shape(tile);
        assert!(threads.is_multiple_of(quads) && (rows * quads).is_multiple_of(threads), "{tile:?} is shared evenly");
        (rows * quads / threads, threads / quads)
    }

    /// `fn lhs_at(b, m, k)` or `fn rhs_at(b, n, k)`: which quad of the argument begins there. Where the last
    /// tile may reach beyond the edge along k, `fn lhs_quad(at, inside)` or `fn rhs_quad(at, inside)` as well.
    pub(super) fn functions(&self, code: &mut Code, x: &Matmul, tile: &Tile) {
        let groups = groups(self.left);
        let axes = Axes::numbered(&groups.map(|g| x.groups[g].clone()).concat());
        let own = if self.left { "m" } else { "n" };
        code.open(format!("fn {}_at(b: u32, {own}: u32, k: u32) -> u32", self.name()));
        let mut start = 0;
        for g in groups {
            let end = start + x.groups[g].len();
            let used = |axis: usize| self.index.uses(&|v| v == axis);
            decompose(code, &axes, start..end, ["b", "m", "n", "k"][g], &used);
            start = end;
        }
        code.line(format!("return ({}) / 4u;", axes.index(&self.index)));
        code.close();
        code.line("");
        if !x.k.is_multiple_of(tile.k) {
            code.open(format!("fn {}_quad(at: u32, inside: bool) -> vec4<f16>", self.name()));
            code.open("if (inside)");
            code.line(format!("return a{}[at];", self.arg));
            code.close();
            code.line("return vec4<f16>();");
            code.close();
            code.line("");
        }
    }

    /// Where an invocation's quads lie in a tile, and where its subgroup's matrices begin.
    pub(super) fn places(&self, code: &mut Code, tile: &Tile, part: &str) {
        let (name, (_, quads), pitch) = (self.name(), self.shape(tile), self.pitch(tile));
        code.line(format!("let {name}_row = local / {quads}u;"));
        code.line(format!("let {name}_column = local % {quads}u;"));
        code.line(format!("let {name}_to = {name}_row * {pitch}u + {name}_column;"));
        let from = if self.along_k { format!("{part} * {pitch}u") } else { format!("{part} / 4u") };
        code.line(format!("let {name}_from = {from};"));
    }

    /// Where the first quads are. Beyond the edge along m or n, the last ones are loaded once more, and
    /// what becomes of them is not kept.
    pub(super) fn start(&self, code: &mut Code, x: &Matmul, tile: &Tile, threads: usize) {
        let (name, (n_loads, apart)) = (self.name(), self.loads(tile, threads));
        let (own, extent) = if self.left { ("m", x.m) } else { ("n", x.n) };
        let (row, quad) = (format!("{name}_row"), format!("{name}_column * 4u"));
        let last = extent - if self.along_k { 1 } else { 4 };
        let inside = |place: String| match extent.is_multiple_of(self.dim(tile)) {
            true => place,
            false => format!("min({place}, {last}u)"),
        };
        for i in 0..n_loads {
            let row = if i == 0 { row.clone() } else { format!("{row} + {}u", i * apart) };
            let (along, k) = if self.along_k { (&row, &quad) } else { (&quad, &row) };
            code.line(format!("var {name}_at{i} = {name}_at(b, {}, {k});", inside(format!("{own} + {along}"))));
            code.line(format!("var {name}_next{i} = vec4<f16>();"));
        }
    }

    /// The quads at step `k` into registers, zeros beyond the last step; then on to the next ones.
    pub(super) fn load(&self, code: &mut Code, x: &Matmul, tile: &Tile, threads: usize, k: &str) {
        let (name, arg, (n_loads, apart)) = (self.name(), self.arg, self.loads(tile, threads));
        let step = self.k_stride * tile.k / 4;
        for i in 0..n_loads {
            let at = format!("{name}_at{i}");
            let own = match self.along_k {
                true => format!("{name}_column * 4u"),
                false => format!("{name}_row + {}u", i * apart),
            };
            code.line(match x.k.is_multiple_of(tile.k) {
                true => format!("{name}_next{i} = a{arg}[{at}];"),
                false => format!("{name}_next{i} = {name}_quad({at}, {k} + {own} < {}u);", x.k),
            });
            code.line(format!("{at} += {step}u;"));
        }
    }

    /// The quads from registers into the tile.
    pub(super) fn stage(&self, code: &mut Code, tile: &Tile, threads: usize) {
        let (name, (n_loads, apart)) = (self.name(), self.loads(tile, threads));
        for i in 0..n_loads {
            let to = i * apart * self.pitch(tile);
            code.line(format!("{name}_tile[{name}_to + {to}u] = {name}_next{i};"));
        }
    }

    /// `let lhs0` or `let rhs0`: the subgroup's n-th matrix along m or n, at this step of the tile.
    pub(super) fn fetch(&self, code: &mut Code, tile: &Tile, matrix: Matrix, n: usize, step: usize) {
        let (name, size, pitch) = (self.name(), matrix.size as usize, self.pitch(tile));
        let (role, rows) = if self.left { ("A", self.along_k) } else { ("B", !self.along_k) };
        let (row, column) = if self.along_k { (n * size, step) } else { (step, n * size) };
        let at = format!("{name}_from + {}u", row * pitch + column / 4);
        let load = if rows { "coopLoadT" } else { "coopLoad" };
        let kind = format!("coop_mat{size}x{size}<f16, {role}>");
        code.line(format!("let {name}{n} = {load}<{kind}>(&{name}_tile[{at}], {pitch}u);"));
    }
}

/// The groups of axes that make an operand's space, in order.
fn groups(left: bool) -> [usize; 3] {
    if left { [0, 1, 3] } else { [0, 3, 2] }
}
