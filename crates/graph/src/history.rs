//! What a node was computed from, once the node lets go of it.
//!
//! The hard idea is depth: a node may be the last to refer to its inputs, those to theirs, and so on for a million
//! steps. So what nothing else refers to is put on a list, and let go of in a loop.

use std::sync::Arc;

use crate::inputs::Inputs;
use crate::node::{Adjoint, Node};

/// What a node kept alive.
pub(crate) struct History {
    pub(crate) inputs: Inputs,
    pub(crate) adjoint: Option<Box<Adjoint>>,
    /// True iff the inputs are claimed still.
    pub(crate) claimed: bool,
}

impl History {
    /// Returns the claims and lets go of the nodes, and so on with those that nothing else refers to.
    pub(crate) fn forget(self) {
        let mut last = Vec::new();
        self.release(&mut last);
        while let Some(node) = last.pop() {
            // Nothing is left for its own drop.
            node.take_history().release(&mut last);
        }
    }

    /// The same for the nodes themselves; gives those that nothing else refers to.
    fn release(self, last: &mut Vec<Arc<Node>>) {
        let mut release = |node: Arc<Node>, claimed: bool| {
            // No handle names it, so nobody else looks at it any more.
            if Arc::strong_count(&node) == 1 {
                return last.push(node);
            }
            if claimed {
                node.drop_claim();
            }
            // Another thread may have let go meanwhile.
            if let Some(mut node) = Arc::into_inner(node) {
                node.history().release(last);
            }
        };
        self.inputs.each(|node| release(node, self.claimed));
        match self.adjoint.map(|a| *a) {
            Some(Adjoint::Conv { image, weight, .. }) => {
                [image, weight].into_iter().for_each(|node| release(node, false))
            }
            Some(Adjoint::Normalize { input, .. }) => release(input, false),
            None => {}
        }
    }
}
