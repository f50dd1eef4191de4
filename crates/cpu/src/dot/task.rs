//! The working memory of one task of a contraction, on loan from its thread.

use std::cell::RefCell;
use std::ops::{Deref, DerefMut};

use crate::exec::Worker;
use crate::simd::Reg;

thread_local! {
    #[expect(clippy::vec_box, reason = "a room changes hands for each kernel, and is large")]
    static IDLE: RefCell<Vec<Box<Room>>> = const { RefCell::new(Vec::new()) };
}

/// A room on loan.
pub(super) struct Task(Option<Box<Room>>);

#[derive(Default)]
pub(super) struct Room {
    /// For the operands and the epilogue.
    pub(super) workers: [Worker; 3],
    /// What operands are packed into, and what is summed in.
    pub(super) panels: [Reg; 3],
}

impl Task {
    /// For no contraction in particular.
    pub(super) fn bare() -> Task {
        Task(Some(IDLE.with_borrow_mut(Vec::pop).unwrap_or_default()))
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        if let Some(mut room) = self.0.take() {
            room.workers.iter_mut().for_each(Worker::settle);
            IDLE.with_borrow_mut(|idle| idle.push(room));
        }
    }
}

impl Deref for Task {
    type Target = Room;
    fn deref(&self) -> &Room {
        self.0.as_deref().expect("present until dropped")
    }
}

impl DerefMut for Task {
    fn deref_mut(&mut self) -> &mut Room {
        self.0.as_deref_mut().expect("present until dropped")
    }
}
