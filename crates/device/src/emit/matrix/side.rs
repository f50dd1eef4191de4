//! An operand of a contraction on matrices: what it must be, and its way into workgroup memory.
//!
//! A tile lies there as in the argument: rows of quads along k, or along m (of the left operand) or n
//! (of the right one). Matrices are loaded from either, row by row or column by column.

use kiln_ir::{Atom, Index};

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
    /// True iff neighbours along k are neighbours in memory; else those along m or n are.
    along_k: bool,
    /// The space, in which the axis of neighbours counts quads.
    dims: Vec<usize>,
    /// Which quad of the argument.
    index: Index,
    /// Quads from one row of a tile to the next, if that is a constant.
    apart: Option<usize>,
    /// Quads from one step of k, or from one quad along k, to the next.
    k_stride: usize,
}

impl Side {
    /// The operand, or `None` where it computes, has bounds, looks up, or has no quads.
    pub(super) fn of(x: &Matmul, left: bool) -> Option<Side> {
        let (arg, index) = x.halves(left)?;
        let groups = Matmul::groups_of(left);
        let mut dims = groups.map(|g| x.groups[g].clone()).concat();
        let mut strides: Vec<usize> =
            index.affine(dims.len())?.into_iter().map(usize::try_from).collect::<Result<_, _>>().ok()?;
        let own = &x.groups[if left { 1 } else { 2 }];
        if x.groups[3].len() != 1 || index.constant < 0 || index.constant % 4 != 0 {
            return None;
        }
        let (last, k_first) = (dims.len() - 1, dims.len() - 1 - own.len());
        let (k_axis, own_axis) = if left { (last, last.checked_sub(1)) } else { (k_first, Some(last)) };
        let own_axis = own_axis.filter(|_| !own.is_empty());
        let in_quads = |&axis: &usize| {
            let aligned = |(v, &stride): (usize, &usize)| if v == axis { stride == 1 } else { stride % 4 == 0 };
            dims[axis].is_multiple_of(4) && strides.iter().enumerate().all(aligned)
        };
        let axis = [Some(k_axis), own_axis].into_iter().flatten().find(in_quads)?;
        dims[axis] /= 4;
        strides.iter_mut().enumerate().filter(|s| s.0 != axis).for_each(|s| *s.1 /= 4);
        let along_k = axis == k_axis;
        let apart = match (along_k, own_axis) {
            (false, _) => Some(strides[k_axis]),
            (true, Some(axis)) => (own.len() == 1).then_some(strides[axis]),
            (true, None) => Some(0),
        };
        let terms = strides.iter().enumerate().filter(|s| *s.1 > 0).map(|(v, &s)| (s as i64, Atom::Var(v)));
        let index = Index { constant: index.constant / 4, terms: terms.collect() };
        Some(Side { arg, left, along_k, dims, index, apart, k_stride: strides[k_axis] })
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
        let axes = Axes::numbered(&self.dims);
        let own = if self.left { "m" } else { "n" };
        code.line(format!("// Which quad of a{}; {} counts quads.", self.arg, if self.along_k { "k" } else { own }));
        code.open(format!("fn {}_at(b: u32, {own}: u32, k: u32) -> u32", self.name()));
        let mut start = 0;
        for g in Matmul::groups_of(self.left) {
            let end = start + x.groups[g].len();
            let used = |axis: usize| self.index.uses(&|v| v == axis);
            decompose(code, &axes, start..end, ["b", "m", "n", "k"][g], &used);
            start = end;
        }
        code.line(format!("return {};", axes.index(&self.index)));
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

    /// True iff an invocation's quads lie at constant distances, so that one address is enough.
    fn evenly(&self, x: &Matmul, tile: &Tile) -> bool {
        let extent = if self.left { x.m } else { x.n };
        self.apart.is_some() && (!self.along_k || extent.is_multiple_of(self.dim(tile)))
    }

    /// Where the first quads are. Beyond the edge along m or n, the last ones are loaded once more, and
    /// what becomes of them is not kept.
    pub(super) fn start(&self, code: &mut Code, x: &Matmul, tile: &Tile, threads: usize) {
        let (name, (n_loads, apart)) = (self.name(), self.loads(tile, threads));
        let (own, extent) = if self.left { ("m", x.m) } else { ("n", x.n) };
        let inside = |place: String, last: usize| match extent.is_multiple_of(self.dim(tile)) {
            true => place,
            false => format!("min({place}, {last}u)"),
        };
        for i in 0..n_loads {
            code.line(format!("var {name}_next{i} = vec4<f16>();"));
        }
        for i in 0..if self.evenly(x, tile) { 1 } else { n_loads } {
            let row = if i == 0 { format!("{name}_row") } else { format!("{name}_row + {}u", i * apart) };
            let place = match self.along_k {
                true => format!("{}, {name}_column", inside(format!("{own} + {row}"), extent - 1)),
                false => format!("{}, {row}", inside(format!("{own} / 4u + {name}_column"), extent / 4 - 1)),
            };
            code.line(format!("var {name}_at{i} = {name}_at(b, {place});"));
        }
    }

    /// The quads at step `k` into registers, zeros beyond the last step; then on to the next ones.
    pub(super) fn load(&self, code: &mut Code, x: &Matmul, tile: &Tile, threads: usize, k: &str) {
        let (name, arg, (n_loads, apart)) = (self.name(), self.arg, self.loads(tile, threads));
        let evenly = self.apart.filter(|_| self.evenly(x, tile));
        for i in 0..n_loads {
            let at = match evenly {
                Some(stride) => format!("{name}_at0 + {}u", i * apart * stride),
                None => format!("{name}_at{i}"),
            };
            let own = match self.along_k {
                true => format!("{name}_column * 4u"),
                false => format!("{name}_row + {}u", i * apart),
            };
            code.line(match x.k.is_multiple_of(tile.k) {
                true => format!("{name}_next{i} = a{arg}[{at}];"),
                false => format!("{name}_next{i} = {name}_quad({at}, {k} + {own} < {}u);", x.k),
            });
        }
        let step = self.k_stride * if self.along_k { tile.k / 4 } else { tile.k };
        for i in 0..if evenly.is_some() { 1 } else { n_loads } {
            code.line(format!("{name}_at{i} += {step}u;"));
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
