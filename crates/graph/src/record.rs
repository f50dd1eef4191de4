//! Recording: the one place where shapes, dtypes and devices are checked.
//!
//! [`try_record`] is the checked function beneath every method; the methods panic with its message
//! at the caller's line.

use std::cell::{Cell, RefCell};
use std::panic::Location;
use std::sync::{Arc, Weak};

use kiln_ir::{DType, Op, PointOp, Result, Shape, infer};
use rustc_hash::{FxBuildHasher, FxHashSet};

use crate::checkpoint::region;
use crate::inputs::Inputs;
use crate::node::{Node, Source};
use crate::owed::pay;
use crate::turn::Turn;
use crate::{Device, Tensor};

thread_local! {
    /// What this thread recorded, to find what `eval` should compute.
    static RECORDED: RefCell<Vec<Weak<Node>>> = const { RefCell::new(Vec::new()) };

    /// The line for which this thread records, if it is another than the caller's.
    static PLACE: Cell<Option<&'static Location<'static>>> = const { Cell::new(None) };
}

/// Runs `f`; what it records was asked for at this line.
pub(crate) fn recorded_at<T>(location: &'static Location<'static>, f: impl FnOnce() -> T) -> T {
    struct Restore(Option<&'static Location<'static>>);
    impl Drop for Restore {
        fn drop(&mut self) {
            PLACE.set(self.0);
        }
    }
    let _restore = Restore(PLACE.replace(Some(location)));
    f()
}

/// Records an op over tensors of one device.
///
/// # Errors
/// The rule that the operands break, with the operands.
pub(crate) fn try_record(op: Op, inputs: &[&Tensor], location: &'static Location<'static>) -> Result<Tensor, String> {
    let fail = |why: &str| Err(format!("{}: {why}: {}", op.name(), operands(&op, inputs)));
    let device = inputs[0].device();
    if let Some(other) = inputs.iter().find(|t| t.device() != device) {
        return fail(&format!("operands on two devices, {device} and {}", other.device()));
    }
    // Most ops have few inputs, and these need no list.
    let (mut few, mut many) = ([(inputs[0].shape(), inputs[0].dtype()); 8], Vec::new());
    let metas = inputs.iter().map(|t| (t.shape(), t.dtype()));
    let metas = match few.get_mut(..inputs.len()) {
        Some(few) => {
            few.iter_mut().zip(metas).for_each(|(to, meta)| *to = meta);
            &*few
        }
        None => {
            many.extend(metas);
            &many
        }
    };
    let stores_only = matches!(&op, Op::Map(e) if e.nodes.iter().any(|n| matches!(n, kiln_ir::ExprNode::Op(p, _) if *p != PointOp::Select)))
        || matches!(op, Op::Reduce(..) | Op::Scan(_));
    if stores_only && metas.iter().any(|m| m.1 == DType::U8) {
        return fail("u8 is a storage dtype; help: cast it first");
    }
    match infer(&op, metas) {
        Ok(meta) => Ok(add(device, Source::Op(op), inputs, meta, location)),
        Err(why) => fail(&why),
    }
}

/// Records an op.
///
/// # Panics
/// If the operands break a rule.
#[track_caller]
pub(crate) fn record(op: Op, inputs: &[&Tensor]) -> Tensor {
    // Not `unwrap_or_else`: a panic inside its closure would name this line, not the caller's.
    match try_record(op, inputs, Location::caller()) {
        Ok(tensor) => tensor,
        Err(why) => panic!("{why}"),
    }
}

/// Records a node without operands.
#[track_caller]
pub(crate) fn source(device: &Device, source: Source, shape: Shape, dtype: DType) -> Tensor {
    add(device, source, &[], (shape, dtype), Location::caller())
}

fn add(
    device: &Device,
    source: Source,
    inputs: &[&Tensor],
    meta: (Shape, DType),
    location: &'static Location<'static>,
) -> Tensor {
    let location = PLACE.get().unwrap_or(location);
    let node = Node::new(device, source, Inputs::of(inputs), meta, location, region());
    RECORDED.with_borrow_mut(|recorded| {
        // What came last goes first, and its memory serves the next step while it is near.
        while recorded.pop_if(|last| last.strong_count() == 0).is_some() {}
        if recorded.len() == recorded.capacity() {
            // Most are gone, which costs less to see than to try to hold them.
            recorded.retain(|n| n.strong_count() > 0 && n.upgrade().is_some_and(|n| is_wanted(&n)));
            recorded.reserve(recorded.len().max(64));
        }
        recorded.push(Arc::downgrade(&node));
    });
    Tensor::first(node)
}

/// True iff a handle names a node and it is not computed yet; once no handle does, none ever will.
fn is_wanted(node: &Node) -> bool {
    node.handles() > 0 && node.is_pending()
}

/// What this thread recorded on a device, still holds, and has not computed; views stand for what they view. What it
/// owes is recorded first.
pub(crate) fn held(device: &Device, turn: &Turn) -> Vec<Arc<Node>> {
    pay(device, turn);
    let mut nodes: Vec<Arc<Node>> = Vec::new();
    RECORDED.with_borrow_mut(|recorded| {
        recorded.retain(|n| {
            let node = n.upgrade().filter(|n| is_wanted(n));
            let keep = node.is_some();
            nodes.extend(node);
            keep
        });
    });
    let mut held: Vec<Arc<Node>> = Vec::with_capacity(nodes.len());
    let mut known = FxHashSet::with_capacity_and_hasher(nodes.len(), FxBuildHasher);
    for node in nodes.into_iter().filter(|n| n.device == *device) {
        let base = behind_views(node);
        let is_op = matches!(&base.source, Source::Op(op) if !matches!(op, Op::Const(_) | Op::Iota(_)));
        if is_op && base.is_pending() && known.insert(base.id) {
            held.push(base);
        }
    }
    held
}

fn behind_views(mut node: Arc<Node>) -> Arc<Node> {
    while let Source::Op(Op::View(_)) = node.source
        && node.is_pending()
    {
        let inner = node.books().inputs[0].clone();
        node = inner;
    }
    node
}

/// Operands as messages name them.
fn operands(op: &Op, inputs: &[&Tensor]) -> String {
    let names: &[&str] = match inputs.len() {
        _ if matches!(op, Op::Linear) => &["input", "weight", "bias"],
        _ if matches!(op, Op::Attention(_)) => &["q", "k", "v", "mask", "logsum", "delta", "g"],
        1 => &["input"],
        2 => &["lhs", "rhs"],
        _ => &["first", "second", "third"],
    };
    let name = |(n, t): (usize, &&Tensor)| format!("{} {}{}", names.get(n).unwrap_or(&"operand"), t.dtype(), t.shape());
    inputs.iter().enumerate().map(name).collect::<Vec<_>>().join(", ")
}
