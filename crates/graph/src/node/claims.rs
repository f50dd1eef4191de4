//! Who wants a node: the books that Rust's ownership keeps for the compiler.
//!
//! A live handle does, and so does every wanted node that is not computed yet and reads it. A node that nobody wants gives
//! up its buffer and its own claims at once. What a computed node was computed from stays known as its *history*, which
//! claims nothing; gradients may revive it.
//!
//! Who wants a node is counted in one word, with two bits of its state, so that recording and dropping
//! handles lock nothing. The bits change only while the books are locked. A node is abandoned by exchanging
//! a word without counts for one without claims: whoever wants it after that sees that it must be revived.
//! A node that nothing refers to any more is not abandoned first: it returns its claims as it drops.

use std::panic::Location;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use kiln_ir::{Buffer, Error};

use super::{Node, Value};

/// One live handle, in a node's word.
pub(super) const HANDLE: u64 = 1;

/// One claim by a node that is wanted and not computed.
const USE: u64 = 1 << 31;

/// All handles and claims.
const WANTS: u64 = CLAIMS - 1;

/// True iff the node claims its inputs.
pub(super) const CLAIMS: u64 = 1 << 62;

/// True iff the value is not pending.
pub(super) const DONE: u64 = 1 << 63;

impl Node {
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
    pub(super) fn claim(&self) {
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

#[cfg(test)]
mod tests {
    use crate::{Device, Tensor};

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
