//! Sorting along an axis: an op with two parts, values and where they were, which one kernel computes.
//!
//! [`compose`] says what they are in terms of lookups: a device without the kernel runs that.

use std::cmp::Ordering;
use std::sync::Arc;

use crate::expr::E;
use crate::scan::{cast, extents};
use crate::{DType, Graph, Movement, NodeId, Op, PointOp, Shape};

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

    /// What is kept of a value that is sorted.
    fn first(self, graph: &mut Graph, sorted: NodeId) -> NodeId {
        let kept = Movement::Slice { axis: self.axis, start: 0, len: self.keep, step: 1 };
        graph.apply(Op::View(kept), &[sorted])
    }

    /// The order of two elements.
    pub fn order(self, a: f64, b: f64) -> Ordering {
        let ascending = a.partial_cmp(&b).unwrap_or_else(|| a.is_nan().cmp(&b.is_nan()));
        if self.descending { ascending.reverse() } else { ascending }
    }
}

/// The shape and dtype of a part, or the rule that the input breaks.
pub(crate) fn infer(sort: Sort, (x, dtype): (Shape, DType)) -> Result<(Shape, DType), String> {
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

/// Appends what a sort means to a graph that holds its input; gives the nodes of values and indices.
///
/// A merge sort from the bottom: each step merges neighbouring sorted runs. An element of the result searches for how
/// many elements before it come from the left run; ties are the left one's. So each step is one kernel of lookups:
/// Green, Odeh and Birk 2014, <https://arxiv.org/abs/1406.2628>.
///
/// # Panics
/// If the input breaks a rule of the op.
pub fn compose(graph: &mut Graph, sort: Sort, x: NodeId) -> [NodeId; 2] {
    let (shape, dtype) = (graph.nodes[x as usize].shape, graph.nodes[x as usize].dtype);
    let [outer, len, inner] = sort.extents(&shape);
    if len <= 1 || shape.numel() == 0 {
        let first = graph.source(Op::Iota(sort.axis), shape, DType::I32);
        return [(x, dtype), (first, DType::I32)].map(|(x, dtype)| {
            let kept = sort.first(graph, x);
            cast(graph, dtype, kept)
        });
    }
    let key = if dtype == DType::Bool { DType::U32 } else { dtype.compute() };
    let rows = Shape::new(&[outer * inner, len]);
    let wide = cast(graph, key, x);
    let split = graph.apply(Op::View(Movement::Reshape(Shape::new(&[outer, len, inner]))), &[wide]);
    let turned = graph.apply(Op::View(Movement::Permute(vec![0, 2, 1])), &[split]);
    let mut values = graph.apply(Op::View(Movement::Reshape(rows)), &[turned]);
    let [row, column] = [0, 1].map(|axis| graph.source(Op::Iota(axis), rows, DType::I32));
    let mut merge = Merge { graph, rows, row, column, run: 1, order: Order { descending: sort.descending, key } };
    // Before the first step, an element's index is its place in its row.
    let mut from = merge.sources(values);
    let mut indices = merge.map(&(E::input(0) - E::input(1) * len as f64), &[from, row]);
    values = merge.look_up(values, from);
    while merge.run * 2 < len {
        merge.run *= 2;
        from = merge.sources(values);
        indices = merge.look_up(indices, from);
        values = merge.look_up(values, from);
    }
    [(values, dtype), (indices, DType::I32)].map(|(sorted, dtype)| {
        let split = graph.apply(Op::View(Movement::Reshape(Shape::new(&[outer, inner, len]))), &[sorted]);
        let turned = graph.apply(Op::View(Movement::Permute(vec![0, 2, 1])), &[split]);
        let whole = graph.apply(Op::View(Movement::Reshape(shape)), &[turned]);
        let kept = sort.first(graph, whole);
        cast(graph, dtype, kept)
    })
}

/// Which of two keys comes first.
#[derive(Clone, Copy)]
struct Order {
    descending: bool,
    key: DType,
}

impl Order {
    /// Whether `x` comes before `y`, and not only beside it.
    fn before(self, x: &E, y: &E) -> E {
        let (x, y) = if self.descending { (y, x) } else { (x, y) };
        let less = E::op(PointOp::Lt, &[x, y]);
        if !self.key.is_float() {
            return less;
        }
        let number = |x: &E| E::op(PointOp::Eq, &[x, x]);
        let only_last = E::op(PointOp::And, &[&number(x), &number(y).map(PointOp::Not)]);
        E::op(PointOp::Or, &[&less, &only_last])
    }
}

/// One step of a merge sort of rows: pairs of runs become runs of twice the length.
struct Merge<'a> {
    graph: &'a mut Graph,
    rows: Shape,
    /// The coordinates of an element.
    row: NodeId,
    column: NodeId,
    /// The length of a run, a power of two; the last one of a row may be shorter.
    run: usize,
    order: Order,
}

