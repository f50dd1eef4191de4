//! What a loop costs once it is warm: nothing is planned, compiled or recorded, and memory stays as it is. A program of
//! its own, since nothing else may take memory meanwhile.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use kiln_cpu::CpuBackend;
use kiln_graph::plan::PlanOptions;
use kiln_graph::{Device, Tensor};
use kiln_ir::{Backend, Buffer, Caps, Executable, Fence, Kernel, Readback, Reject, Result, Step, Tape};

/// The CPU's backend, and how often each verb was said.
#[derive(Default)]
struct Watched {
    inner: CpuBackend,
    n_allocs: AtomicUsize,
    n_compiled: AtomicUsize,
    n_recorded: AtomicUsize,
    n_replays: AtomicUsize,
    n_waits: Arc<AtomicUsize>,
}

/// A watched device.
fn watched() -> (Arc<Watched>, Device) {
    let backend = Arc::new(Watched::default());
    (backend.clone(), Device::with_options(backend, PlanOptions::default()))
}

fn count(n: &AtomicUsize, by: usize) {
    n.fetch_add(by, Ordering::Relaxed);
}

impl Backend for Watched {
    fn caps(&self) -> &Caps {
        self.inner.caps()
    }

    fn supports(&self, kernel: &Kernel) -> Result<(), Reject> {
        self.inner.supports(kernel)
    }

    fn alloc(&self, bytes: u64) -> Result<Buffer> {
        count(&self.n_allocs, 1);
        self.inner.alloc(bytes)
    }

    fn write(&self, dst: &Buffer, at: u64, data: &[u8]) -> Result<()> {
        self.inner.write(dst, at, data)
    }

    fn read(&self, src: &Buffer, range: Range<u64>) -> Readback {
        let (bytes, n_waits) = (self.inner.read(src, range), self.n_waits.clone());
        Readback::new(move || {
            count(&n_waits, 1);
            bytes.wait()
        })
    }

    fn compile(&self, kernels: &[Kernel]) -> Vec<Result<Executable>> {
        count(&self.n_compiled, kernels.len());
        self.inner.compile(kernels)
    }

    fn record(&self, steps: &[Step], temps: &[u64]) -> Result<Tape> {
        count(&self.n_recorded, 1);
        self.inner.record(steps, temps)
    }

    fn replay(&self, tape: &Tape, args: &[Buffer], scalars: &[u32]) -> Result<Fence> {
        count(&self.n_replays, 1);
        let (fence, n_waits) = (self.inner.replay(tape, args, scalars)?, self.n_waits.clone());
        Ok(Fence::new(move || {
            count(&n_waits, 1);
            fence.wait()
        }))
    }
}

/// Bytes that this process holds in memory.
fn resident() -> usize {
    let text = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    text.split(' ').nth(1).and_then(|pages| pages.parse::<usize>().ok()).map_or(0, |pages| pages * 4096)
}

#[test]
fn ten_thousand_steps_cost_what_ten_do() {
    let (backend, device) = watched();
    let mut w = Tensor::from_f64(&[0.5; 64], &[8, 8], kiln_ir::DType::F32, &device).unwrap();
    let data = Tensor::from_f64(&[0.1; 32 * 8], &[32, 8], kiln_ir::DType::F32, &device).unwrap();
    let mut step = |n: usize| {
        // Another window into the data, another mask and another rate each time.
        let x = data.slice(0, n % 28..n % 28 + 4);
        let kept = Tensor::bernoulli(&[4, 8], 0.5, &device);
        let loss = kept.select(&x.matmul(&w), &Tensor::zeros(&[], &device)).square().mean_all();
        let grad = loss.grad(&[&w]).remove(0).unwrap();
        w = &w - grad * (0.1 / (n as f64 + 1.5));
        device.eval().unwrap();
        let later = loss.item_later().unwrap();
        if n.is_multiple_of(100) {
            assert!(later.wait().unwrap().is_finite());
        }
    };
    (0..30).for_each(&mut step);
    let read = |n: &AtomicUsize| n.load(Ordering::Relaxed);
    let before = [&backend.n_compiled, &backend.n_recorded].map(read);
    let (allocs, waits, bytes, plans) =
        (read(&backend.n_allocs), read(&backend.n_waits), resident(), device.compilations());
    (30..10_030).for_each(&mut step);
    assert_eq!([&backend.n_compiled, &backend.n_recorded].map(read), before);
    assert_eq!(device.compilations(), plans);
    assert_eq!(read(&backend.n_waits) - waits, 100, "only those that were asked for");
    assert_eq!(read(&backend.n_allocs) - allocs, 20_000, "loss and mask, which are held; the parameter is in place");
    assert!(resident() < bytes + (1 << 20), "{bytes} bytes before, {} after", resident());
}
