//! Plans made for devices that are not here: other limits, no GPU. Their kernels run on the CPU, and their WGSL
//! is validated and written in the three languages that drivers take.

use std::ops::Range;
use std::sync::Mutex;

use kiln::graph::Program;
use kiln::ir::{Backend, Buffer, Caps, Executable, Fence, Kernel, Readback, Reject, Result, Step, Tape};
use kiln::prelude::*;
use kiln_cpu::CpuBackend;
use kiln_device::emit::{Target, emit};

use crate::bounds::of;
use crate::common::CPU;
use crate::generate::{Kind, program};
use crate::validate::validate;

/// The CPU, with the limits of another device and what that could emit.
struct Elsewhere {
    cpu: CpuBackend,
    caps: Caps,
    target: Target,
    checked: Mutex<Vec<String>>,
}

impl Elsewhere {
    fn new(name: &str, target: Target, lanes: usize) -> Elsewhere {
        let cpu = CpuBackend::poisoned();
        let caps = Caps {
            name: name.into(),
            dtypes: DType::ALL.into_iter().filter(|&t| t != DType::F64).collect(),
            max_bindings: target.max_bindings,
            max_binding_bytes: target.max_binding_bytes,
            max_workgroups: target.max_workgroups,
            lanes,
            ..cpu.caps().clone()
        };
        Elsewhere { cpu, caps, target, checked: Mutex::default() }
    }
}

impl Backend for Elsewhere {
    fn caps(&self) -> &Caps {
        &self.caps
    }

    fn supports(&self, kernel: &Kernel) -> Result<(), Reject> {
        emit(kernel, &self.target).map(|_| ())
    }

    fn alloc(&self, bytes: u64) -> Result<Buffer> {
        self.cpu.alloc(bytes)
    }

    fn write(&self, dst: &Buffer, at: u64, data: &[u8]) -> Result<()> {
        self.cpu.write(dst, at, data)
    }

    fn read(&self, src: &Buffer, range: Range<u64>) -> Readback {
        self.cpu.read(src, range)
    }

    fn compile(&self, kernels: &[Kernel]) -> Vec<Result<Executable>> {
        let mut checked = self.checked.lock().unwrap();
        for kernel in kernels {
            let wgsl = emit(kernel, &self.target).expect("the planner asked").wgsl;
            if !checked.contains(&wgsl) {
                validate(&wgsl);
                checked.push(wgsl);
            }
        }
        self.cpu.compile(kernels)
    }

    fn record(&self, steps: &[Step], temps: &[u64]) -> Result<Tape> {
        self.cpu.record(steps, temps)
    }

    fn replay(&self, tape: &Tape, args: &[Buffer], scalars: &[u32]) -> Result<Fence> {
        self.cpu.replay(tape, args, scalars)
    }
}

/// Runs random programs by plans for this target.
fn check(name: &str, target: Target, lanes: usize, seeds: Range<u32>) {
    for kind in [Kind::Exact, Kind::Smooth] {
        let device = Device::new(Elsewhere::new(name, target.clone(), lanes));
        for seed in seeds.clone() {
            let outputs = program(kind, seed, &CPU);
            let whole = Program::behind(&outputs.iter().collect::<Vec<_>>()).unwrap();
            let expected = whole.reference();
            let bounds = of(kind, &whole, &expected);
            let found = program(kind, seed, &device);
            for (n, ((t, expected), bounds)) in found.iter().zip(&expected).zip(&bounds).enumerate() {
                for ((f, e), bound) in t.to_vec_f64().unwrap().iter().zip(expected).zip(bounds) {
                    let same = f == e || (f.is_nan() && e.is_nan()) || (f - e).abs() <= *bound;
                    assert!(
                        same,
                        "{name}: {kind:?} program {seed}, output {n}: {f} is not {e} ± {bound}\n{}",
                        t.explain()
                    );
                }
            }
        }
    }
}

#[test]
fn in_a_browser() {
    check("WebGPU's defaults", Target::default(), 1 << 14, 300..380);
}

