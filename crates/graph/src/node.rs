//! A recorded operation and the books that Rust's ownership keeps for the compiler.
//!
//! The hard idea is who *wants* a node: a live handle does, and so does every wanted node that is
//! not computed yet and reads it. A node that nobody wants gives up its buffer and its own claims at
//! once. What a computed node was computed from stays known as its *history*, which claims nothing;
//! gradients may revive it.

use std::panic::Location;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use kiln_ir::{Buffer, DType, Error, NodeId, Op, Shape};

use crate::clock::Origin;
use crate::{Conv2dOptions, Device};

/// What a node computes, with values where the program only has slots.
#[derive(Clone, Debug)]
pub(crate) enum Source {
    /// Data that was uploaded, or computed and cut from its history.
    Leaf,
    /// A scalar word given at each run, and where it comes from if the step is run again.
    Scalar { word: u32, origin: Option<Arc<Origin>> },
    /// An op over other nodes, a literal or a coordinate.
    Op(Op),
}

/// What is known of a node's elements.
#[derive(Clone)]
pub(crate) enum Value {
    /// Not computed; computable from the inputs.
    Pending,
    /// In device memory.
    Ready(Buffer),
    /// Released or donated, and without a history to compute it from again.
    Gone,
    /// A plan that should have computed it failed.
    Failed(Error),
}

/// Whether a node's value is kept for gradients.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Region {
    /// As the planner sees fit.
    None,
    /// It was recorded in this checkpoint, and is computed again.
    Checkpoint(u64),
    /// It is such a second time, of this stage.
    Recomputed(u64),
}

/// One recorded operation. Immutable but for its books.
pub(crate) struct Node {
    /// Grows with time, so that inputs come before what reads them.
    pub(crate) id: u64,
    pub(crate) device: Device,
    pub(crate) source: Source,
    pub(crate) shape: Shape,
    pub(crate) dtype: DType,
    pub(crate) location: &'static Location<'static>,
    pub(crate) region: Region,
    handles: AtomicUsize,
    /// The last capture that met this node, and where it stands in it; for whoever holds the device's marks.
    mark: AtomicU64,
    books: Mutex<Books>,
}

/// The part of a node that changes.
pub(crate) struct Books {
    /// What it is computed from; empty once it is cut.
    pub(crate) inputs: Vec<Arc<Node>>,
    pub(crate) value: Value,
    /// Claims by nodes that are wanted and not computed.
    pub(crate) uses: usize,
    /// True iff this node claims its inputs.
    claims: bool,
    /// Where its history was cut.
    pub(crate) cut: Option<&'static Location<'static>>,
    /// A shorter way back than through the inputs.
    pub(crate) adjoint: Option<Box<Adjoint>>,
}

/// A rule of the composition that recorded a node, where it beats the rules of the node's parts.
#[derive(Clone)]
pub(crate) enum Adjoint {
    /// The node contracts a weight with the windows of an image; the image's cotangent is again a convolution.
    Conv { image: Arc<Node>, weight: Arc<Node>, options: Conv2dOptions },
}

impl Node {
    /// Records an op, claiming its inputs.
    pub(crate) fn new(
        device: &Device,
        source: Source,
        inputs: Vec<Arc<Node>>,
        (shape, dtype): (Shape, DType),
        location: &'static Location<'static>,
        region: Region,
    ) -> Arc<Node> {
        inputs.iter().for_each(|i| i.claim());
        Node::build(device, source, inputs, Value::Pending, (shape, dtype), (location, region))
    }

    /// A node that has its value.
    pub(crate) fn leaf(
        device: &Device,
        buffer: Buffer,
        meta: (Shape, DType),
        location: &'static Location<'static>,
    ) -> Arc<Node> {
        Node::build(device, Source::Leaf, Vec::new(), Value::Ready(buffer), meta, (location, Region::None))
    }

