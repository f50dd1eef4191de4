//! Merge sorts of lookups: what a sort means without a kernel of its own, and how sorted tiles become rows.
//!
//! Each step merges neighbouring sorted runs. An element of the result searches for how many elements before it come
//! from the left run; ties are the left one's. So each step is one kernel of lookups: Green, Odeh and Birk 2014,
//! <https://arxiv.org/abs/1406.2628>.

use std::sync::Arc;

use super::{Sort, kept, rows};
use crate::expr::E;
use crate::scan::cast;
use crate::{DType, Graph, Movement, NodeId, Op, PointOp, Shape};

/// Appends what a sort means to a graph that holds its input; gives the nodes of values and indices.
///
/// # Panics
/// If the input breaks a rule of the op.
pub fn compose(graph: &mut Graph, sort: Sort, x: NodeId) -> [NodeId; 2] {
    let (shape, dtype) = (graph.nodes[x as usize].shape, graph.nodes[x as usize].dtype);
    if shape[sort.axis] <= 1 || shape.numel() == 0 {
        let first = graph.source(Op::Iota(sort.axis), shape, DType::I32);
        return [(x, dtype), (first, DType::I32)].map(|(x, dtype)| {
            let first = Movement::Slice { axis: sort.axis, start: 0, len: sort.keep, step: 1 };
            let first = graph.apply(Op::View(first), &[x]);
            cast(graph, dtype, first)
        });
    }
    let keys = rows(graph, sort, x);
    let mut merge = Merge::new(graph, keys, sort.descending, 1);
    // Before the first step, an element's index is its place in its row.
    let (from, row) = (merge.sources(keys), merge.row);
    let indices = merge.map(&(E::input(0) - E::input(1) * merge.rows[1] as f64), &[from, row]);
    let values = merge.look_up(keys, from);
    merge.run = 2;
    let sorted = merge.finish([values, indices]);
    kept(graph, sort, x, sorted)
}

/// Appends the merge of rows `[rows, len]`, values and indices, that consist of sorted runs; the last run of each may
/// be shorter.
pub(super) fn merged(graph: &mut Graph, parts: [NodeId; 2], descending: bool, run: usize) -> [NodeId; 2] {
    Merge::new(graph, parts[0], descending, run).finish(parts)
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

impl<'a> Merge<'a> {
    fn new(graph: &'a mut Graph, keys: NodeId, descending: bool, run: usize) -> Merge<'a> {
        let (rows, key) = (graph.nodes[keys as usize].shape, graph.nodes[keys as usize].dtype);
        let [row, column] = [0, 1].map(|axis| graph.source(Op::Iota(axis), rows, DType::I32));
        Merge { graph, rows, row, column, run, order: Order { descending, key } }
    }

    /// Values and indices after all steps.
    fn finish(mut self, [mut values, mut indices]: [NodeId; 2]) -> [NodeId; 2] {
        while self.run < self.rows[1] {
            let from = self.sources(values);
            indices = self.look_up(indices, from);
            values = self.look_up(values, from);
            self.run *= 2;
        }
        [values, indices]
    }

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
