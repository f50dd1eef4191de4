//! The nodes that a node is computed from.

use std::ops::Deref;
use std::sync::Arc;

use crate::Tensor;
use crate::node::Node;

/// A list of nodes; up to three need no memory of their own.
#[derive(Default)]
pub(crate) enum Inputs {
    #[default]
    None,
    One([Arc<Node>; 1]),
    Two([Arc<Node>; 2]),
    Three([Arc<Node>; 3]),
    Many(Vec<Arc<Node>>),
}

impl Inputs {
    /// The nodes of tensors.
    pub(crate) fn of(tensors: &[&Tensor]) -> Inputs {
        let node = |t: &Tensor| t.node().clone();
        match *tensors {
            [] => Inputs::None,
            [x] => Inputs::One([node(x)]),
            [x, y] => Inputs::Two([node(x), node(y)]),
            [x, y, z] => Inputs::Three([node(x), node(y), node(z)]),
            ref many => Inputs::Many(many.iter().map(|t| node(t)).collect()),
        }
    }

    /// Hands the nodes over, one by one.
    pub(crate) fn each(self, f: impl FnMut(Arc<Node>)) {
        match self {
            Inputs::None => {}
            Inputs::One(nodes) => nodes.into_iter().for_each(f),
            Inputs::Two(nodes) => nodes.into_iter().for_each(f),
            Inputs::Three(nodes) => nodes.into_iter().for_each(f),
            Inputs::Many(nodes) => nodes.into_iter().for_each(f),
        }
    }
}

impl Deref for Inputs {
    type Target = [Arc<Node>];

    fn deref(&self) -> &[Arc<Node>] {
        match self {
            Inputs::None => &[],
            Inputs::One(nodes) => nodes,
            Inputs::Two(nodes) => nodes,
            Inputs::Three(nodes) => nodes,
            Inputs::Many(nodes) => nodes,
        }
    }
}
