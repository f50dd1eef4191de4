//! The fixed tree that combines partial results.
//!
//! It is a binary counter over tiles: it depends on how many there are and on nothing else, so results are the same
//! for any number of threads, and sums stay accurate.

use kiln_ir::{DType, ReduceOp};

use crate::reduce::{Partial, merge};

/// The tree: pushed partial results combine as the bits of their count carry.
#[derive(Default)]
pub(crate) struct Tree {
    count: usize,
    ranks: Vec<Partial>,
}

impl Tree {
    /// Forgets everything but its memory.
    pub(crate) fn clear(&mut self) {
        self.count = 0;
    }

    /// Adds the next partial result; `next` holds scratch afterwards.
    pub(crate) fn push(&mut self, op: ReduceOp, dtype: DType, next: &mut Partial, rows: usize, bytes: usize) {
        let mut rank = 0;
        while self.count >> rank & 1 == 1 {
            merge(op, dtype, &mut self.ranks[rank], next, rows);
            std::mem::swap(&mut self.ranks[rank], next);
            rank += 1;
        }
        if self.ranks.len() == rank {
            self.ranks.push(Partial::default());
        }
        std::mem::swap(&mut self.ranks[rank], next);
        self.count += 1;
        // What came back may be new or of another use.
        next.reserve(bytes);
    }

    /// The combination of all, or `None` if there was none.
    pub(crate) fn finish(&mut self, op: ReduceOp, dtype: DType, rows: usize) -> Option<&Partial> {
        let (mut found, mut bits) = (None::<usize>, self.count);
        while bits != 0 {
            let rank = bits.trailing_zeros() as usize;
            if let Some(lower) = found {
                let (low, high) = self.ranks.split_at_mut(rank);
                merge(op, dtype, &mut high[0], &low[lower], rows);
            }
            found = Some(rank);
            bits &= bits - 1;
        }
        found.map(|rank| &self.ranks[rank])
    }
}
