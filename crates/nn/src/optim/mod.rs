//! Optimizers: a rule for one parameter, and the loop over a model that applies it.
//!
//! The hard idea is what is *not* in the recorded program: learning rates, step counts and bias corrections are
//! numbers of the host, handed over as scalars, so that every step is the same program and finds the same plan.

mod adamw;
mod sgd;

use std::sync::{Arc, Mutex, PoisonError};

use kiln_graph::{Clock, Tensor};
use kiln_ir::{Error, ErrorKind, Result};

use crate::{Grads, LeafMut, Module, Path, Schedule};

pub use adamw::AdamW;
pub use sgd::Sgd;

/// How one parameter moves, and which tensors are kept beside it.
pub trait Rule: Clone + Send + Sync + 'static {
    /// The names of the tensors kept for each parameter, each of its dims and zero at first.
    fn slots(&self) -> &'static [&'static str];

    /// The numbers of step `t`, counted from 1, that are the same for all parameters.
    fn numbers(&self, lr: f64, t: u64) -> Vec<f64>;

    /// The parameter's next value, from [`Rule::numbers`] as scalars; the slots are replaced.
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
    told: bool,
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
        Optimizer { rule, schedule, steps: Clock::new(0), slots, told: false }
    }

    /// Moves the parameters against their gradients and submits the step, without waiting for it.
    ///
    /// What this thread recorded and still holds is computed with it, such as the loss and running statistics.
    /// A parameter without a gradient stays as it is, and is named once on standard error.
    ///
    /// # Errors
    /// If the device fails; then every parameter of the step holds the error.
    ///
    /// # Panics
    /// If the gradients belong to a model with other parameters.
    #[track_caller]
    pub fn step<M: Module + ?Sized>(&mut self, model: &mut M, grads: Grads<M>) -> Result<()> {
        if !self.told && grads.iter().any(|(_, grad)| grad.is_none()) {
            self.told = true;
            eprintln!("kiln: no gradient reaches {}", grads.missing().join(", "));
        }
        self.steps.tick();
        let mut grads = grads.into_entries().into_iter();
        let mut slots = self.slots.iter_mut();
        let mut scalars: Option<Vec<Tensor>> = None;
        let mut device = None;
        let rule = &self.rule;
        let numbers = {
            let (rule, schedule) = (rule.clone(), self.schedule.clone());
            move |t: u64| rule.numbers(of(&schedule).at(t - 1), t)
        };
        model.visit_mut(&mut Path::default(), &mut |at, leaf| {
            let LeafMut::Param(param) = leaf else { return };
            let found = grads.next().zip(slots.next());
            let Some(((_, grad), (_, slots))) = found.filter(|((g, _), (s, _))| g == at.as_str() && s == at.as_str())
            else {
                panic!("step: {at} has no place in these gradients and this optimizer");
            };
            let Some(grad) = grad else { return };
            let numbers =
                scalars.get_or_insert_with(|| self.steps.scalars(numbers.clone(), param.dtype(), param.device()));
            device.get_or_insert_with(|| param.device().clone());
            let next = rule.update(numbers, param, &grad, slots);
            *param = crate::Param::new(next);
        });
        drop(scalars);
        device.map_or(Ok(()), |device| device.eval())
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
