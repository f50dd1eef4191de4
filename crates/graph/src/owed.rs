//! Gradients that are recorded when something asks for them.
//!
//! Until then an optimizer may do without, where it knows what follows: see [`Sequel`]. What is computed lets go of
//! what it was computed from, so whatever computes asks for them first.
//!
//! [`Sequel`]: crate::sequel::Sequel

use std::panic::Location;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use crate::grad::{check, reaches};
use crate::node::Node;
use crate::record::recorded_at;
use crate::turn::Turn;
use crate::{Device, Tensor, trace};

/// The gradients of a scalar, recorded once they are asked for: see [`Tensor::grad_later`].
pub struct Owed(Arc<Debt>);

pub(crate) struct Debt {
    device: Device,
    /// The scalar, and what its gradients are with respect to; until they are recorded.
    due: Mutex<Option<(Tensor, Vec<Tensor>)>>,
    paid: OnceLock<Vec<Option<Tensor>>>,
    location: &'static Location<'static>,
}

impl Tensor {
    /// As [`Tensor::grad`], recorded when it is asked for, and before the device computes anything; `None` if this depends
    /// on none of the tensors.
    ///
    /// ```
    /// # use kiln_graph::{Device, Tensor};
    /// # let device = Device::new(kiln_cpu::CpuBackend::new());
    /// let x = Tensor::new(&[3.0f32], &[1], &device)?;
    /// let y = x.square().sum_all();
    /// let later = y.grad_later(&[&x]).expect("it depends on x");
    /// assert_eq!(y.item()?, 9.0);
    /// assert_eq!(later.grads()[0].as_ref().unwrap().to_vec::<f32>()?, [6.0]);
    /// assert!(y.grad_later(&[&Tensor::zeros(&[1], &device)]).is_none());
    /// # Ok::<(), kiln_ir::Error>(())
    /// ```
    ///
    /// # Panics
    /// As [`Tensor::grad`].
    #[track_caller]
    pub fn grad_later(&self, wrt: &[&Tensor]) -> Option<Owed> {
        let turn = self.device().turn();
        let targets: Vec<u64> = wrt.iter().map(|t| t.node().id).collect();
        check(self, &targets);
        if !reaches(self.node(), &targets) {
            return None;
        }
        let due = (self.clone(), wrt.iter().map(|t| (*t).clone()).collect());
        let (device, location) = (self.device().clone(), Location::caller());
        let debt = Debt { device, due: Mutex::new(Some(due)), paid: OnceLock::new(), location };
        let owed = Owed(Arc::new(debt));
        match trace::is_recording() {
            // What is recorded after the step is no part of it.
            true => drop(owed.grads_in(&turn)),
            false => {
                let mut all = self.device().owed();
                all.retain(|debt| debt.strong_count() > 0);
                all.push(Arc::downgrade(&owed.0));
            }
        }
        Some(owed)
    }
}

impl Owed {
    /// The gradients, recorded now if they are not yet.
    pub fn grads(&self) -> &[Option<Tensor>] {
        match self.0.paid.get() {
            Some(grads) => grads,
            None => self.grads_in(&self.0.device.turn()),
        }
    }

    /// The same for whoever has a turn.
    pub(crate) fn grads_in(&self, turn: &Turn) -> &[Option<Tensor>] {
        self.0.pay(turn);
        self.0.paid.get().expect("whoever takes what is owed takes all handles on it")
    }

    /// True iff they are not recorded yet, and with respect to these tensors.
    pub fn is_due(&self, wrt: &[&Tensor]) -> bool {
        let same = |own: &[Tensor]| own.len() == wrt.len() && own.iter().zip(wrt).all(|(a, b)| a.is(b));
        self.0.due().as_ref().is_some_and(|(_, own)| same(own))
    }

    /// Takes what is owed, to record it later; `None` if it is recorded. Until then others would compute without recording it
    /// first, and let go of what it needs: so whoever takes it has a turn alone.
    pub(crate) fn take(&self, _turn: &Turn) -> Option<Due> {
        let (of, wrt) = self.0.due().take()?;
        let wrt = wrt.iter().map(|t| t.node().clone()).collect();
        Some(Due { of, wrt, location: self.0.location })
    }

    pub(crate) fn device(&self) -> &Device {
        &self.0.device
    }
}

/// Gradients that are not recorded.
pub(crate) struct Due {
    /// The scalar.
    pub(crate) of: Tensor,
    /// What its gradients are with respect to. Handles would seem to be others'.
    pub(crate) wrt: Vec<Arc<Node>>,
    /// Where they were asked for.
    location: &'static Location<'static>,
}

impl Due {
    pub(crate) fn record(self, _turn: &Turn) -> Vec<Option<Tensor>> {
        let wrt: Vec<Tensor> = self.wrt.into_iter().map(Tensor::from_node).collect();
        record(&self.of, &wrt, self.location)
    }
}

/// What was owed: as [`Tensor::grad`], recorded as asked for at this line.
///
/// # Panics
/// If there is no gradient at all.
fn record(of: &Tensor, wrt: &[Tensor], location: &'static Location<'static>) -> Vec<Option<Tensor>> {
    let grads = recorded_at(location, || of.grad_in_turn(&wrt.iter().collect::<Vec<_>>()));
    assert!(grads.iter().any(Option::is_some), "backward: no gradient reaches what it was asked for at {location}");
    grads
}

impl Debt {
    fn due(&self) -> std::sync::MutexGuard<'_, Option<(Tensor, Vec<Tensor>)>> {
        self.due.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn pay(&self, _turn: &Turn) {
        // Others wait until all is recorded.
        let mut due = self.due();
        if let Some((of, wrt)) = due.take() {
            self.paid.set(record(&of, &wrt, self.location)).expect("it is due once");
        }
    }
}

/// Records what is owed on a device; what another thread records meanwhile is waited for.
pub(crate) fn pay(device: &Device, turn: &Turn) {
    loop {
        let mut next = None;
        device.owed().retain(|debt| {
            let debt = debt.upgrade().filter(|debt| debt.due().is_some());
            let is_due = debt.is_some();
            next = next.take().or(debt);
            is_due
        });
        match next {
            Some(debt) => debt.pay(turn),
            None => return,
        }
    }
}
