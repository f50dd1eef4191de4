//! What a loop costs once it is warm: nothing is planned, compiled or recorded, and memory stays as it is.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use kiln_cpu::CpuBackend;
use kiln_graph::plan::PlanOptions;
use kiln_graph::{Device, Tensor};
use kiln_ir::{Backend, Buffer, Caps, Executable, Fence, Kernel, Readback, Reject, Result, Step, Tape};

/// The CPU's backend, and how often each verb was said.
#[derive(Default)]
pub(crate) struct Watched {
    inner: CpuBackend,
    pub(crate) n_allocs: AtomicUsize,
    pub(crate) n_compiled: AtomicUsize,
    pub(crate) n_recorded: AtomicUsize,
    pub(crate) n_replays: AtomicUsize,
    pub(crate) n_waits: Arc<AtomicUsize>,
}

/// A watched device.
pub(crate) fn watched() -> (Arc<Watched>, Device) {
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

#[test]
fn a_window_into_data_moves_without_a_new_plan() {
    let device = Device::new(CpuBackend::new());
    let values: Vec<f64> = (0..4 * 10 * 3).map(f64::from).collect();
    let data = Tensor::from_f64(&values, &[4, 10, 3], kiln_ir::DType::F32, &device).unwrap();
    let ones = Tensor::ones(&[3, 2], &device).detach();
    device.eval().unwrap();
    let mut plans = None;
    for start in [0, 3, 8, 5] {
        let window = data.slice(1, start..start + 2);
        let at = |b: usize, t: usize, c: usize| values[(b * 10 + start + t) * 3 + c] as f32;
        let all: Vec<f32> = (0..4 * 2 * 3).map(|i| at(i / 6, i / 3 % 2, i % 3)).collect();
        assert_eq!(window.to_vec::<f32>().unwrap(), all);
        let sums: Vec<f32> = all.chunks(3).flat_map(|row| [row.iter().sum::<f32>(); 2]).collect();
        assert_eq!(window.matmul(&ones).to_vec::<f32>().unwrap(), sums, "as an operand");
        let index = Tensor::new(&[1i32, 0], &[2], &device).unwrap();
        let picked = window.index_select(1, &index).to_vec::<f32>().unwrap();
        assert_eq!(picked[..6], [&all[3..6], &all[..3]].concat(), "as a table");
        let spread = index.scatter_add(1, 3, &window).to_vec::<f32>().unwrap();
        assert_eq!(spread[..9], [&all[3..6], &all[..3], &[0.0; 3]].concat(), "as values");
        assert_eq!((window.flip(1) * 2.0).sum_all().item().unwrap(), all.iter().map(|v| 2.0 * f64::from(*v)).sum());
        assert_eq!(*plans.get_or_insert(device.compilations()), device.compilations(), "window from {start}");
    }
}
