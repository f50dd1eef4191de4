//! A recorded operation, and the books on what it keeps alive.
//!
//! Who wants a node, and what becomes of one that nobody wants, is what [`claims`] counts.

mod claims;

use std::panic::Location;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use kiln_ir::{Axes, Buffer, DType, Error, NodeId, Op, Shape};

use self::claims::{CLAIMS, DONE, HANDLE};
use crate::clock::Origin;
use crate::history::History;
use crate::inputs::Inputs;
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
    /// How often it is wanted, and the bits [`DONE`] and [`CLAIMS`].
    word: AtomicU64,
    /// The last walk that met this node, and what it found; for whoever holds the device's marks.
    mark: AtomicU64,
    books: Mutex<Books>,
}

/// The part of a node that changes.
pub(crate) struct Books {
    /// What it is computed from; empty once it is cut.
    pub(crate) inputs: Inputs,
    pub(crate) value: Value,
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
    /// The node is what lies along axes of its input, with mean 0 and variance 1: what is centred, times a factor.
    Normalize { input: Arc<Node>, axes: Axes },
}

impl Node {
    /// Records an op, claiming its inputs. As all new nodes, it has one handle already, for the tensor that names it first.
    pub(crate) fn new(
        device: &Device,
        source: Source,
        inputs: Inputs,
        (shape, dtype): (Shape, DType),
        location: &'static Location<'static>,
        region: Region,
    ) -> Arc<Node> {
        inputs.iter().for_each(|i| i.claim());
        let books = Books { inputs, value: Value::Pending, cut: None, adjoint: None };
        Node::build(device, source, books, (shape, dtype), (location, region))
    }

    /// A node that has its value.
    pub(crate) fn leaf(
        device: &Device,
        buffer: Buffer,
        meta: (Shape, DType),
        location: &'static Location<'static>,
    ) -> Arc<Node> {
        Node::of_value(device, Value::Ready(buffer), meta, location)
    }

    /// A node whose value is settled: it exists, or could not be computed.
    pub(crate) fn of_value(
        device: &Device,
        value: Value,
        meta: (Shape, DType),
        location: &'static Location<'static>,
    ) -> Arc<Node> {
        let books = Books { inputs: Inputs::None, value, cut: None, adjoint: None };
        Node::build(device, Source::Leaf, books, meta, (location, Region::None))
    }

    #[inline]
    fn build(
        device: &Device,
        source: Source,
        books: Books,
        (shape, dtype): (Shape, DType),
        (location, region): (&'static Location<'static>, Region),
    ) -> Arc<Node> {
        let id = next_id();
        let state = if matches!(books.value, Value::Pending) { CLAIMS } else { DONE };
        Arc::new(Node {
            id,
            device: device.clone(),
            source,
            shape,
            dtype,
            location,
            region,
            word: AtomicU64::new(state | HANDLE),
            mark: AtomicU64::new(0),
            books: Mutex::new(books),
        })
    }

    /// Makes a leaf that was overwritten in its buffer a new one, recorded now; false iff it has another buffer.
    pub(crate) fn renew(&mut self, buffer: &Buffer) -> bool {
        let same = self.settled().is_some_and(|own| own.id() == buffer.id());
        if same {
            self.id = next_id();
        }
        same
    }

    pub(crate) fn books(&self) -> MutexGuard<'_, Books> {
        self.books.lock().expect("no code panics while it holds a node's books")
    }

    /// Takes what the node keeps alive, when nothing else refers to it.
    pub(crate) fn history(&mut self) -> History {
        let claimed = *self.word.get_mut() & CLAIMS != 0;
        self.books.get_mut().expect("no code panics while it holds a node's books").history(claimed)
    }

    /// As [`Node::history`], where nothing but this reference and weak ones are left.
    pub(crate) fn take_history(&self) -> History {
        self.books().history(self.word.load(Ordering::Acquire) & CLAIMS != 0)
    }

    /// The value, if it exists and cannot be computed again.
    pub(crate) fn settled(&self) -> Option<Buffer> {
        let books = self.books();
        match &books.value {
            Value::Ready(buffer) if books.inputs.is_empty() => Some(buffer.clone()),
            Value::Ready(_) | Value::Pending | Value::Gone | Value::Failed(_) => None,
        }
    }

    /// The last walk that marked this node, and what it wrote.
    pub(crate) fn mark(&self) -> (u32, NodeId) {
        let mark = self.mark.load(Ordering::Relaxed);
        ((mark >> 32) as u32, mark as NodeId)
    }

    /// Marks the node.
    pub(crate) fn set_mark(&self, walk: u32, what: NodeId) {
        self.mark.store(u64::from(walk) << 32 | u64::from(what), Ordering::Relaxed);
    }
}

fn next_id() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

impl Books {
    /// Takes what the node keeps alive.
    fn history(&mut self, claimed: bool) -> History {
        History { inputs: std::mem::take(&mut self.inputs), adjoint: self.adjoint.take(), claimed }
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.history().forget();
    }
}
