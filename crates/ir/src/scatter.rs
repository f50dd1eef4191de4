//! Scatters without a kernel of their own: slices are sorted by where they go, so that those of one place lie side by
//! side, and added up there.
//!
//! The work grows with the number of slices and the size of the result, and with no product of them.

use std::sync::Arc;

use crate::expr::E;
use crate::scan::cast;
use crate::sort::{Part, Sort};
use crate::{Axes, DType, Graph, Movement, NodeId, Op, PointOp, ReduceOp, Shape};

/// Slices that one step adds up: fewer steps are fewer kernels, each of which reads more.
const REACH: usize = 8;

/// Appends values and indices of a sort, of which a device may have a kernel.
pub type Sorter<'a> = &'a dyn Fn(&mut Graph, Sort, NodeId) -> [NodeId; 2];

/// Appends what `Op::Scatter` means to a graph that holds its inputs, the index and the values; gives its node.
///
/// # Panics
/// If the inputs break a rule of the op.
pub fn compose(graph: &mut Graph, axis: usize, size: usize, [index, values]: [NodeId; 2], sort: Sorter) -> NodeId {
    let node = |id: NodeId| &graph.nodes[id as usize];
    let (shape, dtype, n) = (node(values).shape, node(values).dtype, node(index).shape.numel());
    let inner = &shape[axis + node(index).shape.rank()..];
    let result = Shape::new(&[&shape[..axis], &[size], inner].concat());
    let numel = |dims: &[usize]| dims.iter().product::<usize>();
    let rows = [numel(&shape[..axis]), n, numel(inner)];
    if rows.contains(&0) || size == 0 {
        let nothing = graph.source(Op::Const(0.0), Shape::scalar(), dtype);
        let nothing = view(graph, nothing, Movement::Expand(result));
        return cast(graph, dtype, nothing);
    }
    let at_least = E::op(PointOp::Max, &[&E::input(0), &E::lit(0.0)]);
    let clamped = E::op(PointOp::Min, &[&at_least, &E::lit(size as f64 - 1.0)]);
    let clamped = map(graph, &clamped, &[index]);
    let places = reshape(graph, clamped, &[n]);
    let places = cast(graph, DType::I32, places);
    let in_order = Sort { part: Part::Values, axis: 0, descending: false, keep: n };
    let [places, order] = sort(graph, in_order, places);
    let wide = cast(graph, dtype.compute(), values);
    let slices = reshape(graph, wide, &rows);
    let slices = graph.apply(Op::Gather(1), &[slices, order]);
    let mut sums = Sums { graph, places, rows };
    let sums_of_runs = sums.of_runs(slices);
    let value = sums.at_places(size, sums_of_runs);
    let value = reshape(graph, value, &result);
    cast(graph, dtype, value)
}

fn map(graph: &mut Graph, formula: &E, inputs: &[NodeId]) -> NodeId {
    graph.apply(Op::Map(Arc::new(formula.build())), inputs)
}

fn view(graph: &mut Graph, x: NodeId, movement: Movement) -> NodeId {
    graph.apply(Op::View(movement), &[x])
}

fn reshape(graph: &mut Graph, x: NodeId, dims: &[usize]) -> NodeId {
    view(graph, x, Movement::Reshape(Shape::new(dims)))
}

/// Slices in the order of their places.
struct Sums<'a> {
    graph: &'a mut Graph,
    /// The place of each slice, ascending.
    places: NodeId,
    /// Dims before the slices, their number, dims after them.
    rows: [usize; 3],
}

impl Sums<'_> {
    /// For each slice, the sum of it and those after it that have the same place, in their order.
    ///
    /// After each step, it is that of `REACH` times as many slices.
    fn of_runs(&mut self, slices: NodeId) -> NodeId {
        let (graph, [outer, n, inner]) = (&mut *self.graph, self.rows);
        // Behind the end lies 0, which is the number of no place.
        let number = map(graph, &(E::input(0) + 1.0), &[self.places]);
        let (mut value, mut reach) = (slices, 1);
        while reach < n {
            let size = REACH.min(n.div_ceil(reach));
            let (pad, all) = ((size - 1) * reach, Shape::new(&[outer, n, size, inner]));
            let windows = |graph: &mut Graph, x: NodeId, axis: usize| {
                let longer = view(graph, x, Movement::Pad { axis, lo: 0, hi: pad, interior: 0 });
                view(graph, longer, Movement::Window { axis, size, stride: 1, dilation: reach })
            };
            let later = windows(graph, value, 1);
            let numbers = windows(graph, number, 0);
            let [numbers, own] = [(numbers, [1, n, size, 1]), (number, [1, n, 1, 1])].map(|(x, dims)| {
                let split = reshape(graph, x, &dims);
                view(graph, split, Movement::Expand(all))
            });
            let same = E::op(PointOp::Eq, &[&E::input(1), &E::input(2)]);
            let added = map(graph, &E::input(0).when(&same, &E::lit(0.0)), &[later, numbers, own]);
            let sum = graph.apply(Op::Reduce(ReduceOp::Sum, Axes::new(&[2])), &[added]);
            value = reshape(graph, sum, &self.rows);
            reach *= size;
        }
        value
    }

    /// For each place, the sum of the slices from the first one on that has it; 0 where none has.
    fn at_places(&mut self, size: usize, sums: NodeId) -> NodeId {
        let (graph, [outer, n, inner]) = (&mut *self.graph, self.rows);
        let place = graph.source(Op::Iota(0), Shape::new(&[size]), DType::I32);
        // How many slices come before: by powers of two, greatest first.
        let mut count = map(graph, &(E::input(0) * 0.0), &[place]);
        for more in (0..=n.ilog2()).rev().map(|bit| (1u64 << bit) as f64) {
            let at = map(graph, &(E::input(0) + (more - 1.0)), &[count]);
            let there = graph.apply(Op::Gather(0), &[self.places, at]);
            let enough = E::op(PointOp::Lt, &[&(E::input(0) + more), &E::lit(n as f64 + 1.0)]);
            let before = E::op(PointOp::Lt, &[&E::input(1), &E::input(2)]);
            let both = E::op(PointOp::And, &[&enough, &before]);
            let raised = (E::input(0) + more).when(&both, &E::input(0));
            count = map(graph, &raised, &[count, there, place]);
        }
        let first = graph.apply(Op::Gather(0), &[self.places, count]);
        let found = graph.apply(Op::Gather(1), &[sums, count]);
        let [first, place] = [first, place].map(|x| {
            let split = reshape(graph, x, &[1, size, 1]);
            view(graph, split, Movement::Expand(Shape::new(&[outer, size, inner])))
        });
        let there = E::op(PointOp::Eq, &[&E::input(1), &E::input(2)]);
        map(graph, &E::input(0).when(&there, &E::lit(0.0)), &[found, first, place])
    }
}
