//! How much of a walk a workgroup has at once, and where it lies in workgroup memory.
//!
//! The hard idea is that halves of a workgroup have *roles*, so that an invocation has one large block in registers
//! beside its sums. In a backward pass one role multiplies queries with keys, the other cotangents with values. In the
//! forward pass both have scores, each half of the columns, which they add up; then each goes on with half of the other
//! side's rows and maxima of its own, until all is over. Per block of 8 x 8 and step, four vectors come from workgroup
//! memory for 64 multiply-adds; of 4 x 8 three for 32, of 4 x 4 two for 16.

use super::super::{Schedule, Target};
use super::walk::{Block, Rows};
use super::{Flash, Sum};

/// Invocations that share own rows: each has fours of the other side's rows, and of the sums every eighth quad of
/// columns.
pub(crate) const ACROSS: usize = 8;

/// Rows that a workgroup has of both sides, and fours of them that an invocation has.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Shape {
    rows: usize,
    others: usize,
    own_fours: usize,
    other_fours: usize,
    /// Columns of a sum that its registers have room for.
    columns: usize,
    /// True iff two roles share the forward pass; needs two fours of the other side.
    joint: bool,
    /// What it reaches where there is enough to do, in ratio to the others.
    speed: usize,
}

/// Those that are used, largest first.
const SHAPES: [Shape; 5] = [
    Shape { rows: 64, others: 64, own_fours: 2, other_fours: 2, columns: 64, joint: true, speed: 100 },
    Shape { rows: 64, others: 32, own_fours: 2, other_fours: 1, columns: 64, joint: false, speed: 80 },
    Shape { rows: 32, others: 64, own_fours: 1, other_fours: 2, columns: 128, joint: true, speed: 75 },
    Shape { rows: 32, others: 32, own_fours: 1, other_fours: 1, columns: 128, joint: false, speed: 55 },
    Shape { rows: 16, others: 32, own_fours: 1, other_fours: 1, columns: 128, joint: false, speed: 40 },
];

/// Columns of a product that are staged together, most first; and at most where both roles add to one sum: more take
/// registers, of which an H200 then has enough for fewer workgroups (128 µs become 153).
const SLICES: [usize; 6] = [48, 40, 32, 24, 16, 8];
const SLICE_OF_HALVES: usize = 16;

/// Multiply-adds that stand in the text one after the other. Of more, instructions have to be fetched while they are
/// waited for: with 2048 a gradient takes 224 to 244 µs on an H200, with 512 it takes 153 to 190.
const WRITTEN_OUT: usize = 512;

/// Quads of rows that an invocation brings for a sum while it does something else: they wait in registers.
const WAITING: usize = 8;

/// Whether own rows stay in memory, and rows that are staged for a sum, best first; and the most of these where both roles
/// add to one sum.
const KEPT_AND_PART: [(bool, usize); 5] = [(true, 16), (true, 8), (false, 16), (false, 8), (false, 4)];
const PART_OF_HALVES: usize = 8;

/// Invocations that keep a part busy: two subgroups for each of the four schedulers of an H200's processors.
const FULL: usize = 4 * 2 * 32;

/// A shape, and what of it is in workgroup memory at once.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Tile {
    shape: Shape,
    /// Parts of the workgroup.
    pub(crate) roles: usize,
    /// True iff they share one product.
    pub(crate) joint: bool,
    /// Columns of a product.
    pub(crate) span: usize,
    /// Of which so many are staged together.
    pub(crate) slice: usize,
    /// True iff the own rows stay in memory, with all columns.
    pub(crate) kept: bool,
    /// Sums, and quads of the columns of the widest.
    pub(crate) sums: usize,
    pub(crate) quads: usize,
    /// Rows of the other side that are staged together for a sum, by each role.
    pub(crate) part: usize,
}

impl Tile {
    /// The one with which this walk takes the least time; `None` if none fits.
    pub(crate) fn choose(x: &Flash, target: &Target) -> Option<Tile> {
        let fitting = SHAPES.iter().filter_map(|shape| Tile::fitting(*shape, x, target));
        let time = |tile: &Tile| {
            let rows = tile.shape.rows;
            let tiles = x.batch * x.own.rows.div_ceil(rows);
            let busy = ((FULL * target.parts) as f64 / (tiles * tile.threads()).max(1) as f64).max(1.0);
            ((tiles * rows) as f64 * busy / tile.shape.speed as f64 * 1e3) as u64
        };
        match target.schedule {
            Schedule::Shared => {
                let all: Vec<Tile> = fitting.collect();
                all.iter().find(|tile| x.own.rows >= tile.shape.rows).or(all.last()).copied()
            }
            _ => fitting.min_by_key(time),
        }
    }

    /// The most of a shape that fits at once.
    fn fitting(shape: Shape, x: &Flash, target: &Target) -> Option<Tile> {
        let joint = x.forward() && shape.joint;
        let roles = if joint || x.slopes() { 2 } else { 1 };
        let width = x.sums.iter().map(|sum| sum.width).max().unwrap_or(0);
        if width > shape.columns {
            return None;
        }
        let sloped = if x.slopes() { x.width(x.own.sloped) } else { 0 };
        let columns = x.width(x.own.scored).max(sloped);
        let span = |slice: usize| columns.next_multiple_of(if joint { 2 * slice } else { slice });
        let slices = SLICES.into_iter().filter(|&slice| span(slice) == span(8));
        let mut tiles = slices.flat_map(|slice| {
            let (span, sums, quads) = (span(slice), x.sums.len(), width.div_ceil(4));
            KEPT_AND_PART.map(|(kept, part)| Tile { shape, roles, joint, span, slice, kept, sums, quads, part })
        });
        tiles.find(|tile| {
            let threads = tile.threads() as u32;
            let bytes = 16 * (tile.stage() + tile.maxima(x)) as u32;
            let slim = joint || !tile.halves() || tile.slice <= SLICE_OF_HALVES && tile.part <= PART_OF_HALVES;
            let waits = tile.part <= tile.summed() && tile.waiting() <= WAITING;
            slim && waits && threads <= target.max_invocations && bytes <= target.max_workgroup_bytes
        })
    }

