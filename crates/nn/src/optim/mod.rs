//! Optimizers: a rule for one parameter, and the loop over a model that applies it.
//!
//! The hard idea is what is *not* in the recorded program: learning rates, step counts and bias corrections are
//! numbers of the host, handed over as scalars, so that every step is the same program and finds the same plan.

mod adamw;
mod sgd;

use std::sync::{Arc, Mutex, PoisonError};

use kiln_graph::sequel::{Begun, Sequel};
use kiln_graph::{Clock, Device, Tensor};
use kiln_ir::{Error, ErrorKind, Result};

use crate::grads::{clip, limit};
use crate::{Grads, Leaf, LeafMut, Module, Param, Path, Schedule};

pub use adamw::AdamW;
pub use sgd::Sgd;

/// How one parameter moves, and which tensors are kept beside it.
pub trait Rule: Clone + Send + Sync + 'static {
    /// The names of the tensors kept for each parameter, each of its dims and zero at first.
    fn slots(&self) -> &'static [&'static str];

    /// The numbers of step `t`, counted from 1, that are the same for all parameters.
    fn numbers(&self, lr: f64, t: u64) -> Vec<f64>;

    /// The parameter's next value, from [`Rule::numbers`] as scalars; the slots are replaced. What this records is
    /// decided by the rule and by dims and dtypes: a step like one before is not recorded again.
    fn update(&self, numbers: &[Tensor], param: &Tensor, grad: &Tensor, slots: &mut [Tensor]) -> Tensor;
}

/// A rule at work on a model: its schedule, its step count and the tensors that it keeps.
pub struct Optimizer<R> {
    rule: R,
    /// Shared with the numbers of recorded steps.
    schedule: Arc<Mutex<Schedule>>,
    steps: Clock,
    /// For each parameter its path and its slots.
    slots: Vec<(String, Vec<Tensor>)>,
    sequel: Sequel,
    n_recorded: usize,
    told: bool,
}

/// All tensors that a step replaces.
fn state<'a, M: Module + ?Sized>(model: &'a mut M, slots: &'a mut [(String, Vec<Tensor>)]) -> Vec<&'a mut Tensor> {
    let mut state = Vec::new();
    model.visit_mut(&mut Path::unnamed(), &mut |_, leaf| {
        if let LeafMut::Param(param) = leaf {
            state.push(param.tensor_mut());
        }
    });
    state.extend(slots.iter_mut().flat_map(|(_, slots)| slots));
    state
}

/// The values of a model's parameters.
fn values<M: Module + ?Sized>(model: &M) -> Vec<&Tensor> {
    let mut values = Vec::new();
    model.visit(&mut Path::unnamed(), &mut |_, leaf| {
        if let Leaf::Param(param) = leaf {
            values.push(param.tensor());
        }
    });
    values
}

