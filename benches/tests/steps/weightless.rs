//! Backends without memory and without work: plans are made for them, and that is all. One is the CPU; the other is a GPU
//! that is not here, for which kernels are written, which tells how many pipelines it would have.

use std::collections::HashSet;
use std::ops::Range;
use std::sync::{Arc, Mutex};

use kiln::Result;
use kiln::graph::plan::PlanOptions;
use kiln::ir::{Backend, Buffer, Caps, Executable, Fence, Kernel, Readback, Reject, Step, Tape};
use kiln::prelude::*;
use kiln_cpu::CpuBackend;
use kiln_device::emit::{Target, emit};

pub(crate) struct Weightless {
    caps: Caps,
    kind: Kind,
    /// The texts of a GPU's kernels: pipelines differ iff these do.
    texts: Mutex<HashSet<String>>,
}

enum Kind {
    Cpu(CpuBackend),
    Gpu(Target),
}

/// A device that plans as the CPU does.
pub(crate) fn device() -> Device {
    let cpu = CpuBackend::new();
    Weightless::on(cpu.caps().clone(), Kind::Cpu(cpu)).1
}

/// A device with the limits of a large GPU under Vulkan.
pub(crate) fn large_gpu() -> (Arc<Weightless>, Device) {
    let target = Target {
        max_invocations: 1024,
        max_workgroup_bytes: 48 << 10,
        max_bindings: 64,
        max_binding_bytes: i32::MAX as u64,
        ..Target::default()
    };
    let caps = Caps {
        name: "a large GPU".into(),
        dtypes: DType::ALL.into_iter().filter(|&t| t != DType::F64).collect(),
        max_bindings: target.max_bindings,
        max_binding_bytes: target.max_binding_bytes,
        max_workgroups: target.max_workgroups,
        bool_bytes: 4,
        lanes: 1 << 17,
        flops: 1e13,
        bandwidth: 4e11,
    };
    Weightless::on(caps, Kind::Gpu(target))
}

impl Weightless {
    fn on(caps: Caps, kind: Kind) -> (Arc<Weightless>, Device) {
        let backend = Arc::new(Weightless { caps, kind, texts: Mutex::default() });
        (backend.clone(), Device::with_options(backend, PlanOptions::default()))
    }

    /// Pipelines that were made so far.
    pub(crate) fn n_pipelines(&self) -> usize {
        self.texts.lock().unwrap().len()
    }
}

impl Backend for Weightless {
    fn caps(&self) -> &Caps {
        &self.caps
    }

    fn supports(&self, kernel: &Kernel) -> Result<(), Reject> {
        match &self.kind {
            Kind::Cpu(cpu) => cpu.supports(kernel),
            Kind::Gpu(target) => emit(kernel, target).map(|_| ()),
        }
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
        if let Kind::Gpu(target) = &self.kind {
            let text = |kernel: &Kernel| emit(kernel, target).expect("the planner asked").wgsl;
            self.texts.lock().unwrap().extend(kernels.iter().map(text));
        }
        kernels.iter().map(|_| Ok(Executable::new(()))).collect()
    }

    fn record(&self, _: &[Step], _: &[u64]) -> Result<Tape> {
        Ok(Tape::new(()))
    }

    fn replay(&self, _: &Tape, _: &[Buffer], _: &[u32]) -> Result<Fence> {
        Ok(Fence::new(|| Ok(())))
    }
}
