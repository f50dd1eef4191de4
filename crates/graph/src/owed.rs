//! Gradients that are recorded when something asks for them.
//!
//! Until then an optimizer may do without, where it knows what follows: see [`Sequel`]. What is computed lets go of
//! what it was computed from, so whatever computes asks for them first.
//!
//! [`Sequel`]: crate::sequel::Sequel

use std::panic::Location;
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};

use crate::grad::{check, reaches};
use crate::record::recorded_at;
use crate::{Device, Tensor, trace};

/// The gradients of a scalar, recorded once they are asked for: see [`Tensor::grad_later`].
pub struct Owed(Arc<Debt>);

pub(crate) struct Debt {
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
        let targets: Vec<u64> = wrt.iter().map(|t| t.node().id).collect();
        check(self, &targets);
        if !reaches(self.node(), &targets) {
            return None;
        }
        let due = (self.clone(), wrt.iter().map(|t| (*t).clone()).collect());
        let debt = Debt { due: Mutex::new(Some(due)), paid: OnceLock::new(), location: Location::caller() };
        let owed = Owed(Arc::new(debt));
        match trace::is_recording() {
            // What is recorded after the step is no part of it.
            true => drop(owed.grads()),
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
        self.0.pay();
        self.0.paid.get().expect("whoever takes what is owed takes all handles on it")
    }

    /// What is owed, for whoever takes it to record; itself, if it is recorded, or with respect to other tensors.
    pub fn into_due(self, wrt: &[&Tensor]) -> Result<Due, Owed> {
        let same =
            |(_, own): &mut (Tensor, Vec<Tensor>)| own.len() == wrt.len() && own.iter().zip(wrt).all(|(a, b)| a.is(b));
        let due = self.0.due().take_if(same);
        match due {
            Some((of, wrt)) => Ok(Due { of, wrt, location: self.0.location }),
            None => Err(self),
        }
    }
}

/// Gradients that are not recorded.
pub struct Due {
    /// The scalar.
    pub of: Tensor,
    /// What its gradients are with respect to.
    pub wrt: Vec<Tensor>,
    /// Where they were asked for.
    pub location: &'static Location<'static>,
}

impl Tensor {
    /// What was owed: as [`Tensor::grad`], recorded as asked for at this line.
    ///
    /// # Panics
    /// If there is no gradient at all.
    pub fn grad_owed(&self, wrt: &[&Tensor], location: &'static Location<'static>) -> Vec<Option<Tensor>> {
        let grads = recorded_at(location, || self.grad(wrt));
        assert!(grads.iter().any(Option::is_some), "backward: no gradient reaches what it was asked for at {location}");
        grads
    }
}

impl Debt {
    fn due(&self) -> std::sync::MutexGuard<'_, Option<(Tensor, Vec<Tensor>)>> {
        self.due.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn pay(&self) {
        // Others wait until all is recorded.
        let mut due = self.due();
        if let Some((of, wrt)) = due.take() {
            let grads = of.grad_owed(&wrt.iter().collect::<Vec<_>>(), self.location);
            self.paid.set(grads).expect("it is due once");
        }
    }
}

/// Records what is owed on a device.
pub(crate) fn pay(device: &Device) {
    let all = std::mem::take(&mut *device.owed());
    all.iter().filter_map(Weak::upgrade).for_each(|debt| debt.pay());
}
