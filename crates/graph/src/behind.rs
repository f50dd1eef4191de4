//! What lies behind some tensors: one walk over their nodes, down to values that exist.
//!
//! A step of a loop is captured again and again, and that is most of what a small model costs. So each node's books are
//! opened once, and the lists that a capture fills are left to the next one of its device.

use std::sync::Arc;

use kiln_ir::{Buffer, NodeId, Result};

use crate::capture::Captured;
use crate::node::{Node, Value};

/// The lists of a capture. A node's number is how many were met before it.
#[derive(Default)]
pub(crate) struct Lists {
    /// The nodes that were met, until they are taken.
    pub(crate) met: Vec<Option<Arc<Node>>>,
    ids: Vec<u64>,
    /// The elements of each, if they are computed.
    pub(crate) values: Vec<Option<Buffer>>,
    /// The numbers of what the nodes read, one after the other, and where each node's begin.
    inputs: Vec<u32>,
    starts: Vec<u32>,
    /// The numbers in recorded order.
    pub(crate) order: Vec<u32>,
    places: Vec<u32>,
    /// Nodes that are met while their reader's books are open.
    fresh: Vec<Arc<Node>>,
    /// For each number, the node's entry in the program.
    pub(crate) entry: Vec<NodeId>,
    /// For each entry, whether it is wanted.
    pub(crate) wanted: Vec<bool>,
    /// For each entry, how many claims on it end with the program, and whether all do.
    pub(crate) ending: Vec<usize>,
    pub(crate) ends: Vec<bool>,
    /// True iff some value that exists could be computed again.
    pub(crate) has_history: bool,
    /// A program whose lists are empty.
    pub(crate) captured: Captured,
}

impl Lists {
    /// Empties the lists, of which a walk that failed or panicked may have left some.
    fn clear(&mut self) {
        self.met.clear();
        self.ids.clear();
        self.values.clear();
        self.inputs.clear();
        self.starts.clear();
        self.fresh.clear();
        self.entry.clear();
        self.wanted.clear();
        self.ending.clear();
        self.ends.clear();
        self.has_history = false;
    }

    /// Finds the targets and what they are computed from, down to values that exist. The targets have the first numbers; this
    /// is how many they are.
    ///
    /// # Errors
    /// If a value on the way failed to be computed before.
    ///
    /// # Panics
    /// If a value on the way was released and cannot be computed again.
    pub(crate) fn find(&mut self, targets: &[Arc<Node>], walk: u32) -> Result<usize> {
        self.clear();
        for target in targets {
            meet(target, walk, 0, &mut self.fresh);
        }
        let n_targets = self.fresh.len();
        self.add_fresh();
        while let Some(Some(node)) = self.met.get(self.starts.len()) {
            self.starts.push(self.inputs.len() as u32);
            let books = node.books();
            let value = match &books.value {
                Value::Ready(buffer) => {
                    self.has_history |= !books.inputs.is_empty();
                    Some(buffer.clone())
                }
                Value::Pending => {
                    for input in books.inputs.iter() {
                        self.inputs.push(meet(input, walk, self.met.len(), &mut self.fresh));
                    }
                    None
                }
                Value::Failed(error) => {
                    let error = error.clone();
                    drop(books);
                    self.clear();
                    return Err(error);
                }
                Value::Gone => {
                    // A panic that holds the books would leave them locked for those who unwind, and the lists belong to
                    // the device, which nodes in them would keep alive.
                    let location = node.location;
                    drop(books);
                    self.clear();
                    panic!(
                        "the value recorded at {location} was overwritten or released when its last handle went; keep a clone of it"
                    );
                }
            };
            drop(books);
            self.values.push(value);
            self.add_fresh();
        }
        self.starts.push(self.inputs.len() as u32);
        self.entry.resize(self.met.len(), 0);
        in_order(&self.ids, &mut self.order, &mut self.places);
        Ok(n_targets)
    }

    fn add_fresh(&mut self) {
        for node in self.fresh.drain(..) {
            self.ids.push(node.id);
            self.met.push(Some(node));
        }
    }

    /// The entries of what a node reads.
    pub(crate) fn inputs(&self, number: u32) -> impl Iterator<Item = NodeId> {
        let [from, to] = [0, 1].map(|next| self.starts[number as usize + next] as usize);
        self.inputs[from..to].iter().map(|&input| self.entry[input as usize])
    }
}

/// A node's number in a walk; one that was not met before is added to a list that so many come before.
#[inline]
fn meet(node: &Arc<Node>, walk: u32, before: usize, list: &mut Vec<Arc<Node>>) -> u32 {
    let (last, number) = node.mark();
    if last == walk {
        return number;
    }
    let number = (before + list.len()) as u32;
    node.set_mark(walk, number);
    list.push(node.clone());
    number
}

/// The numbers of nodes with these ids in recorded order, into a list. Most of what one program reads was recorded one after
/// the other, and finds its place without being compared with others; `places` is memory for that.
pub(crate) fn in_order(ids: &[u64], order: &mut Vec<u32>, places: &mut Vec<u32>) {
    const NOBODY: u32 = u32::MAX;
    let n_places = 2 * ids.len();
    let newest = ids.iter().max().copied().unwrap_or(0);
    let first = (newest + 1).saturating_sub(n_places as u64);
    order.clear();
    places.clear();
    places.resize(n_places, NOBODY);
    for (id, number) in ids.iter().zip(0..) {
        match id.checked_sub(first) {
            Some(at) => places[at as usize] = number,
            None => order.push(number),
        }
    }
    order.sort_unstable_by_key(|&number| ids[number as usize]);
    order.extend(places.iter().filter(|&&number| number != NOBODY));
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
        let (mut order, mut places) = (Vec::new(), Vec::new());
        in_order(&mixed, &mut order, &mut places);
        assert_eq!(order.iter().map(|&number| mixed[number as usize]).collect::<Vec<_>>(), ids);
        in_order(&[], &mut order, &mut places);
        assert!(order.is_empty());
    }
}
