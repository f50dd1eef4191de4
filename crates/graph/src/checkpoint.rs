//! Checkpoints: regions whose values are computed again for their gradient instead of being kept.
//!
//! A node knows the region that recorded it. When a gradient passes through it, its rule sees copies of the
//! region's nodes, recorded then and there from what entered the region. The copies belong to a *stage* of their
//! own, which keeps the planner from computing them early, beside the originals.

use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use kiln_ir::Op;
use rustc_hash::FxHashMap as HashMap;

use crate::Tensor;
use crate::inputs::Inputs;
use crate::node::{Adjoint, Node, Region, Source};

thread_local! {
    static REGION: Cell<Region> = const { Cell::new(Region::None) };
}

/// The region that this thread is recording.
pub(crate) fn region() -> Region {
    REGION.get()
}

fn number() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

/// Runs `f`; what it records is computed again in the gradient, so that only what enters it and what it gives is
/// kept. Costs about one more forward pass of the region. Random masks are the same both times. A checkpoint within
/// another one belongs to the outer one.
///
/// ```
/// # use kiln_graph::{Device, Tensor, checkpoint};
/// # let device = Device::new(kiln_cpu::CpuBackend::new());
/// let x = Tensor::new(&[1.0f32, 2.0], &[2], &device)?;
/// let y = checkpoint(|| x.exp().tanh()).sum_all();
/// let same = x.exp().tanh().sum_all();
/// let grad = |y: &Tensor| y.grad(&[&x])[0].as_ref().unwrap().to_vec::<f32>();
/// assert_eq!(grad(&y)?, grad(&same)?);
/// # Ok::<(), kiln_ir::Error>(())
/// ```
///
/// Chen et al. 2016, <https://arxiv.org/abs/1604.06174>.
pub fn checkpoint<T>(f: impl FnOnce() -> T) -> T {
    struct Restore(Region);
    impl Drop for Restore {
        fn drop(&mut self) {
            REGION.set(self.0);
        }
    }
    let _restore = Restore(REGION.get());
    if REGION.get() == Region::None {
        REGION.set(Region::Checkpoint(number()));
    }
    f()
}

/// The copies that one gradient makes.
#[derive(Default)]
pub(crate) struct Copies {
    copy_of: HashMap<u64, Arc<Node>>,
    original_of: HashMap<u64, u64>,
    stage_of: HashMap<u64, u64>,
    /// Handles, so that copies live until the gradient is recorded.
    held: Vec<Tensor>,
}

impl Copies {
    /// The node to use in a rule instead of this one, for the rule of a node of the given region.
    pub(crate) fn of(&mut self, node: &Arc<Node>, region: Region) -> Arc<Node> {
        let Region::Checkpoint(number) = region else { return node.clone() };
        let stage = *self.stage_of.entry(number).or_insert_with(self::number);
        let mut stack = vec![node.clone()];
        while let Some(next) = stack.last().cloned() {
            if self.known(&next, region).is_some() {
                stack.pop();
                continue;
            }
            let inputs = next.books().inputs.to_vec();
            let missing: Vec<Arc<Node>> = inputs.iter().filter(|i| self.known(i, region).is_none()).cloned().collect();
            if !missing.is_empty() {
                stack.extend(missing);
                continue;
            }
            let known = |i| self.known(i, region).expect("none is missing");
            let inputs = Inputs::Many(inputs.iter().map(known).collect());
            let meta = (next.shape, next.dtype);
            let region = Region::Recomputed(stage);
            let copy = Node::new(&next.device, next.source.clone(), inputs, meta, next.location, region);
            copy.books().adjoint = self.adjoint(&next);
            self.original_of.insert(copy.id, next.id);
            self.held.push(Tensor::first(copy.clone()));
            self.copy_of.insert(next.id, copy);
        }
        self.known(node, region).expect("the loop ended with it")
    }

    /// What stands for a node, if nothing must be recorded first.
    fn known(&self, node: &Arc<Node>, region: Region) -> Option<Arc<Node>> {
        // Sources are free, and what has no history cannot be computed again.
        let is_op = matches!(&node.source, Source::Op(op) if !matches!(op, Op::Const(_) | Op::Iota(_)));
        match node.region == region && is_op && !node.books().inputs.is_empty() {
            true => self.copy_of.get(&node.id).cloned(),
            false => Some(node.clone()),
        }
    }

    fn adjoint(&self, node: &Node) -> Option<Box<Adjoint>> {
        let adjoint = *node.books().adjoint.clone()?;
        let copy = |node: Arc<Node>| self.copy_of.get(&node.id).cloned().unwrap_or(node);
        Some(Box::new(match adjoint {
            Adjoint::Conv { image, weight, options } => {
                Adjoint::Conv { image: copy(image), weight: copy(weight), options }
            }
            Adjoint::Normalize { input, axes } => Adjoint::Normalize { input: copy(input), axes },
        }))
    }

    /// The node that this one is a copy of, or itself.
    pub(crate) fn original(&self, id: u64) -> u64 {
        self.original_of.get(&id).copied().unwrap_or(id)
    }
}