/// A schedule that others may replace.
fn of(schedule: &Mutex<Schedule>) -> Schedule {
    *schedule.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<R: Rule> Optimizer<R> {
    /// The rule for a model's parameters. Computes what is pending of them, so that the first step is like all
    /// others; a failure of the device shows at the first step.
    pub fn new<M: Module + ?Sized>(rule: R, schedule: impl Into<Schedule>, model: &M) -> Optimizer<R> {
        let zeros = |p: &Tensor| -> Vec<Tensor> {
            rule.slots().iter().map(|_| Tensor::full(p.dims(), 0.0, p.dtype(), p.device()).detach()).collect()
        };
        let params = model.params();
        let slots = params.iter().map(|(name, param)| (name.clone(), zeros(param))).collect();
        if let Some((_, first)) = params.first() {
            // What failed to be computed holds its error and gives it to whoever reads it next.
            let _ = first.device().eval();
        }
        let schedule = Arc::new(Mutex::new(schedule.into()));
        Optimizer { rule, schedule, steps: Clock::new(0), slots, sequel: Sequel::default(), n_recorded: 0, told: false }
    }

    /// Moves the parameters against their gradients and submits the step, without waiting for it.
    ///
    /// What this thread recorded and still holds is computed with it, such as the loss and running statistics.
    /// A parameter without a gradient stays as it is, and is named once on standard error. Where the loss is the same
    /// program as in a step before, the rest of the step is known, and not recorded again.
    ///
    /// # Errors
    /// If the device fails; then every parameter of the step holds the error.
    ///
    /// # Panics
    /// If the gradients belong to a model with other parameters.
    #[track_caller]
    pub fn step<M: Module + ?Sized>(&mut self, model: &mut M, grads: Grads<M>) -> Result<()> {
        let (owed, clips, names) = match grads.into_owed(&values(model)) {
            Ok(owed) => owed,
            Err(grads) => {
                let (names, grads) = grads.into_parts();
                let (device, numbers) = self.record(model, &names, grads);
                drop(numbers);
                return device.map_or(Ok(()), |device| device.eval());
            }
        };
        let t = self.steps.now();
        let numbers = [self.rule.numbers(of(&self.schedule).at(t), t + 1), clips.clone()].concat();
        let (mut grads, first) = match self.sequel.run(owed, &mut state(model, &mut self.slots), &numbers)? {
            Begun::Unknown(grads, first) => (grads, first),
            Begun::Done => {
                self.steps.tick();
                return Ok(());
            }
        };
        let mut limits = Vec::new();
        for max in clips {
            grads = clip(grads, |like| {
                limits.push(limit(max, like));
                limits[limits.len() - 1].clone()
            });
        }
        let (device, mut numbers) = self.record(model, &names, grads);
        numbers.append(&mut limits);
        let state = state(model, &mut self.slots);
        device.map_or(Ok(()), |device| self.sequel.learn(&device, first, &state, numbers))
    }

    /// Records the step: the parameters' next values, and those of the slots. Gives the device, and the numbers as scalars.
    #[track_caller]
    fn record<M: Module + ?Sized>(
        &mut self,
        model: &mut M,
        names: &[String],
        grads: Vec<Option<Tensor>>,
    ) -> (Option<Device>, Vec<Tensor>) {
        let missing: Vec<&str> =
            names.iter().zip(&grads).filter(|(_, g)| g.is_none()).map(|(n, _)| n.as_str()).collect();
        if !self.told && !missing.is_empty() {
            self.told = true;
            eprintln!("kiln: no gradient reaches {}", missing.join(", "));
        }
        self.n_recorded += 1;
        self.steps.tick();
        let mut grads = names.iter().zip(grads);
        let mut slots = self.slots.iter_mut();
        let mut scalars: Vec<Tensor> = Vec::new();
        let mut device = None;
        let rule = &self.rule;
        let numbers = {
            let (rule, schedule) = (rule.clone(), self.schedule.clone());
            move |t: u64| rule.numbers(of(&schedule).at(t - 1), t)
        };
        model.visit_mut(&mut Path::default(), &mut |at, leaf| {
            let LeafMut::Param(param) = leaf else { return };
            let found = grads.next().zip(slots.next());
            let Some(((_, grad), (_, slots))) = found.filter(|((g, _), (s, _))| *g == at.as_str() && s == at.as_str())
            else {
                panic!("step: {at} has no place in these gradients and this optimizer");
            };
            let Some(grad) = grad else { return };
            if device.is_none() {
                device = Some(param.device().clone());
                scalars = self.steps.scalars(numbers.clone(), param.dtype(), param.device());
            }
            let next = rule.update(&scalars, param, &grad, slots);
            *param = Param::new(next);
        });
        (device, scalars)
    }

    /// The learning rate of the next step.
    pub fn lr(&self) -> f64 {
        of(&self.schedule).at(self.steps.now())
    }

    /// Replaces the schedule; steps go on counting.
    pub fn set_schedule(&mut self, schedule: impl Into<Schedule>) {
        *self.schedule.lock().unwrap_or_else(PoisonError::into_inner) = schedule.into();
    }

    /// The number of steps done.
    pub fn n_steps(&self) -> u64 {
        self.steps.now()
    }

    /// How many of this optimizer's steps were recorded as a whole: constant once a loop is warm.
    pub fn n_recorded(&self) -> usize {
        self.n_recorded
    }

    /// What the optimizer keeps, each as `path.slot`; with [`Optimizer::n_steps`] all that a checkpoint needs.
    pub fn state_dict(&self) -> Vec<(String, Tensor)> {
        let names = self.rule.slots();
        let of = |(path, slots): &(String, Vec<Tensor>)| -> Vec<(String, Tensor)> {
            names.iter().zip(slots).map(|(name, slot)| (format!("{path}.{name}"), slot.clone())).collect()
        };
        self.slots.iter().flat_map(of).collect()
    }

    /// Continues from what [`Optimizer::state_dict`] and [`Optimizer::n_steps`] gave.
    ///
    /// # Errors
    /// If a tensor is missing, of other dims or dtype, or too many; then nothing has changed.
    pub fn load_state_dict(&mut self, state: &[(String, Tensor)], n_steps: u64) -> Result<()> {
        let own = self.state_dict();
        let fail = |why: String| Err(Error::new(ErrorKind::Data, format!("optimizer state: {why}")));
        let mut found = Vec::with_capacity(own.len());
        for (name, slot) in &own {
            match state.iter().find(|(n, _)| n == name) {
                None => return fail(format!("{name} is missing")),
                Some((_, t)) if t.dims() != slot.dims() || t.dtype() != slot.dtype() => {
                    let (expected, got) = (slot.shape(), t.shape());
                    return fail(format!("{name} is {}{got}, expected {}{expected}", t.dtype(), slot.dtype()));
                }
                Some((_, t)) => found.push(t.to(slot.device())?),
            }
        }
        if state.len() != own.len() {
            return fail(format!("{} tensors, expected {}", state.len(), own.len()));
        }
        let mut found = found.into_iter();
        for (_, slots) in &mut self.slots {
            slots.iter_mut().zip(found.by_ref()).for_each(|(slot, t)| *slot = t);
        }
        self.steps.set(n_steps);
        Ok(())
    }
}

impl<R> Optimizer<R> {
    /// Every tensor that is kept, always in the same order.
    pub(crate) fn slots_mut(&mut self) -> impl Iterator<Item = &mut Tensor> {
        self.slots.iter_mut().flat_map(|(_, slots)| slots)
    }
}
