//! A device: a backend, and the plans that were made for it.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, RwLock, Weak};

use kiln_ir::{Backend, Caps, DType};

use crate::cache::Plans;
use crate::env::Env;
use crate::known::Programs;
use crate::owed::Debt;
use crate::plan::{Plan, PlanOptions};

/// A place where tensors live and are computed. Cheap to clone; clones are the same device. Threads may share it and its
/// tensors: each reads what it would read alone.
#[derive(Clone)]
pub struct Device(Arc<Inner>);

struct Inner {
    backend: Arc<dyn Backend>,
    options: PlanOptions,
    env: Env,
    plans: Mutex<Plans>,
    programs: Mutex<Programs>,
    /// Gradients that are not recorded yet.
    owed: Mutex<Vec<Weak<Debt>>>,
    /// Who runs programs: see [`Turn`](crate::turn::Turn).
    turns: RwLock<()>,
    /// The most bytes that one program may take.
    budget: AtomicU64,
}

impl Device {
    /// A device that computes on this backend.
    pub fn new(backend: impl Backend + 'static) -> Device {
        Device::with_options(Arc::new(backend), PlanOptions::default())
    }

    /// A device with knobs turned, for tests.
    pub fn with_options(backend: Arc<dyn Backend>, options: PlanOptions) -> Device {
        let env = Env::read();
        crate::inspect::opened(&env, backend.caps());
        Device(Arc::new(Inner {
            backend,
            options,
            env,
            plans: Mutex::default(),
            programs: Mutex::default(),
            owed: Mutex::default(),
            turns: RwLock::default(),
            budget: AtomicU64::new(u64::MAX),
        }))
    }

    /// What the device can do.
    pub fn caps(&self) -> &Caps {
        self.0.backend.caps()
    }

    /// What executes kernels here.
    pub fn backend(&self) -> &Arc<dyn Backend> {
        &self.0.backend
    }

    /// How many plans and kernels were compiled so far: constant once a training loop is warm.
    pub fn compilations(&self) -> (usize, usize) {
        let plans = self.plans();
        (plans.n_planned, plans.n_compiled)
    }

    /// Limits the bytes that one program may take: its arguments, results and temporaries together. A program over
    /// it is refused as out of memory before anything runs; what it should have computed stays pending.
    ///
    /// ```
    /// # use kiln_graph::{Device, Tensor};
    /// # let device = Device::new(kiln_cpu::CpuBackend::new());
    /// let x = Tensor::new(&[1.0f32; 1000], &[1000], &device)?;
    /// device.set_memory_budget(1000);
    /// let error = (&x + 1.0).to_vec::<f32>().unwrap_err();
    /// assert!(error.is_out_of_memory() && error.to_string().contains("f32[1000]"));
    /// # Ok::<(), kiln_ir::Error>(())
    /// ```
    pub fn set_memory_budget(&self, bytes: u64) {
        self.0.budget.store(bytes, Ordering::Relaxed);
    }

    /// The plan that ran last on this device; `None` if none did.
    pub fn last_plan(&self) -> Option<Arc<Plan>> {
        self.plans().last.clone()
    }

    pub(crate) fn budget(&self) -> u64 {
        self.0.budget.load(Ordering::Relaxed)
    }

    /// The programs that are known, and the right to mark nodes.
    pub(crate) fn programs(&self) -> std::sync::MutexGuard<'_, Programs> {
        // A walk that panicked left marks that no later one takes for its own.
        self.0.programs.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Gradients that are not recorded yet.
    pub(crate) fn owed(&self) -> std::sync::MutexGuard<'_, Vec<Weak<Debt>>> {
        self.0.owed.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    pub(crate) fn turns(&self) -> &RwLock<()> {
        &self.0.turns
    }

    pub(crate) fn options(&self) -> PlanOptions {
        self.0.options
    }

    pub(crate) fn env(&self) -> &Env {
        &self.0.env
    }

    pub(crate) fn plans(&self) -> std::sync::MutexGuard<'_, Plans> {
        self.0.plans.lock().expect("planning does not panic while it holds the cache")
    }

    /// Refuses a dtype that the device cannot hold.
    #[track_caller]
    pub(crate) fn check(&self, op: &str, dtype: DType) {
        if !self.caps().dtypes.contains(&dtype) {
            panic!("{op}: {} has no {dtype}", self.caps().name);
        }
    }
}

/// Equal iff both are clones of one device.
impl PartialEq for Device {
    fn eq(&self, other: &Device) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for Device {}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.caps().name)
    }
}

impl fmt::Debug for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Device({self})")
    }
}
