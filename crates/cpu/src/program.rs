//! Lowered bodies: straight-line programs over registers that hold a tile each.
//!
//! The hard idea is *when* a value is computed. A value that depends on no axis is set up once a
//! worker. One that is the same along a row is computed once a row, by the same vector kernels,
//! over the tile's rows. The rest is computed point by point, in as many passes over the row as
//! there are reductions that need each other. If a row fits in one tile, its registers outlive a
//! pass and nothing is computed twice.

use kiln_ir::{DType, PointOp, ReduceOp};

use crate::adam::Adam;
use crate::fused::{Fused, MOST};
use crate::site::Site;

/// The number of a register.
pub(crate) type RegId = usize;

/// One step over all points of a tile.
pub(crate) enum Micro {
    /// Elements of an argument.
    /// Where it may, `lend` leaves them where they are.
    Load { site: Box<Site>, arg: usize, gather: Option<RegId>, lend: bool, dst: RegId },
    /// A literal, already rounded.
    Fill { dtype: DType, value: f64, dst: RegId },
    /// A scalar word of the replay.
    Scalar { dtype: DType, word: usize, dst: RegId },
    /// The values of an index expression.
    Coord { site: Box<Site>, dst: RegId },
    /// Whether bounds hold.
    Inside { site: Box<Site>, dst: RegId },
    /// A row of `OPS`; the dtype is that of the last operand.
    Op { op: PointOp, dtype: DType, args: [RegId; 3], dst: RegId },
    /// Several rows of `OPS` as one step.
    Fused { op: Fused, args: [RegId; MOST], dst: RegId },
    /// A conversion.
    Cast { from: DType, to: DType, src: RegId, dst: RegId },
    /// Lane 0 in every lane.
    Spread { dtype: DType, dst: RegId },
    /// One lane a row, repeated for each of the row's points.
    Expand { dtype: DType, src: RegId, dst: RegId },
    /// The contraction's sum.
    Acc { dtype: DType, dst: RegId },
    /// Several steps that are one walk where all that they change lies as lanes do.
    Adam(Adam),
}

impl Micro {
    /// The register that a step writes.
    pub(crate) fn dst(&self) -> RegId {
        match *self {
            Micro::Load { dst, .. }
            | Micro::Fill { dst, .. }
            | Micro::Scalar { dst, .. }
            | Micro::Coord { dst, .. }
            | Micro::Inside { dst, .. }
            | Micro::Op { dst, .. }
            | Micro::Fused { dst, .. }
            | Micro::Cast { dst, .. }
            | Micro::Spread { dst, .. }
            | Micro::Expand { dst, .. }
            | Micro::Acc { dst, .. } => dst,
            Micro::Adam(ref adam) => adam.steps.last().expect("several steps").dst(),
        }
    }

    /// The registers that a step reads.
    pub(crate) fn sources(&self) -> Vec<RegId> {
        match self {
            Micro::Load { gather, .. } => gather.iter().copied().collect(),
            Micro::Op { op, args, .. } => args[..op.row().arity].to_vec(),
            Micro::Fused { op, args, .. } => args[..op.arity()].to_vec(),
            Micro::Cast { src, .. } | Micro::Expand { src, .. } => vec![*src],
            Micro::Spread { dst, .. } => vec![*dst],
            Micro::Adam(adam) => adam.steps.iter().flat_map(Micro::sources).collect(),
            Micro::Fill { .. }
            | Micro::Scalar { .. }
            | Micro::Coord { .. }
            | Micro::Inside { .. }
            | Micro::Acc { .. } => Vec::new(),
        }
    }
}

/// A reduction at the end of a pass.
pub(crate) struct Reduction {
    pub(crate) op: ReduceOp,
    pub(crate) dtype: DType,
    pub(crate) src: RegId,
    /// What it is multiplied by before, or taken from it and the difference squared.
    pub(crate) by: Option<RegId>,
    /// True iff such differences are summed.
    pub(crate) squares: bool,
    pub(crate) dst: RegId,
    /// True iff it asks for memory ahead, since no step does.
    pub(crate) asks: bool,
}

