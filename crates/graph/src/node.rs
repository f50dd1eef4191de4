//! A recorded operation and the books that Rust's ownership keeps for the compiler.
//!
//! The hard idea is who *wants* a node: a live handle does, and so does every wanted node that is
//! not computed yet and reads it. A node that nobody wants gives up its buffer and its own claims at
//! once. What a computed node was computed from stays known as its *history*, which claims nothing;
//! gradients may revive it.
//!
//! Who wants a node is counted in one word, with two bits of its state, so that recording and dropping
//! handles lock nothing. The bits change only while the books are locked. A node is abandoned by exchanging
//! a word without counts for one without claims: whoever wants it after that sees that it must be revived.
//! A node that nothing refers to any more is not abandoned first: it returns its claims as it drops.

use std::panic::Location;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use kiln_ir::{Axes, Buffer, DType, Error, NodeId, Op, Shape};

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

/// One live handle, in a node's word.
const HANDLE: u64 = 1;

/// One claim by a node that is wanted and not computed.
const USE: u64 = 1 << 31;

/// All handles and claims.
const WANTS: u64 = CLAIMS - 1;

/// True iff the node claims its inputs.
const CLAIMS: u64 = 1 << 62;

/// True iff the value is not pending.
const DONE: u64 = 1 << 63;

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

    /// The number of live handles.
    pub(crate) fn handles(&self) -> usize {
        (self.word.load(Ordering::Acquire) & (USE - 1)) as usize
    }

    /// The number of claims by nodes that are wanted and not computed.
    pub(crate) fn uses(&self) -> usize {
        ((self.word.load(Ordering::Acquire) & WANTS) / USE) as usize
    }

    /// True iff the value is pending.
    pub(crate) fn is_pending(&self) -> bool {
        self.word.load(Ordering::Acquire) & DONE == 0
    }

    pub(crate) fn add_handle(&self) {
        self.word.fetch_add(HANDLE, Ordering::AcqRel);
    }

    /// Takes the handle away whose reference is dropped next.
    pub(crate) fn drop_handle(self: &Arc<Node>) {
        // With the last reference the node goes, and nobody asks who wanted it.
        if Arc::strong_count(self) > 1 && self.lose(HANDLE) {
            self.abandon_all();
        }
    }

    /// Takes away the claim of a node that lets go of this one.
    pub(crate) fn drop_claim(&self) {
        if self.lose(USE) {
            self.abandon_all();
        }
    }

    /// Abandons the node, and so on to its inputs where nobody wants them any more.
    fn abandon_all(&self) {
        let mut unwanted = Vec::new();
        self.abandon(&mut unwanted);
        abandon(unwanted);
    }

    /// Takes a handle or a claim away; true iff it was the last.
    fn lose(&self, want: u64) -> bool {
        self.word.fetch_sub(want, Ordering::AcqRel) & WANTS == want
    }

    /// Adds a claim, reviving claims on what must be computed first.
    fn claim(&self) {
        if self.word.fetch_add(USE, Ordering::AcqRel) & (DONE | CLAIMS) == 0 {
            let mut stack: Vec<Arc<Node>> = Vec::new();
            self.revive(&mut stack);
            while let Some(node) = stack.pop() {
                node.revive(&mut stack);
            }
        }
    }

    /// Claims the inputs, if the node is pending and does not yet; adds those that must be revived in turn.
    fn revive(&self, stack: &mut Vec<Arc<Node>>) {
        let books = self.books();
        if self.word.load(Ordering::Acquire) & (DONE | CLAIMS) == 0 {
            self.word.fetch_or(CLAIMS, Ordering::AcqRel);
            let asleep = |i: &&Arc<Node>| i.word.fetch_add(USE, Ordering::AcqRel) & (DONE | CLAIMS) == 0;
            stack.extend(books.inputs.iter().filter(asleep).cloned());
        }
    }

    /// If still nobody wants the node: frees its buffer and returns its claims. Adds the inputs that nobody wants then.
    fn abandon(&self, unwanted: &mut Vec<Arc<Node>>) {
        let mut books = self.books();
        let before = self.word.load(Ordering::Acquire);
        let state = match books.value {
            Value::Pending => 0,
            Value::Ready(_) if !books.inputs.is_empty() => 0,
            Value::Ready(_) | Value::Gone | Value::Failed(_) => DONE,
        };
        // Who wants it again meanwhile will lose it again.
        let alone = before & WANTS == 0;
        if !alone || self.word.compare_exchange(before, state, Ordering::AcqRel, Ordering::Relaxed).is_err() {
            return;
        }
        if let Value::Ready(_) = books.value {
            books.value = if state == DONE { Value::Gone } else { Value::Pending };
        }
        if before & CLAIMS != 0 {
            unclaim(&books.inputs, unwanted);
        }
    }

    /// The node's elements are in this buffer now. With `cut`, it forgets how they were computed.
    pub(crate) fn computed(&self, buffer: Buffer, cut: Option<&'static Location<'static>>) {
        let mut unwanted = Vec::new();
        let mut books = self.books();
        books.value = Value::Ready(buffer);
        let claimed = self.settle();
        if cut.is_none() {
            if claimed {
                unclaim(&books.inputs, &mut unwanted);
            }
            drop(books);
            return abandon(unwanted);
        }
        books.cut = books.cut.or(cut);
        let history = books.history(claimed);
        drop(books);
        history.forget();
    }

    /// A plan that should have computed this, or that took its buffer, failed.
    pub(crate) fn fail(&self, error: &Error) {
        let mut unwanted = Vec::new();
        let mut books = self.books();
        books.value = Value::Failed(error.clone());
        if self.settle() {
            unclaim(&books.inputs, &mut unwanted);
        }
        drop(books);
        abandon(unwanted);
    }

    /// Nothing is pending any more, and nothing claimed; true iff the inputs were. For whoever holds the books.
    fn settle(&self) -> bool {
        let before = self.word.load(Ordering::Acquire) & (DONE | CLAIMS);
        self.word.fetch_xor(before ^ DONE, Ordering::AcqRel);
        before & CLAIMS != 0
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

/// Takes a claim from each node; adds those that nobody wants any more.
fn unclaim(nodes: &[Arc<Node>], unwanted: &mut Vec<Arc<Node>>) {
    unwanted.extend(nodes.iter().filter(|node| node.lose(USE)).cloned());
}

/// Abandons nodes, and so on to their inputs where nobody wants them any more.
fn abandon(mut unwanted: Vec<Arc<Node>>) {
    while let Some(node) = unwanted.pop() {
        node.abandon(&mut unwanted);
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.history().forget();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Tensor;

    fn device() -> Device {
        Device::new(kiln_cpu::CpuBackend::with_threads(1))
    }

    #[test]
    fn threads_that_record_from_one_tensor_leave_no_claim() -> kiln_ir::Result<()> {
        let device = device();
        let x = Tensor::new(&[1.0f32, 2.0], &[2], &device)?;
        let y = x.exp();
        std::thread::scope(|scope| {
            for n in 0..4 {
                let (x, y) = (&x, &y);
                scope.spawn(move || {
                    for round in 0..500 {
                        let sum = y + x;
                        if (round + n) % 50 == 0 {
                            sum.to_vec::<f32>().expect("the host has memory");
                        }
                    }
                });
            }
        });
        assert_eq!((x.node().handles(), y.node().handles(), y.node().uses()), (1, 1, 0));
        // All that is left is the claim of `y`, if it is pending.
        assert_eq!(x.node().uses(), usize::from(y.node().is_pending()));
        drop(y);
        assert_eq!(x.node().uses(), 0);
        Ok(())
    }

    #[test]
    fn what_nobody_wants_is_revived_by_who_reads_it() -> kiln_ir::Result<()> {
        let x = Tensor::new(&[1.0f32, 2.0], &[2], &device())?;
        let y = x.exp();
        let node = y.node().clone();
        drop(y);
        assert_eq!((node.uses(), x.node().uses()), (0, 0));
        let y = Tensor::from_node(node);
        let z = &y + 1.0;
        assert_eq!((y.node().uses(), x.node().uses()), (1, 1));
        drop(z);
        assert_eq!((y.node().uses(), x.node().uses()), (0, 1));
        drop(y);
        assert_eq!(x.node().uses(), 0);
        Ok(())
    }
}