/// Of the column that is input 0: its place in the pair of runs, and the lengths of both runs.
struct Pair {
    place: E,
    left: E,
    right: E,
}

impl Merge<'_> {
    fn map(&mut self, formula: &E, inputs: &[NodeId]) -> NodeId {
        self.graph.apply(Op::Map(Arc::new(formula.build())), inputs)
    }

    /// Elements of rows by their places in row-major order.
    fn look_up(&mut self, rows: NodeId, places: NodeId) -> NodeId {
        let flat = Movement::Reshape(Shape::new(&[self.rows.numel()]));
        let flat = self.graph.apply(Op::View(flat), &[rows]);
        self.graph.apply(Op::Gather(0), &[flat, places])
    }

    fn pair(&self) -> Pair {
        let (len, run) = (self.rows[1] as f64, self.run as f64);
        let place = E::op(PointOp::And, &[&E::input(0), &E::lit(2.0 * run - 1.0)]);
        let rest = len - (E::input(0) - &place);
        let at_most = |x: &E| E::op(PointOp::Min, &[x, &E::lit(run)]);
        let right = E::op(PointOp::Max, &[&at_most(&(&rest - run)), &E::lit(0.0)]);
        Pair { left: at_most(&rest), right, place }
    }

    /// Where the pair of runs of the column that is input 0 begins, in the row that is input 1, in row-major order.
    fn begin(&self) -> E {
        E::input(1) * self.rows[1] as f64 + (E::input(0) - self.pair().place)
    }

    /// The elements that compete: number `input 2` of the left run, and that of the right one with so many before
    /// both together.
    fn rivals(&mut self, values: NodeId, taken: NodeId, before: &E) -> [NodeId; 2] {
        let (begin, run) = (self.begin(), self.run as f64);
        let left = &begin + E::input(2);
        let right = begin + run + (before - E::input(2));
        [left, right].map(|place| {
            let places = self.map(&place, &[self.column, self.row, taken]);
            self.look_up(values, places)
        })
    }

    /// Where each element of the merged runs comes from, in row-major order.
    fn sources(&mut self, values: NodeId) -> NodeId {
        let (column, run) = (self.column, self.run as f64);
        let Pair { place, left, right } = self.pair();
        // Between these two lies how many elements of the left run come before.
        let least = E::op(PointOp::Max, &[&(&place - &right), &E::lit(0.0)]);
        let most = E::op(PointOp::Min, &[&place, &left]);
        let [mut least, mut most] = [least, most].map(|e| self.map(&e, &[column]));
        for _ in 0..=self.run.ilog2() {
            let middle = E::op(PointOp::Shr, &[&(E::input(0) + E::input(1)), &E::lit(1.0)]);
            let middle = self.map(&middle, &[least, most]);
            let [a, b] = self.rivals(values, middle, &(&place - 1.0));
            let open = E::op(PointOp::Lt, &[&E::input(0), &E::input(1)]);
            let right_first = self.order.before(&E::input(4), &E::input(3));
            let more = E::op(PointOp::And, &[&open, &right_first.map(PointOp::Not)]);
            let fewer = E::op(PointOp::And, &[&open, &right_first]);
            let inputs = [least, most, middle, a, b];
            let raised = (E::input(2) + 1.0).when(&more, &E::input(0));
            let lowered = E::input(2).when(&fewer, &E::input(1));
            [least, most] = [raised, lowered].map(|e| self.map(&e, &inputs));
        }
        let [a, b] = self.rivals(values, least, &place);
        let taken = &place - E::input(2);
        let exhausted = E::op(PointOp::Lt, &[&E::input(2), &left]).map(PointOp::Not);
        let is_first = E::op(PointOp::Or, &[&exhausted, &self.order.before(&E::input(4), &E::input(3))]);
        let from_right = E::op(PointOp::And, &[&E::op(PointOp::Lt, &[&taken, &right]), &is_first]);
        let source = self.begin() + (taken + run).when(&from_right, &E::input(2));
        self.map(&source, &[column, self.row, least, a, b])
    }
}
