//! A row of the table: its name, and how to make what it times.

use kiln::prelude::*;
use kiln::{DType, Result};

/// A row of the table.
pub struct Row {
    /// The name that the peer's row has too.
    pub name: &'static str,
    /// Makes the inputs and the model on a device, and computes them.
    pub make: Make,
    /// The same with steps that are recorded once, where there is a model.
    pub jit: Option<Make>,
}

/// How the case of a row is made.
pub type Make = fn(&Device) -> Result<Case>;

/// Whether a step is recorded each time, or once.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mode {
    /// Each time, and its plan is found again.
    Implicit,
    /// Once.
    Jit,
}

impl Row {
    /// A row without a model.
    pub const fn new(name: &'static str, make: Make) -> Row {
        Row { name, make, jit: None }
    }

    /// How the case is made in this mode, if the row has it.
    pub fn maker(&self, mode: Mode) -> Option<Make> {
        match mode {
            Mode::Implicit => Some(self.make),
            Mode::Jit => self.jit,
        }
    }
}

impl Mode {
    /// As lines have it.
    pub fn name(self) -> &'static str {
        match self {
            Mode::Implicit => "implicit",
            Mode::Jit => "jit",
        }
    }
}

/// A workload ready to be timed.
pub struct Case {
    /// One iteration, submitted.
    pub step: Box<dyn FnMut() -> Result<()>>,
    /// The work of an iteration, in `unit` times seconds.
    pub work: f64,
    /// What the rate is counted in: `GB/s`, `GFLOP/s`, `samples/s`, and so on.
    pub unit: &'static str,
}

impl Case {
    /// A case whose iteration does this much work.
    pub fn new(work: f64, unit: &'static str, step: impl FnMut() -> Result<()> + 'static) -> Case {
        Case { step: Box::new(step), work, unit }
    }

    /// A case whose iteration computes what `record` records, and forgets it.
    pub fn computing<T>(device: &Device, work: f64, unit: &'static str, record: impl Fn() -> T + 'static) -> Case {
        let device = device.clone();
        Case::new(work, unit, move || {
            // Held until it is submitted: `eval` computes what handles name.
            let results = record();
            device.eval()?;
            drop(results);
            Ok(())
        })
    }
}

/// Random normal tensors of these dims, in device memory.
///
/// # Errors
/// If the device fails.
pub fn normals<const N: usize>(dims: [&[usize]; N], device: &Device) -> Result<[Tensor; N]> {
    let made = dims.map(|dims| Tensor::randn(dims, device));
    device.eval()?;
    Ok(made)
}

/// Integers in `0..n`, not yet computed.
pub fn integers(dims: &[usize], n: usize, device: &Device) -> Tensor {
    Tensor::uniform(dims, 0.0, n as f64, device).cast(DType::I32)
}
