//! Steps that are recorded once: [`jit`].
//!
//! A plan hit still records every node of a step, to find that nothing is new. A jitted step is recorded the first
//! time, and afterwards only its arguments are bound.

use std::marker::PhantomData;
use std::sync::Arc;

use kiln_graph::trace::{Replay, Trace};
use kiln_graph::{Device, Tensor};
use kiln_ir::{DType, Result, Shape};

use crate::{LeafMut, Module, Optimizer, Path};

/// Recordings that a step keeps: one for each shape of its inputs, and for training and evaluation.
const RECORDINGS_MAX: usize = 8;

/// Anything whose tensors can be walked, always in the same order: models, optimizers, tensors, tuples of those.
pub trait Carry {
    /// Calls `f` with each tensor.
    fn carry<'a>(&'a mut self, f: &mut dyn FnMut(&'a mut Tensor));

    /// Calls `f` with whatever else decides what is recorded: whether each layer is in training, say.
    fn modes(&mut self, _: &mut dyn FnMut(bool)) {}
}

impl<M: Module> Carry for M {
    fn carry<'a>(&'a mut self, f: &mut dyn FnMut(&'a mut Tensor)) {
        self.visit_mut(&mut Path::unnamed(), &mut |_, leaf| match leaf {
            LeafMut::Param(param) => f(param.tensor_mut()),
            LeafMut::State(state) => f(state.get_mut()),
            LeafMut::Mode(_) => {}
        });
    }