#[test]
fn on_a_large_gpu() {
    let target = Target {
        max_invocations: 1024,
        max_workgroup_bytes: 48 << 10,
        max_bindings: 64,
        max_binding_bytes: i32::MAX as u64,
        ..Target::default()
    };
    check("a large GPU", target, 1 << 17, 380..460);
}

#[test]
fn with_tiny_limits() {
    let target = Target {
        max_invocations: 64,
        max_workgroup_bytes: 4 << 10,
        max_workgroups: 7,
        max_bindings: 4,
        max_binding_bytes: 64 << 10,
        ..Target::default()
    };
    check("tiny limits", target, 1 << 10, 460..540);
}

#[test]
fn long_sums_in_parts_are_the_same_sums() {
    let device = Device::new(Elsewhere::new("a large GPU", Target::default(), 1 << 17));
    let run = |device: &Device| -> Vec<Vec<f64>> {
        let values = |n: usize, k: usize| (0..n).map(|i| (i * k % 23) as f64 - 11.0).collect::<Vec<f64>>();
        let make =
            |dims: &[usize], k| Tensor::from_f64(&values(dims.iter().product(), k), dims, DType::F32, device).unwrap();
        // The gradients of a convolution's weight and bias, and of an affine layer's.
        let (x, w) = (make(&[32, 3, 12, 12], 7), make(&[4, 3, 3, 3], 5));
        let (b, g) = (make(&[4, 1, 1], 3), make(&[32, 4, 10, 10], 11));
        let loss = ((x.conv2d(&w, Conv2dOptions::default()) + &b) * g).sum_all();
        let grads = loss.grad(&[&w, &b, &x]);
        let (rows, weight) = (make(&[4096, 8], 13), make(&[8, 5], 17));
        let affine = rows.matmul(&weight).square().sum_all().grad(&[&weight]);
        grads.iter().chain(&affine).map(|t| t.as_ref().unwrap().to_vec_f64().unwrap()).collect()
    };
    let (parts, whole) = (run(&device), run(&CPU));
    for (a, b) in parts.iter().flatten().zip(whole.iter().flatten()) {
        assert!((a - b).abs() <= 1e-5 * b.abs().max(1e3), "{a} is not {b}");
    }
}

/// Running reductions and sorts along an axis, all exact.
pub(crate) fn along(device: &Device, dims: &[usize], axis: isize, dtype: DType) -> Vec<Vec<f64>> {
    let n: usize = dims.iter().product();
    // Sums and products of these are exact.
    let values: Vec<f64> = (0..n).map(|i| (i * 7919 % 1013 % 3) as f64 - 1.0).collect();
    let x = Tensor::from_f64(&values, dims, dtype, device).unwrap();
    let wide: Vec<f64> = (0..n).map(|i| dtype.round((i * 7919 % 10007) as f64)).collect();
    let y = Tensor::from_f64(&wide, dims, dtype, device).unwrap();
    let (sorted, places) = y.sort(axis, true);
    let (first, at) = y.topk(7, axis, false);
    let found = [x.cumsum(axis), y.cummax(axis).0, y.cummin(axis).1, x.cumprod(axis), sorted, places, first, at];
    device.eval().unwrap();
    found.iter().map(|t| t.to_vec_f64().unwrap()).collect()
}

#[test]
fn long_rows_are_scanned_and_sorted_in_pieces() {
    for target in [Target::default(), Target { max_workgroups: 7, max_workgroup_bytes: 8 << 10, ..Target::default() }] {
        let device = Device::new(Elsewhere::new("a large GPU", target, 1 << 17));
        for (dims, axis) in [(&[20_011][..], 0), (&[2, 9000], 1), (&[2500, 3], 0), (&[2, 1024, 40], 1)] {
            for dtype in [DType::F32, DType::I32, DType::F16] {
                let [found, expected] = [&device, &CPU].map(|device| along(device, dims, axis, dtype));
                for (n, (found, expected)) in found.iter().zip(&expected).enumerate() {
                    assert_eq!(found, expected, "output {n} of {dtype}{dims:?}");
                }
            }
        }
    }
}