    /// Rows that meet, of each side.
    pub(crate) fn extents(&self) -> [usize; 2] {
        [self.shape.rows, self.shape.others]
    }

    /// The rows that an invocation has.
    pub(crate) fn block(&self) -> Block {
        let Shape { rows, others, own_fours, other_fours, .. } = self.shape;
        Block {
            own: Rows { name: "own", fours: own_fours, apart: rows / own_fours, first: "first", all: rows },
            other: Rows { name: "others", fours: other_fours, apart: others / other_fours, first: "at", all: others },
        }
    }

    /// The rows whose weights an invocation has.
    pub(crate) fn met(&self) -> Block {
        let mut block = self.block();
        if self.joint {
            block.other.fours = 1;
        }
        block
    }

    /// Columns of a product that a role multiplies.
    pub(crate) fn multiplied(&self) -> usize {
        self.span / if self.joint { 2 } else { 1 }
    }

    /// Invocations that lie below each other.
    pub(crate) fn down(&self) -> usize {
        self.shape.rows / (4 * self.shape.own_fours)
    }

    /// Invocations of a role.
    pub(crate) fn team(&self) -> usize {
        ACROSS * self.down()
    }

    /// Invocations of a workgroup.
    pub(crate) fn threads(&self) -> usize {
        self.roles * self.team()
    }

    /// True iff both roles add to one sum, each for half of the other side's rows.
    pub(crate) fn halves(&self) -> bool {
        self.roles > 1 && self.sums == 1
    }

    /// Rows of the other side that a role adds to a sum, or has the weights of.
    pub(crate) fn summed(&self) -> usize {
        self.shape.others / (1 + usize::from(self.joint || self.halves()))
    }

    /// Of so many steps of a product or a sum, those that stand in the text one after the other.
    pub(crate) fn written_out(&self, steps: usize) -> usize {
        let most = WRITTEN_OUT / (16 * self.shape.own_fours * self.shape.other_fours);
        (1..=most).rev().find(|n| steps.is_multiple_of(*n)).unwrap_or(1)
    }

    /// Quads of a sum's columns that an invocation has.
    pub(crate) fn shares(&self) -> usize {
        self.quads.div_ceil(ACROSS)
    }

    /// The first column of such a quad, and when it is not beyond the edge of this sum if it may be.
    pub(crate) fn column(&self, sum: &Sum, share: usize) -> (String, Option<String>) {
        let quad = if share == 0 { "column".to_string() } else { format!("(column + {}u)", share * ACROSS) };
        let quads = sum.width.div_ceil(4);
        let inside = ((share + 1) * ACROSS > quads).then(|| format!("{quad} < {quads}u"));
        (format!("{quad} * 4u"), inside)
    }

    /// `vec4`s from one column of staged rows to the next, of each side; one is padding against conflicts.
    pub(crate) fn pitches(&self) -> [usize; 2] {
        self.extents().map(|rows| rows / 4 + 1)
    }

    /// Where things begin in the stage, in `vec4`s: own rows that stay, then in turn slices of a product, or weights and
    /// rows that are summed.
    pub(crate) fn start(&self) -> usize {
        if self.kept { self.roles * self.multiplied() * self.pitches()[0] } else { 0 }
    }

    /// A role's slices of a product: of the own rows unless they stay, then of the others.
    pub(crate) fn slices(&self) -> [usize; 2] {
        let [own, other] = self.pitches().map(|pitch| self.slice * pitch);
        [if self.kept { 0 } else { own }, other]
    }

    /// The weights of a sum.
    pub(crate) fn weights(&self) -> usize {
        self.shape.others * self.pitches()[0]
    }

    /// Rows of the other side, as many as a role has of them.
    pub(crate) fn rows(&self) -> usize {
        self.part * self.quads
    }

    /// Quads of them that an invocation brings.
    pub(crate) fn waiting(&self) -> usize {
        self.rows().div_ceil(self.team())
    }

    /// Scores that a role gives to the other.
    pub(crate) fn given(&self) -> usize {
        if self.joint { 4 * self.shape.own_fours * self.team() } else { 0 }
    }

    /// The whole stage.
    pub(crate) fn stage(&self) -> usize {
        let product = self.roles * self.slices().iter().sum::<usize>();
        let sums = self.sums * self.weights() + self.roles * self.rows();
        self.start() + product.max(if self.sums > 0 { sums } else { 0 }).max(2 * self.given())
    }

    /// From what an invocation has of its rows' maxima to what its neighbour has; one is padding against conflicts.
    pub(crate) fn exchanged(&self) -> usize {
        self.down() * self.shape.own_fours + 1
    }

    /// What is exchanged in the forward pass.
    pub(crate) fn maxima(&self, x: &Flash) -> usize {
        if x.forward() { self.roles * ACROSS * self.exchanged() } else { 0 }
    }

    /// For the header of the shader.
    pub(crate) fn describe(&self, side: &str) -> String {
        let Shape { rows, others, own_fours, other_fours, .. } = self.shape;
        let roles = if self.roles > 1 { ", in two roles" } else { "" };
        let (own, other, slice) = (4 * own_fours, 4 * other_fours, self.slice);
        format!(
            "a workgroup {rows} rows of the {side}, {others} of the other side at a time in slices of {slice}; \
             {own} x {other} an invocation{roles}"
        )
    }
}