    fn build(
        device: &Device,
        source: Source,
        inputs: Vec<Arc<Node>>,
        value: Value,
        (shape, dtype): (Shape, DType),
        (location, region): (&'static Location<'static>, Region),
    ) -> Arc<Node> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let books = Books { inputs, value, uses: 0, claims: true, cut: None, adjoint: None };
        let id = NEXT.fetch_add(1, Ordering::Relaxed);
        let device = device.clone();
        Arc::new(Node {
            id,
            device,
            source,
            shape,
            dtype,
            location,
            region,
            handles: AtomicUsize::new(0),
            mark: AtomicU64::new(0),
            books: Mutex::new(books),
        })
    }

    pub(crate) fn books(&self) -> MutexGuard<'_, Books> {
        self.books.lock().expect("no code panics while it holds a node's books")
    }

    /// The last capture that marked this node, and the place that it gave it.
    pub(crate) fn mark(&self) -> (u32, NodeId) {
        let mark = self.mark.load(Ordering::Relaxed);
        ((mark >> 32) as u32, mark as NodeId)
    }

    /// Marks the node.
    pub(crate) fn set_mark(&self, walk: u32, place: NodeId) {
        self.mark.store(u64::from(walk) << 32 | u64::from(place), Ordering::Relaxed);
    }

    pub(crate) fn handles(&self) -> usize {
        self.handles.load(Ordering::Acquire)
    }

    pub(crate) fn add_handle(&self) {
        self.handles.fetch_add(1, Ordering::AcqRel);
    }

    pub(crate) fn drop_handle(&self) {
        if self.handles.fetch_sub(1, Ordering::AcqRel) == 1 {
            let mut books = self.books();
            if books.uses == 0 {
                let inputs = books.abandon();
                drop(books);
                unclaim(inputs);
            }
        }
    }

    /// Adds a use, reviving claims on what must be computed first.
    fn claim(self: &Arc<Node>) {
        let mut stack = vec![self.clone()];
        while let Some(node) = stack.pop() {
            let mut books = node.books();
            books.uses += 1;
            if matches!(books.value, Value::Pending) && !books.claims {
                books.claims = true;
                stack.extend(books.inputs.iter().cloned());
            }
        }
    }

    /// The node's elements are in this buffer now. With `cut`, it forgets how they were computed.
    pub(crate) fn computed(&self, buffer: Buffer, cut: Option<&'static Location<'static>>) {
        let mut books = self.books();
        books.value = Value::Ready(buffer);
        let claimed = std::mem::take(&mut books.claims);
        let adjoint = cut.and_then(|_| books.adjoint.take());
        let inputs = match cut {
            Some(_) => std::mem::take(&mut books.inputs),
            None if claimed => books.inputs.clone(),
            None => Vec::new(),
        };
        books.cut = books.cut.or(cut);
        drop(books);
        drop(adjoint);
        if claimed {
            unclaim(inputs);
        }
    }

    /// A plan that should have computed this, or that took its buffer, failed.
    pub(crate) fn fail(&self, error: &Error) {
        let mut books = self.books();
        books.value = Value::Failed(error.clone());
        let inputs = if std::mem::take(&mut books.claims) { books.inputs.clone() } else { Vec::new() };
        drop(books);
        unclaim(inputs);
    }
}

impl Books {
    /// Nobody wants the node: frees its buffer, and returns the inputs that lose a claim.
    fn abandon(&mut self) -> Vec<Arc<Node>> {
        if let Value::Ready(_) = self.value {
            self.value = if self.inputs.is_empty() { Value::Gone } else { Value::Pending };
        }
        match std::mem::take(&mut self.claims) {
            true => self.inputs.clone(),
            false => Vec::new(),
        }
    }
}

impl Books {
    /// Takes every node that this one keeps alive.
    fn known(&mut self) -> Vec<Arc<Node>> {
        let mut known = std::mem::take(&mut self.inputs);
        if let Some(Adjoint::Conv { image, weight, .. }) = self.adjoint.take().map(|a| *a) {
            known.extend([image, weight]);
        }
        known
    }
}

/// Takes one use from each node, and so on to their inputs where nobody wants them any more.
fn unclaim(mut stack: Vec<Arc<Node>>) {
    while let Some(node) = stack.pop() {
        let mut books = node.books();
        books.uses -= 1;
        if books.uses == 0 && node.handles() == 0 {
            let inputs = books.abandon();
            drop(books);
            stack.extend(inputs);
        }
    }
}

/// Long chains drop without recursion.
impl Drop for Node {
    fn drop(&mut self) {
        let books = self.books.get_mut().expect("no code panics while it holds a node's books");
        let mut stack = books.known();
        while let Some(node) = stack.pop() {
            if let Some(mut last) = Arc::into_inner(node) {
                let books = last.books.get_mut().expect("no code panics while it holds a node's books");
                stack.append(&mut books.known());
            }
        }
    }
}
