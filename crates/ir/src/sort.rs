//! Sorting along an axis: an op with two parts, values and where they were, which one kernel computes.
//!
//! [`compose`] says what they are in terms of lookups: a device without the kernel runs that. One whose kernel sorts
//! short rows of words runs [`in_tiles`].

mod merge;
mod tiles;

use std::cmp::Ordering;

use crate::scan::{cast, extents};
use crate::{Axes, DType, Graph, Movement, NodeId, Op, Shape};

pub use merge::compose;
pub use tiles::in_tiles;

/// One value of a sort.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub enum Part {
    /// The elements in order.
    Values,
    /// Where each of them was along the axis, `i32`.
    Indices,
}

/// A stable sort along an axis. NaN is greater than all numbers; equals stay in order, descending too.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Sort {
    /// Which value.
    pub part: Part,
    /// Along which axis.
    pub axis: usize,
    /// True iff the greatest comes first.
    pub descending: bool,
    /// How many of the first are kept: the result's dim along the axis.
    pub keep: usize,
}

impl Sort {
    /// The name in messages and dumps.
    pub fn name(self) -> &'static str {
        match self.part {
            Part::Values => "sort",
            Part::Indices => "argsort",
        }
    }

    /// The input's dims before the axis, along it and after it, each multiplied.
    pub fn extents(self, x: &Shape) -> [usize; 3] {
        extents(x, self.axis)
    }

    /// The order of two elements.
    pub fn order(self, a: f64, b: f64) -> Ordering {
        let ascending = a.partial_cmp(&b).unwrap_or_else(|| a.is_nan().cmp(&b.is_nan()));
        if self.descending { ascending.reverse() } else { ascending }
    }
}

/// The shape and dtype of a part, or the rule that the input breaks.
pub(crate) fn infer(sort: Sort, (x, dtype): (&Shape, DType)) -> Result<(Shape, DType), String> {
    if sort.axis >= x.rank() {
        return Err(format!("axis {} out of range for rank {}", sort.axis, x.rank()));
    }
    if x[sort.axis] > i32::MAX as usize {
        return Err(format!("dim {} of axis {} is beyond i32", x[sort.axis], sort.axis));
    }
    if sort.keep > x[sort.axis] {
        return Err(format!("keeps {} of dim {} of axis {}", sort.keep, x[sort.axis], sort.axis));
    }
    Ok((x.with(sort.axis, sort.keep), if sort.part == Part::Values { dtype } else { DType::I32 }))
}

/// The dtype in which elements are compared: their own, or one that is a word.
pub fn key(dtype: DType) -> DType {
    if dtype == DType::Bool { DType::U32 } else { dtype.compute() }
}

/// Appends a sort's input as rows of keys, each in one piece: `[rows, len]`.
fn rows(graph: &mut Graph, sort: Sort, x: NodeId) -> NodeId {
    let (shape, dtype) = (graph.nodes[x as usize].shape, graph.nodes[x as usize].dtype);
    let [outer, len, inner] = sort.extents(&shape);
    let wide = if key(dtype) == dtype { x } else { cast(graph, key(dtype), x) };
    let split = graph.apply(Op::View(Movement::Reshape(Shape::new(&[outer, len, inner]))), &[wide]);
    let turned = graph.apply(Op::View(Movement::Permute(Axes::new(&[0, 2, 1]))), &[split]);
    graph.apply(Op::View(Movement::Reshape(Shape::new(&[outer * inner, len]))), &[turned])
}

/// Appends what a sort of `x` keeps of rows that are in order: values, and where they were.
fn kept(graph: &mut Graph, sort: Sort, x: NodeId, rows: [NodeId; 2]) -> [NodeId; 2] {
    let (shape, dtype) = (graph.nodes[x as usize].shape, graph.nodes[x as usize].dtype);
    let [outer, _, inner] = sort.extents(&shape);
    [(rows[0], dtype), (rows[1], DType::I32)].map(|(rows, dtype)| {
        let first = Movement::Slice { axis: 1, start: 0, len: sort.keep, step: 1 };
        let first = graph.apply(Op::View(first), &[rows]);
        let split = Movement::Reshape(Shape::new(&[outer, inner, sort.keep]));
        let split = graph.apply(Op::View(split), &[first]);
        let turned = graph.apply(Op::View(Movement::Permute(Axes::new(&[0, 2, 1]))), &[split]);
        let whole = graph.apply(Op::View(Movement::Reshape(shape.with(sort.axis, sort.keep))), &[turned]);
        cast(graph, dtype, whole)
    })
}
