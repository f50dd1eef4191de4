//! The leaves of a model: trained tensors, kept tensors, and the mode of a layer.

use std::fmt;
use std::ops::Deref;
use std::sync::{Mutex, PoisonError};

use kiln_graph::Tensor;

/// A trained tensor. Reads as one: `x.matmul(&self.weight)`.
///
/// Cloning a parameter names the same value once more; an optimizer then cannot update it in place.
#[derive(Clone)]
pub struct Param(Tensor);

impl Param {
    /// A parameter with this value.
    ///
    /// # Panics
    /// If the dtype is not a float: nothing else has a gradient.
    #[track_caller]
    pub fn new(value: Tensor) -> Param {
        assert!(value.dtype().is_float(), "param: takes a float, got {}{}", value.dtype(), value.shape());
        Param(value)
    }

    /// The value.
    pub fn tensor(&self) -> &Tensor {
        &self.0
    }

    pub(crate) fn tensor_mut(&mut self) -> &mut Tensor {
        &mut self.0
    }
}

impl Deref for Param {
    type Target = Tensor;

    fn deref(&self) -> &Tensor {
        &self.0
    }
}

impl fmt::Debug for Param {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Param({:?})", self.0)
    }
}

/// A tensor that is saved with the model but not trained, such as a running mean. A shared reference can
/// replace it, so that `forward(&self)` may.
pub struct State(Mutex<Tensor>);

impl State {
    /// A state with this value.
    pub fn new(value: Tensor) -> State {
        State(Mutex::new(value))
    }

    /// The value.
    pub fn get(&self) -> Tensor {
        // A tensor is replaced whole, so a panic elsewhere leaves it consistent.
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn get_mut(&mut self) -> &mut Tensor {
        self.0.get_mut().unwrap_or_else(PoisonError::into_inner)
    }

    /// Replaces the value.
    pub fn set(&self, value: Tensor) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = value;
    }
}

impl Clone for State {
    fn clone(&self) -> State {
        State::new(self.get())
    }
}

impl fmt::Debug for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "State({:?})", self.get())
    }
}

/// Whether a layer behaves as in training: see [`Module::train`](crate::Module::train). At first it does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Mode {
    training: bool,
}

impl Mode {
    /// True iff the layer behaves as in training.
    pub fn is_training(self) -> bool {
        self.training
    }

    /// Sets how the layer behaves.
    pub fn set(&mut self, training: bool) {
        self.training = training;
    }
}

impl Default for Mode {
    fn default() -> Mode {
        Mode { training: true }
    }
}
