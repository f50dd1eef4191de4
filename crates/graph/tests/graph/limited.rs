//! The CPU's backend with the limits and the figures of other devices, and without some of its kernels.

use std::ops::Range;

use kiln_cpu::CpuBackend;
use kiln_ir::kernel::Arg;
use kiln_ir::{
    Backend, Buffer, Caps, DType, Executable, Fence, Kernel, Readback, Reject, Result, Step, Tape, n_bindings,
};

/// See above.
pub(crate) struct Limited {
    inner: CpuBackend,
    caps: Caps,
    anchors: Anchors,
}

/// Which kernels there are of attention, scans and sorts, and whether there are groups.
enum Anchors {
    All,
    /// Of scans and sorts, those of words, and rows to sort of at most 64; no scatters, no sums over rows beside others.
    Words,
    None,
}

impl Limited {
    /// With so many bindings.
    pub(crate) fn bindings(max_bindings: usize) -> Limited {
        let inner = CpuBackend::poisoned();
        let caps = Caps { max_bindings, name: format!("{max_bindings} bindings"), ..inner.caps().clone() };
        Limited { inner, caps, anchors: Anchors::All }
    }

    /// With so many bindings, each of so many bytes at most.
    pub(crate) fn windows(max_bindings: usize, max_binding_bytes: u64) -> Limited {
        let limited = Limited::bindings(max_bindings);
        let name = format!("{max_bindings} bindings of {max_binding_bytes} bytes");
        Limited { caps: Caps { max_binding_bytes, name, ..limited.caps }, ..limited }
    }

    /// With the figures of a large GPU, so that long sums are split and starting a kernel is dear.
    pub(crate) fn large() -> Limited {
        let limited = Limited::bindings(32);
        let caps = Caps { name: "large".into(), lanes: 1 << 17, flops: 6e13, bandwidth: 3e12, ..limited.caps };
        Limited { caps, ..limited }
    }

    /// Without kernels of attention, scans and sorts, and without groups.
    pub(crate) fn plain() -> Limited {
        let limited = Limited::bindings(8);
        Limited { anchors: Anchors::None, ..limited }
    }

    /// With the kernels of scans, sorts and loops that a GPU has, and its figures; without that of scatters.
    pub(crate) fn words() -> Limited {
        Limited { anchors: Anchors::Words, ..Limited::large() }
    }

    fn has(&self, kernel: &Kernel) -> bool {
        let narrow = kernel.args().iter().any(|arg| arg.dtype.size_bytes() < 4 && arg.dtype != DType::Bool);
        match (&self.anchors, kernel) {
            (Anchors::All, _) => true,
            (Anchors::None, Kernel::Attention(_) | Kernel::Scan(_) | Kernel::Sort(_) | Kernel::Group(_)) => false,
            (Anchors::Words, Kernel::Scan(_)) => !narrow,
            (Anchors::Words, Kernel::Sort(k)) => !narrow && k.len <= 64,
            (Anchors::Words, Kernel::Scatter(_)) => false,
            (Anchors::Words, _) if kernel.loops().iter().any(|k| k.body.reduces_columns()) => false,
            (Anchors::Words | Anchors::None, _) => true,
        }
    }
}

impl Backend for Limited {
    fn caps(&self) -> &Caps {
        &self.caps
    }

    fn supports(&self, kernel: &Kernel) -> Result<(), Reject> {
        let bindings = |arg: &Arg| n_bindings(self.caps.bytes(arg.dtype, arg.numel), self.caps.max_binding_bytes);
        let (needed, limit) = (kernel.args().iter().map(bindings).sum(), self.caps.max_bindings);
        match kernel {
            _ if needed > limit => Err(Reject::Bindings { needed, limit }),
            _ if !self.has(kernel) => Err(Reject::Unsupported("left out")),
            _ => self.inner.supports(kernel),
        }
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

    fn record(&self, steps: &[Step], temps: &[u64]) -> Result<Tape> {
        self.inner.record(steps, temps)
    }

    fn replay(&self, tape: &Tape, args: &[Buffer], scalars: &[u32]) -> Result<Fence> {
        self.inner.replay(tape, args, scalars)
    }
}