/// A store at the end of a pass.
pub(crate) struct Put {
    /// The first pass that computes it and after which its argument is not read.
    pub(crate) pass: usize,
    pub(crate) site: Site,
    pub(crate) arg: usize,
    pub(crate) src: RegId,
    /// True iff what is stored takes the place of an operand of its last step.
    pub(crate) updates: bool,
    /// True iff it goes past the caches.
    pub(crate) streams: bool,
}

/// One pass over a row, after what it needs once a row.
#[derive(Default)]
pub(crate) struct Pass {
    /// Over the rows of a tile.
    pub(crate) rows: Vec<Micro>,
    /// Over the points of a tile.
    pub(crate) points: Vec<Micro>,
    /// What the points give; the results are there in the next pass.
    pub(crate) reductions: Vec<Reduction>,
    /// What they give over all rows; the results are there at the end.
    pub(crate) columns: Vec<Reduction>,
}

/// A lowered body.
pub(crate) struct Program {
    /// Done once a worker; these registers keep their values.
    pub(crate) setup: Vec<Micro>,
    /// Loads that give the same for each tile: done once a worker, over a tile's points.
    pub(crate) again: Vec<Micro>,
    /// In order; all but the last end in reductions.
    pub(crate) passes: Vec<Pass>,
    /// Stores of every point, pass by pass, of every row, and of what is reduced over all rows.
    pub(crate) puts: Vec<Put>,
    pub(crate) row_puts: Vec<Put>,
    pub(crate) column_puts: Vec<Put>,
    /// The value of the last step, for an operand of a contraction.
    pub(crate) last: Option<RegId>,
    pub(crate) n_regs: usize,
    /// For each register, which of `puts` stores it and nothing else is in it: it may be computed in place.
    pub(crate) direct: Vec<Option<usize>>,
    /// For each register, whether all its readers take a single value as well.
    pub(crate) single: Vec<bool>,
    /// True iff there is so much to compute that memory would idle meanwhile: what comes next is asked for early.
    pub(crate) busy: bool,
    /// Bytes of the widest lane.
    pub(crate) lane_bytes: usize,
    /// How each argument is stored.
    pub(crate) dtypes: Vec<DType>,
}

/// An index space seen as rows of points.
#[derive(Clone)]
pub(crate) struct Rowed {
    /// Dims of the rows' space.
    pub(crate) outer: Vec<usize>,
    /// Dims of a row.
    pub(crate) row: Vec<usize>,
    /// True iff the points of a row are neighbours in a tile; else equal points of rows are.
    pub(crate) inner: bool,
}

impl Rowed {
    pub(crate) fn n_rows(&self) -> usize {
        self.outer.iter().product()
    }

    pub(crate) fn n_points(&self) -> usize {
        self.row.iter().product()
    }

    /// The dims in tile order.
    pub(crate) fn tile_dims(&self) -> Vec<usize> {
        if self.inner { [&*self.outer, &self.row].concat() } else { [&*self.row, &self.outer].concat() }
    }

    /// Where an axis stands in tile order; the gathered coordinate stays last.
    pub(crate) fn tile_axis(&self, axis: usize) -> usize {
        let (outer, row) = (self.outer.len(), self.row.len());
        match axis {
            _ if self.inner || axis >= outer + row => axis,
            _ if axis < outer => axis + row,
            _ => axis - outer,
        }
    }
}

impl Program {
    /// The stores of every point that a pass does.
    pub(crate) fn puts_of(&self, pass: usize) -> impl Iterator<Item = &Put> {
        self.puts.iter().filter(move |put| put.pass == pass)
    }

    /// True iff all that it does is an optimizer's update in one walk.
    pub(crate) fn is_update(&self) -> bool {
        let loads = |m: &&Micro| !matches!(m, Micro::Load { .. });
        let [pass] = &self.passes[..] else { return false };
        let mut steps = pass.points.iter().filter(loads);
        matches!((steps.next(), steps.next()), (Some(Micro::Adam(_)), None)) && self.puts.len() == 3
    }

    /// Steps over points, about: what a point costs.
    pub(crate) fn weight(&self) -> usize {
        let steps = |micro: &Micro| if let Micro::Adam(adam) = micro { adam.steps.len() } else { 1 };
        let pass = |p: &Pass| p.points.iter().map(steps).sum::<usize>() + p.reductions.len() + p.columns.len();
        self.passes.iter().map(pass).sum::<usize>() + self.puts.len()
    }
}