    fn modes(&mut self, f: &mut dyn FnMut(bool)) {
        self.visit_mut(&mut Path::unnamed(), &mut |_, leaf| {
            if let LeafMut::Mode(mode) = leaf {
                f(mode.is_training());
            }
        });
    }
}

impl<R> Carry for Optimizer<R> {
    fn carry<'a>(&'a mut self, f: &mut dyn FnMut(&'a mut Tensor)) {
        self.slots_mut().for_each(f);
    }
}

impl Carry for Tensor {
    fn carry<'a>(&'a mut self, f: &mut dyn FnMut(&'a mut Tensor)) {
        f(self);
    }
}

macro_rules! tuples {
    ($($name:ident),*) => {
        impl<$($name: Carry),*> Carry for ($($name,)*) {
            fn carry<'a>(&'a mut self, f: &mut dyn FnMut(&'a mut Tensor)) {
                #[allow(non_snake_case)]
                let ($($name,)*) = self;
                $($name.carry(f);)*
                let _ = f;
            }

            fn modes(&mut self, f: &mut dyn FnMut(bool)) {
                #[allow(non_snake_case)]
                let ($($name,)*) = self;
                $($name.modes(f);)*
                let _ = f;
            }
        }
    };
}

tuples!();
tuples!(A);
tuples!(A, B);
tuples!(A, B, C);
tuples!(A, B, C, D);

/// A step that is recorded at its first call and replayed at later ones: see [`jit`].
pub struct Jit<S, I, O, F> {
    step: F,
    recordings: Vec<Recording<O>>,
    n_recorded: usize,
    signature: PhantomData<fn(&mut S, I)>,
}

struct Recording<O> {
    key: Key,
    replay: Replay,
    /// What the step gave, without its tensors.
    output: O,
}

/// Makes a step of a function, `|state, input| -> Result<output>`, that records only the first time.
///
/// The state is whatever the step replaces: model, optimizer, running statistics. A call with inputs of new dims, or
/// after [`Module::train`], records again. Learning rates, step counts and random masks are those of each call. Any
/// other number of the host is fixed as it was when the step was recorded, and so is data made into tensors inside:
/// hand those over as inputs, numbers by [`Tensor::scalar`]. A value must not be read inside; return it.
///
/// ```
/// # use kiln_graph::{Device, Tensor};
/// use kiln_nn::{AdamW, Backward, Layer, Linear, Optimizer, jit};
/// # let device = Device::new(kiln_cpu::CpuBackend::new());
/// let model = Linear::new(1, 1, &device);
/// let opt = AdamW::new(0.05).build(&model);
/// let mut state = (model, opt);
/// let mut step = jit(|(model, opt): &mut (Linear, Optimizer<AdamW>), (x, y): (Tensor, Tensor)| {
///     let loss = model.forward(&x).mse_loss(&y);
///     let grads = loss.backward(model);
///     opt.step(model, grads)?;
///     Ok(loss)
/// });
/// let x = Tensor::new(&[1.0f32, 2.0, 3.0], &[3, 1], &device)?;
/// let y = Tensor::new(&[2.0f32, 4.0, 6.0], &[3, 1], &device)?;
/// let first = step.call(&mut state, (x.clone(), y.clone()))?.item()?;
/// for _ in 0..300 {
///     step.call(&mut state, (x.clone(), y.clone()))?;
/// }
/// assert!(step.call(&mut state, (x, y))?.item()? < 0.01 * first);
/// assert_eq!((step.n_recorded(), state.1.n_steps()), (1, 302));
/// # Ok::<(), kiln_ir::Error>(())
/// ```
pub fn jit<S, I, O, F>(step: F) -> Jit<S, I, O, F>
where
    S: Carry,
    I: Carry,
    O: Carry + Clone,
    F: FnMut(&mut S, I) -> Result<O>,
{
    Jit { step, recordings: Vec::new(), n_recorded: 0, signature: PhantomData }
}

impl<S, I, O, F> Jit<S, I, O, F>
where
    S: Carry,
    I: Carry,
    O: Carry + Clone,
    F: FnMut(&mut S, I) -> Result<O>,
{
    /// One step.
    ///
    /// # Errors
    /// If the step fails while it is recorded, or the device fails. Where memory is short, state is as before.
    ///
    /// # Panics
    /// If the step reads a value of its own.
    #[track_caller]
    pub fn call(&mut self, state: &mut S, mut input: I) -> Result<O> {
        let Some(at) = self.recordings.iter().position(|r| r.key.is_of(state, &mut input)) else {
            return self.record(state, input);
        };
        let recording = &mut self.recordings[at];
        let mut output = recording.output.clone();
        let ran = {
            let inputs = tensors(&mut input);
            let inputs: Vec<&Tensor> = inputs.iter().map(|t| &**t).collect();
            recording.replay.run(&mut tensors(state), &inputs, &mut tensors(&mut output))?
        };
        // Something else holds a tensor that the step would write over.
        if ran { Ok(output) } else { (self.step)(state, input) }
    }

    /// How often the step was recorded: constant once a loop is warm.
    pub fn n_recorded(&self) -> usize {
        self.n_recorded
    }

    #[track_caller]
    fn record(&mut self, state: &mut S, mut input: I) -> Result<O> {
        let key = Key::new(state, &mut input);
        let trace = {
            let (state, inputs) = (tensors(state), tensors(&mut input));
            let shared = |all: &[&mut Tensor]| -> Vec<Tensor> { all.iter().map(|t| (**t).clone()).collect() };
            let (state, inputs) = (shared(&state), shared(&inputs));
            Trace::begin(&state.iter().collect::<Vec<_>>(), &inputs.iter().collect::<Vec<_>>())?
        };
        let mut output = (self.step)(state, input)?;
        let replay = {
            let (state, outputs) = (tensors(state), tensors(&mut output));
            let state: Vec<&Tensor> = state.into_iter().map(|t| &*t).collect();
            let outputs: Vec<&Tensor> = outputs.into_iter().map(|t| &*t).collect();
            trace.finish(&state, &outputs)?
        };
        let mut without = output.clone();
        without.carry(&mut |t| *t = nothing(t.device()));
        self.n_recorded += 1;
        if self.recordings.len() == RECORDINGS_MAX {
            self.recordings.remove(0);
        }
        self.recordings.push(Recording { key, replay, output: without });
        Ok(output)
    }
}

/// A tensor that holds no memory.
fn nothing(device: &Device) -> Tensor {
    Tensor::full(&[], 0.0, DType::F32, device)
}

fn tensors<C: Carry>(of: &mut C) -> Vec<&mut Tensor> {
    let mut all = Vec::new();
    of.carry(&mut |t| all.push(t));
    all
}

/// What a recording depends on.
struct Key {
    modes: Vec<bool>,
    metas: Vec<Meta>,
}

/// Dims, dtype, and where a tensor is: the address of its backend.
type Meta = (Shape, DType, usize);

fn meta(t: &Tensor) -> Meta {
    (*t.shape(), t.dtype(), Arc::as_ptr(t.device().backend()).addr())
}

impl Key {
    fn new<S: Carry, I: Carry>(state: &mut S, input: &mut I) -> Key {
        let mut key = Key { modes: Vec::new(), metas: Vec::new() };
        state.modes(&mut |mode| key.modes.push(mode));
        state.carry(&mut |t| key.metas.push(meta(t)));
        input.carry(&mut |t| key.metas.push(meta(t)));
        key
    }

    /// True iff a step on these would record the same.
    fn is_of<S: Carry, I: Carry>(&self, state: &mut S, input: &mut I) -> bool {
        let (mut modes, mut metas, mut same) = (self.modes.iter(), self.metas.iter(), true);
        state.modes(&mut |mode| same &= modes.next() == Some(&mode));
        state.carry(&mut |t| same &= metas.next() == Some(&meta(t)));
        input.carry(&mut |t| same &= metas.next() == Some(&meta(t)));
        same && modes.next().is_none() && metas.next().is_none()
    }
}
