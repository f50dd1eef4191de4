//! The working memory of one task of a contraction, on loan from its thread.

use std::cell::RefCell;

use crate::exec::Loan;
use crate::simd::Reg;

thread_local! {
    static IDLE: RefCell<Vec<[Reg; 3]>> = const { RefCell::new(Vec::new()) };
}

pub(super) struct Task {
    /// For the operands and the epilogue.
    pub(super) loans: [Loan; 3],
    /// What operands are packed into, and what is summed in.
    pub(super) panels: [Reg; 3],
}

impl Task {
    /// For no contraction in particular.
    pub(super) fn bare() -> Task {
        let panels = IDLE.with_borrow_mut(Vec::pop).unwrap_or_default();
        Task { loans: [Loan::bare(), Loan::bare(), Loan::bare()], panels }
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        IDLE.with_borrow_mut(|idle| idle.push(std::mem::take(&mut self.panels)));
    }
}
