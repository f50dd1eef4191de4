//! What lies behind some tensors, as a program: one walk over their nodes, down to values that exist.

use std::sync::Arc;

use kiln_ir::{Graph, NodeId, Op, Result};

use crate::known::window;
use crate::node::{Node, Region, Source, Value};

/// A program without its outputs, and who asks for what.
pub(crate) struct Derived {
    pub(crate) graph: Graph,
    /// The entry of each target.
    pub(crate) targets: Vec<NodeId>,
    /// The entries of other nodes that a handle names.
    pub(crate) held: Vec<NodeId>,
}

/// The nodes behind some targets. A node's number is how many were met before it.
struct Behind {
    nodes: Vec<Arc<Node>>,
    /// The numbers of what each reads; `None` if its value exists.
    inputs: Vec<Option<Vec<u32>>>,
    /// The number of each target; those come first.
    targets: Vec<u32>,
    n_targets: usize,
}

/// The program behind targets. `walk` is a number that no mark has yet.
///
/// # Errors
/// If a value on the way failed to be computed before.
///
/// # Panics
/// If a value on the way was released and cannot be computed again.
pub(crate) fn derive(targets: &[Arc<Node>], walk: u32) -> Result<Derived> {
    let behind = find(targets, walk)?;
    let ids: Vec<u64> = behind.nodes.iter().map(|node| node.id).collect();
    let mut entry: Vec<NodeId> = vec![0; ids.len()];
    let (mut graph, mut held) = (Graph::default(), Vec::new());
    let (mut stages, mut n_leaves, mut n_scalars) = (Stages::default(), 0, 0);
    for number in in_order(&ids).into_iter().map(|number| number as usize) {
        let node = &behind.nodes[number];
        let of_entries = |inputs: &Vec<u32>| inputs.iter().map(|&input| entry[input as usize]).collect();
        let mut inputs: Vec<NodeId> = behind.inputs[number].as_ref().map_or(Vec::new(), of_entries);
        let op = match &node.source {
            _ if behind.inputs[number].is_none() => Op::Leaf(next(&mut n_leaves)),
            Source::Scalar { .. } => Op::Scalar(next(&mut n_scalars)),
            Source::Op(op) => match window_into(&graph, op, &inputs) {
                None => op.clone(),
                Some(rest) => {
                    let leaf = graph.nodes[inputs[0] as usize].clone();
                    let op = Op::Offset(next(&mut n_scalars));
                    let begin = graph.nodes.len() as NodeId;
                    graph.nodes.push(kiln_ir::Node { op, inputs, stage: 0, ..leaf });
                    inputs = vec![begin];
                    rest
                }
            },
            Source::Leaf => unreachable!("a leaf has a value, or the walk refused it"),
        };
        entry[number] = graph.nodes.len() as NodeId;
        if node.handles() > 0 && number >= behind.n_targets {
            held.push(entry[number]);
        }
        let (location, stage) = (Some(node.location), stages.of(node.region));
        graph.nodes.push(kiln_ir::Node { op, inputs, shape: node.shape, dtype: node.dtype, location, stage });
    }
    let targets = behind.targets.iter().map(|&target| entry[target as usize]).collect();
    Ok(Derived { graph, targets, held })
}

fn next(n: &mut u32) -> u32 {
    *n += 1;
    *n - 1
}

/// What is left of a slice of a leaf.
fn window_into(graph: &Graph, op: &Op, inputs: &[NodeId]) -> Option<Op> {
    let of = &graph.nodes[*inputs.first()? as usize];
    let (_, rest) = window(op, &of.shape).filter(|_| matches!(of.op, Op::Leaf(_)))?;
    Some(Op::View(rest))
}

/// Finds the targets and what they are computed from, down to values that exist.
fn find(targets: &[Arc<Node>], walk: u32) -> Result<Behind> {
    let mut nodes = Vec::new();
    let targets = targets.iter().map(|target| meet(target, walk, &mut nodes)).collect();
    let (n_targets, mut inputs) = (nodes.len(), Vec::new());
    while let Some(node) = nodes.get(inputs.len()).cloned() {
        let books = node.books();
        match &books.value {
            Value::Ready(_) => inputs.push(None),
            Value::Pending => inputs.push(Some(books.inputs.iter().map(|i| meet(i, walk, &mut nodes)).collect())),
            Value::Failed(error) => return Err(error.clone()),
            Value::Gone => {
                // A panic that holds the books would leave them locked for those who unwind.
                let location = node.location;
                drop(books);
                panic!(
                    "the value recorded at {location} was overwritten or released when its last handle went; keep a clone of it"
                );
            }
        }
    }
    Ok(Behind { nodes, inputs, targets, n_targets })
}

/// A node's number in a walk; one that was not met before is added to the list.
fn meet(node: &Arc<Node>, walk: u32, nodes: &mut Vec<Arc<Node>>) -> u32 {
    let (last, number) = node.mark();
    if last == walk {
        return number;
    }
    let number = nodes.len() as u32;
    node.set_mark(walk, number);
    nodes.push(node.clone());
    number
}

/// Stages numbered by where they come in a program, so that equal programs are equal.
#[derive(Default)]
struct Stages(Vec<u64>);

impl Stages {
    fn of(&mut self, region: Region) -> u32 {
        let Region::Recomputed(stage) = region else { return 0 };
        let at = self.0.iter().position(|s| *s == stage).unwrap_or_else(|| {
            self.0.push(stage);
            self.0.len() - 1
        });
        at as u32 + 1
    }
}

/// The numbers of nodes with these ids in recorded order. Most of what one program reads was recorded one after the other,
/// and finds its place without being compared with others.
pub(crate) fn in_order(ids: &[u64]) -> Vec<u32> {
    const NOBODY: u32 = u32::MAX;
    let newest = ids.iter().max().copied().unwrap_or(0);
    let mut places = vec![NOBODY; 2 * ids.len()];
    let first = (newest + 1).saturating_sub(places.len() as u64);
    let mut order = Vec::with_capacity(ids.len());
    for (id, number) in ids.iter().zip(0..) {
        match id.checked_sub(first) {
            Some(at) => places[at as usize] = number,
            None => order.push(number),
        }
    }
    order.sort_unstable_by_key(|&number| ids[number as usize]);
    order.extend(places.into_iter().filter(|&number| number != NOBODY));
    order
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Device, Tensor};

    #[test]
    fn nodes_come_in_recorded_order_however_far_apart() {
        let device = Device::new(kiln_cpu::CpuBackend::with_threads(1));
        let mut tensors: Vec<Tensor> = Vec::new();
        for n in 0..40 {
            // Others are recorded between them, ever fewer.
            (n..9).for_each(|_| drop(Tensor::zeros(&[2], &device)));
            tensors.push(Tensor::zeros(&[2], &device));
        }
        let ids: Vec<u64> = tensors.iter().map(|t| t.node().id).collect();
        let mixed: Vec<u64> = (0..40).map(|n| ids[n * 7 % 40]).collect();
        let order = in_order(&mixed);
        assert_eq!(order.iter().map(|&number| mixed[number as usize]).collect::<Vec<_>>(), ids);
        assert!(in_order(&[]).is_empty());
    }
}
