//! A backend that passes everything on and counts what it passes: the kernels behind a step.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use kiln::Result;
use kiln::ir::{Backend, Buffer, Caps, Executable, Fence, Kernel, Readback, Reject, Step, Tape};

/// Another backend, and how many kernels it was told to run.
pub struct Counted {
    inner: Arc<dyn Backend>,
    n_kernels: AtomicU64,
    dry: bool,
}

struct CountedTape {
    inner: Tape,
    n_kernels: u64,
}

impl Counted {
    /// Counts from zero.
    pub fn new(inner: Arc<dyn Backend>) -> Counted {
        Counted { inner, n_kernels: AtomicU64::new(0), dry: false }
    }

    /// As [`Counted::new`], but runs no kernel: what remains is the cost of the host. Results are undefined.
    pub fn dry(inner: Arc<dyn Backend>) -> Counted {
        Counted { dry: true, ..Counted::new(inner) }
    }

    /// Kernels of all replays so far.
    pub fn n_kernels(&self) -> u64 {
        self.n_kernels.load(Ordering::Relaxed)
    }
}

impl Backend for Counted {
    fn caps(&self) -> &Caps {
        self.inner.caps()
    }

    fn supports(&self, kernel: &Kernel) -> Result<(), Reject> {
        self.inner.supports(kernel)
    }

    fn alloc(&self, bytes: u64) -> Result<Buffer> {
        self.inner.alloc(bytes)
    }

    fn write(&self, dst: &Buffer, at: u64, data: &[u8]) -> Result<()> {
        self.inner.write(dst, at, data)
    }

    fn read(&self, src: &Buffer, range: Range<u64>) -> Readback {
        self.inner.read(src, range)
    }

    fn compile(&self, kernels: &[Kernel]) -> Vec<Result<Executable>> {
        self.inner.compile(kernels)
    }

    fn source(&self, exe: &Executable) -> Option<String> {
        self.inner.source(exe)
    }

    fn record(&self, steps: &[Step], temps: &[u64]) -> Result<Tape> {
        let inner = self.inner.record(steps, temps)?;
        Ok(Tape::new(CountedTape { inner, n_kernels: steps.len() as u64 }))
    }

    fn replay(&self, tape: &Tape, args: &[Buffer], scalars: &[u32]) -> Result<Fence> {
        let tape = tape.get::<CountedTape>();
        self.n_kernels.fetch_add(tape.n_kernels, Ordering::Relaxed);
        match self.dry {
            true => Ok(Fence::new(|| Ok(()))),
            false => self.inner.replay(&tape.inner, args, scalars),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kiln::Tensor;
    use kiln::graph::{Device, plan::PlanOptions};
    use kiln_cpu::CpuBackend;

    #[test]
    fn kernels_are_counted_and_results_pass() {
        let backend = Arc::new(Counted::new(Arc::new(CpuBackend::new())));
        let device = Device::with_options(backend.clone(), PlanOptions::default());
        let x = Tensor::new(&[1.0f32, 2.0], &[2], &device).unwrap();
        assert_eq!((&x + &x).to_vec::<f32>().unwrap(), [2.0, 4.0]);
        assert_eq!(backend.n_kernels(), 1);
        assert_eq!((&x + &x).to_vec::<f32>().unwrap(), [2.0, 4.0]);
        assert_eq!(backend.n_kernels(), 2);
    }
}
