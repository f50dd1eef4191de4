//! Where rows run: a backend, opened once, and a fresh device over it for each row.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use kiln::Result;
use kiln::graph::{Device, plan::PlanOptions};
use kiln::ir::{Backend, KernelTime};
use kiln_cpu::CpuBackend;
use kiln_device::{Options, WgpuBackend};

use crate::counted::Counted;

/// Which backend to open.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// The processor.
    Cpu,
    /// The n-th adapter.
    Gpu(usize),
}

impl FromStr for Kind {
    type Err = String;

    fn from_str(text: &str) -> Result<Kind, String> {
        let number = match text.split_once(':') {
            None if text == "cpu" => return Ok(Kind::Cpu),
            None if text == "gpu" => Some(0),
            Some(("gpu", n)) => n.parse().ok(),
            _ => None,
        };
        number.map(Kind::Gpu).ok_or_else(|| format!("expected `cpu`, `gpu` or `gpu:N`, found `{text}`"))
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Kind::Cpu => f.write_str("cpu"),
            Kind::Gpu(0) => f.write_str("gpu"),
            Kind::Gpu(n) => write!(f, "gpu:{n}"),
        }
    }
}

/// An open backend.
pub struct Place {
    kind: Kind,
    counted: Arc<Counted>,
    gpu: Option<Arc<WgpuBackend>>,
}

impl Place {
    /// Opens a backend. On a GPU with `profile`, every kernel is timed, which slows the whole down.
    ///
    /// # Errors
    /// If there is no such adapter, or it gives no device.
    pub fn open(kind: Kind, profile: bool) -> Result<Place> {
        match kind {
            Kind::Cpu => Ok(Place { kind, counted: Arc::new(Counted::new(Arc::new(CpuBackend::new()))), gpu: None }),
            Kind::Gpu(n) => {
                let gpu = Arc::new(WgpuBackend::gpu(n, Options { profile, ..Options::default() })?);
                Ok(Place { kind, counted: Arc::new(Counted::new(gpu.clone())), gpu: Some(gpu) })
            }
        }
    }

    /// Which backend it is.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// A device without plans; those of earlier rows, and their temporaries, are gone with their devices.
    pub fn device(&self) -> Device {
        Device::with_options(self.counted.clone(), PlanOptions::default())
    }

    /// Waits until everything submitted is done.
    ///
    /// # Errors
    /// If the device failed.
    pub fn sync(&self) -> Result<()> {
        // The CPU has finished a step when it returns from it.
        self.gpu.as_ref().map_or(Ok(()), |gpu| gpu.wait())
    }

    /// True iff a step may return before it is done.
    pub fn is_asynchronous(&self) -> bool {
        self.gpu.is_some()
    }

    /// Kernels of all steps so far.
    pub fn n_kernels(&self) -> u64 {
        self.counted.n_kernels()
    }

    /// The times of kernels since the last call.
    ///
    /// # Errors
    /// If the device failed.
    pub fn take_profile(&self) -> Result<Vec<KernelTime>> {
        self.gpu.as_ref().map_or(Ok(Vec::new()), |gpu| gpu.take_times())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_print_as_they_are_written() {
        for text in ["cpu", "gpu", "gpu:2"] {
            assert_eq!(text.parse::<Kind>().unwrap().to_string(), text);
        }
        for text in ["", "tpu", "gpu:", "gpu:x", "cpu:1"] {
            assert!(text.parse::<Kind>().is_err(), "{text}");
        }
    }
}
