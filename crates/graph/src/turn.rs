//! Turns: what is about to be read is overwritten by nobody.
//!
//! A program is captured, run, and its results are noted. In between, others who look behind the same tensors find values
//! pending that are being computed, and would compute them too: from what the program overwrites meanwhile. So whoever
//! captures has a turn until results are noted, and what overwrites a leaf has its turn alone. Gradients are recorded in a
//! turn too: they read what nobody else may want any more.

use std::sync::{PoisonError, RwLockReadGuard, RwLockWriteGuard};

use crate::Device;

/// The right to capture programs of a device and to run them.
pub(crate) enum Turn<'a> {
    /// Others run programs too; none overwrites anything.
    Shared { _guard: RwLockReadGuard<'a, ()> },
    /// Nobody else does, and leaves may be overwritten.
    Alone { _guard: RwLockWriteGuard<'a, ()> },
}

impl Device {
    /// A turn that others share, once nobody has one alone. Whoever has one takes no other.
    pub(crate) fn turn(&self) -> Turn<'_> {
        // A turn guards no data that a panic could leave half-changed.
        Turn::Shared { _guard: self.turns().read().unwrap_or_else(PoisonError::into_inner) }
    }

    /// A turn alone, once nobody else has one. Whoever has one takes no other.
    pub(crate) fn turn_alone(&self) -> Turn<'_> {
        Turn::Alone { _guard: self.turns().write().unwrap_or_else(PoisonError::into_inner) }
    }
}

impl Turn<'_> {
    /// True iff leaves may be overwritten.
    pub(crate) fn is_alone(&self) -> bool {
        matches!(self, Turn::Alone { .. })
    }
}
