//! A backend without memory and without work: plans are made for it as for the CPU's, and that is all.

use std::ops::Range;

use kiln::Result;
use kiln::graph::plan::PlanOptions;
use kiln::ir::{Backend, Buffer, Caps, Executable, Fence, Kernel, Readback, Reject, Step, Tape};
use kiln::prelude::*;
use kiln_cpu::CpuBackend;

struct Weightless(CpuBackend);

/// A device on it.
pub(crate) fn device() -> Device {
    Device::with_options(std::sync::Arc::new(Weightless(CpuBackend::new())), PlanOptions::default())
}

impl Backend for Weightless {
    fn caps(&self) -> &Caps {
        self.0.caps()
    }

    fn supports(&self, kernel: &Kernel) -> Result<(), Reject> {
        self.0.supports(kernel)
    }

    fn alloc(&self, bytes: u64) -> Result<Buffer> {
        Ok(Buffer::new(bytes, ()))
    }

    fn write(&self, _: &Buffer, _: u64, _: &[u8]) -> Result<()> {
        Ok(())
    }

    fn read(&self, _: &Buffer, range: Range<u64>) -> Readback {
        Readback::new(move || Ok(vec![0; (range.end - range.start) as usize]))
    }

    fn compile(&self, kernels: &[Kernel]) -> Vec<Result<Executable>> {
        kernels.iter().map(|_| Ok(Executable::new(()))).collect()
    }

    fn record(&self, _: &[Step], _: &[u64]) -> Result<Tape> {
        Ok(Tape::new(()))
    }

    fn replay(&self, _: &Tape, _: &[Buffer], _: &[u32]) -> Result<Fence> {
        Ok(Fence::new(|| Ok(())))
    }
}
