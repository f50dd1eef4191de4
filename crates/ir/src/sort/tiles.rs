//! Sorts of long rows by a kernel that sorts short ones: tiles of a row are sorted, then they are merged; or where
//! few are kept, the first of each tile are sorted again.

use std::sync::Arc;

use super::{Part, Sort, kept, merge, rows};
use crate::expr::E;
use crate::{DType, Graph, Movement, NodeId, Op, PointOp, Shape};

/// Appends a sort to a graph that holds its input, as sorts of rows of up to `tile` words, a power of two, along
/// their last axis; gives the nodes of values and indices.
///
/// # Panics
/// If the input breaks a rule of the op.
pub fn in_tiles(graph: &mut Graph, sort: Sort, x: NodeId, tile: usize) -> [NodeId; 2] {
    if graph.nodes[x as usize].shape.numel() == 0 {
        return merge::compose(graph, sort, x);
    }
    let keys = rows(graph, sort, x);
    // Nothing can be looked up where nothing is kept.
    let sorted = first_of(graph, Sort { keep: sort.keep.max(1), ..sort }, keys, tile);
    kept(graph, sort, x, sorted)
}

/// The first of rows `[rows, len]` in order, at least as many as are kept.
fn first_of(graph: &mut Graph, sort: Sort, keys: NodeId, tile: usize) -> [NodeId; 2] {
    let Sort { descending, keep, .. } = sort;
    let [n, len] = [0, 1].map(|axis| graph.nodes[keys as usize].shape[axis]);
    let along_rows = |graph: &mut Graph, keys: NodeId, keep: usize| {
        [Part::Values, Part::Indices].map(|part| {
            let sort = Sort { part, axis: 1, descending, keep };
            graph.apply(Op::Sort(sort), &[keys])
        })
    };
    if len <= tile {
        return along_rows(graph, keys, keep);
    }
    // Below half a tile, a second round has fewer elements than the first.
    let few = keep <= tile / 2;
    let (tiles, of_tile) = (len.div_ceil(tile), if few { keep } else { tile });
    let padded = padded(graph, keys, descending, tiles * tile);
    let split = graph.apply(Op::View(Movement::Reshape(Shape::new(&[n * tiles, tile]))), &[padded]);
    let [values, places] = along_rows(graph, split, of_tile);
    let in_rows = |graph: &mut Graph, x: NodeId| {
        graph.apply(Op::View(Movement::Reshape(Shape::new(&[n, tiles * of_tile]))), &[x])
    };
    let values = in_rows(graph, values);
    // From places in a tile to those in a row.
    let by_tile = Shape::new(&[n, tiles, of_tile]);
    let places = graph.apply(Op::View(Movement::Reshape(by_tile)), &[places]);
    let number = graph.source(Op::Iota(1), by_tile, DType::I32);
    let places = map(graph, &(E::input(0) + E::input(1) * tile as f64), &[places, number]);
    let indices = in_rows(graph, places);
    if !few {
        return merge::merged(graph, [values, indices], descending, tile);
    }
    // Equal elements are in order among the tiles, as they are among what is kept of them.
    let [first, among] = first_of(graph, sort, values, tile);
    let all = Shape::new(&[n * tiles * of_tile]);
    let all = graph.apply(Op::View(Movement::Reshape(all)), &[indices]);
    let row = graph.source(Op::Iota(0), graph.nodes[among as usize].shape, DType::I32);
    let at = map(graph, &(E::input(0) + E::input(1) * (tiles * of_tile) as f64), &[among, row]);
    [first, graph.apply(Op::Gather(0), &[all, at])]
}

/// Rows made longer by elements that come last: none is before them, and equal ones were there first.
fn padded(graph: &mut Graph, keys: NodeId, descending: bool, len: usize) -> NodeId {
    let Graph { nodes, .. } = &*graph;
    let (own, dtype) = (nodes[keys as usize].shape[1], nodes[keys as usize].dtype);
    if own == len {
        return keys;
    }
    let last = match (dtype, descending) {
        (DType::I32, false) => i32::MAX as f64,
        (DType::I32, true) => i32::MIN as f64,
        (DType::U32, false) => u32::MAX as f64,
        (DType::U32, true) => 0.0,
        (_, false) => f64::NAN,
        (_, true) => f64::NEG_INFINITY,
    };
    let longer = Movement::Pad { axis: 1, lo: 0, hi: len - own, interior: 0 };
    let longer = graph.apply(Op::View(longer), &[keys]);
    let at = graph.source(Op::Iota(1), graph.nodes[longer as usize].shape, DType::I32);
    let inside = E::op(PointOp::Lt, &[&E::input(1), &E::lit(own as f64)]);
    map(graph, &E::input(0).when(&inside, &E::lit(last)), &[longer, at])
}

fn map(graph: &mut Graph, formula: &E, inputs: &[NodeId]) -> NodeId {
    graph.apply(Op::Map(Arc::new(formula.build())), inputs)
}
