//! Runs kernels on the device and compares with the oracle; bodies and numbers for tests.

use std::sync::{LazyLock, Mutex, OnceLock};

use kiln_device::emit::{Schedule, Target, emit};
use kiln_device::{Options, WgpuBackend, adapters};
use kiln_ir::kernel::{Access, Arg, Body, Instr, Store, Value};
use kiln_ir::random::threefry2x32;
use kiln_ir::{Backend, Buffer, DType, Index, Kernel, PointOp, ReduceOp, Reject, Slot, Step};

use crate::oracle;
use crate::validate::validate;

/// The schedules, each with a device of its own.
pub(crate) const SCHEDULES: [Schedule; 3] = [Schedule::Plain, Schedule::Shared, Schedule::Auto];

/// The first adapter's device with this schedule, or `None` where there is no adapter.
pub(crate) fn device(schedule: Schedule) -> Option<&'static WgpuBackend> {
    static DEVICES: OnceLock<Option<[WgpuBackend; 3]>> = OnceLock::new();
    let open = |schedule| WgpuBackend::gpu(0, Options { schedule, checked: true, ..Options::default() }).unwrap();
    let devices = DEVICES.get_or_init(|| (!adapters().is_empty()).then(|| SCHEDULES.map(open)));
    if devices.is_none() {
        assert!(std::env::var_os("KILN_REQUIRE_GPU").is_none(), "KILN_REQUIRE_GPU is set and there is no adapter");
        println!("skipped: no adapter");
    }
    devices.as_ref().map(|d| &d[SCHEDULES.iter().position(|s| *s == schedule).unwrap()])
}

/// As [`device`], with limits that no adapter has so low: seven workgroups along a dimension.
pub(crate) fn with_few_workgroups(schedule: Schedule) -> Option<WgpuBackend> {
    let device = device(schedule)?;
    Some(limited(&Target { max_workgroups: 7, ..device.target().clone() }))
}

/// The first adapter's device with this schedule, so many workgroups and so many bytes a binding.
fn limited(target: &Target) -> WgpuBackend {
    static ADAPTER: LazyLock<wgpu::Adapter> = LazyLock::new(|| {
        let instance = wgpu::Instance::new(wgpu::InstanceDescriptor::new_without_display_handle());
        pollster::block_on(instance.request_adapter(&wgpu::RequestAdapterOptions::default())).unwrap()
    });
    let required_limits = wgpu::Limits {
        max_compute_workgroups_per_dimension: target.max_workgroups,
        max_storage_buffer_binding_size: target.max_binding_bytes,
        ..ADAPTER.limits()
    };
    let descriptor = wgpu::DeviceDescriptor { required_limits, ..Default::default() };
    let (device, queue) = pollster::block_on(ADAPTER.request_device(&descriptor)).unwrap();
    let options = Options { schedule: target.schedule, checked: true, ..Options::default() };
    WgpuBackend::from_wgpu(device, queue, options)
}

/// The device with bindings so small that the kernel's largest arguments have two windows or three; `None` where they
/// are too small for any. A driver compiles every window of every load.
pub(crate) fn with_windows(device: &WgpuBackend, kernel: &Kernel) -> Option<&'static WgpuBackend> {
    static DEVICES: Mutex<Vec<(Target, &'static WgpuBackend)>> = Mutex::new(Vec::new());
    let bytes = kernel.args().iter().map(|arg| device.caps().bytes(arg.dtype, arg.numel)).max()?;
    let sizes = (8..).map(|n| 1 << n).skip_while(|&size| 3 * size < bytes).take_while(|&size| size < bytes);
    let mut targets = sizes.map(|size| Target { max_binding_bytes: size, matrix: None, ..device.target().clone() });
    let target = targets.find(|target| !matches!(emit(kernel, target), Err(Reject::Bindings { .. })))?;
    let mut devices = DEVICES.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    if let Some((_, found)) = devices.iter().find(|(t, _)| *t == target) {
        return Some(found);
    }
    let made: &'static WgpuBackend = Box::leak(Box::new(limited(&target)));
    devices.push((target, made));
    Some(made)
}

/// Elements as a device stores them.
pub(crate) fn encode(dtype: DType, values: &[f64]) -> Vec<u8> {
    let each = values.iter();
    match dtype {
        DType::F32 => each.flat_map(|&v| (v as f32).to_le_bytes()).collect(),
        DType::F16 => each.flat_map(|&v| half::f16::from_f32(v as f32).to_le_bytes()).collect(),
        DType::BF16 => each.flat_map(|&v| half::bf16::from_f32(v as f32).to_le_bytes()).collect(),
        DType::F64 => unreachable!("no device has f64"),
        DType::I32 => each.flat_map(|&v| (v as i32).to_le_bytes()).collect(),
        DType::U32 => each.flat_map(|&v| (v as u32).to_le_bytes()).collect(),
        DType::U8 => each.map(|&v| v as u8).collect(),
        DType::Bool => each.flat_map(|&v| ((v != 0.0) as u32).to_le_bytes()).collect(),
    }
}

/// The reverse of [`encode`].
pub(crate) fn decode(dtype: DType, bytes: &[u8]) -> Vec<f64> {
    let words = || bytes.as_chunks::<4>().0.iter();
    let halves = || bytes.as_chunks::<2>().0.iter();
    match dtype {
        DType::F32 => words().map(|b| f32::from_le_bytes(*b) as f64).collect(),
        DType::F16 => halves().map(|b| half::f16::from_le_bytes(*b).to_f64()).collect(),
        DType::BF16 => halves().map(|b| half::bf16::from_le_bytes(*b).to_f64()).collect(),
        DType::F64 => unreachable!("no device has f64"),
        DType::I32 => words().map(|b| i32::from_le_bytes(*b) as f64).collect(),
        DType::U32 | DType::Bool => words().map(|b| u32::from_le_bytes(*b) as f64).collect(),
        DType::U8 => bytes.iter().map(|&b| b as f64).collect(),
    }
}

/// A buffer that holds these elements.
pub(crate) fn upload(device: &WgpuBackend, dtype: DType, values: &[f64]) -> Buffer {
    let buffer = device.alloc(device.caps().bytes(dtype, values.len())).unwrap();
    device.write(&buffer, 0, &encode(dtype, values)).unwrap();
    buffer
}

/// The first `n` elements of a buffer.
pub(crate) fn download(device: &WgpuBackend, dtype: DType, n: usize, buffer: &Buffer) -> Vec<f64> {
    let bytes = device.caps().bytes(dtype, n);
    let mut values = decode(dtype, &device.read(buffer, 0..bytes).wait().unwrap());
    values.truncate(n);
    values
}

/// The bits in which a scalar is handed over.
fn word(dtype: DType, v: f64) -> u32 {
    u32::from_le_bytes(encode(dtype, &[v]).try_into().unwrap())
}

/// The arguments after the device ran the kernel: with each of them bound whole, then, of one kernel in eight, in windows;
/// of all of them if `KILN_WINDOWS` is set, which takes minutes. Attentions, whose text is long, are only then.
pub(crate) fn runs(
    device: &WgpuBackend,
    kernel: &Kernel,
    args: &[Vec<f64>],
    scalars: &[(DType, f64)],
) -> Vec<Vec<Vec<f64>>> {
    let sample = kernel.key().is_multiple_of(8) && !matches!(kernel, Kernel::Attention(_));
    let asked = sample || std::env::var_os("KILN_WINDOWS").is_some();
    let devices = [Some(device), asked.then(|| with_windows(device, kernel)).flatten()];
    devices.into_iter().flatten().map(|device| run(device, kernel, args, scalars)).collect()
}

/// The arguments after the device ran the kernel.
pub(crate) fn run(device: &WgpuBackend, kernel: &Kernel, args: &[Vec<f64>], scalars: &[(DType, f64)]) -> Vec<Vec<f64>> {
    validate(&emit(kernel, device.target()).unwrap_or_else(|e| panic!("{e:?}")).wgsl);
    let exe = device.compile(std::slice::from_ref(kernel)).remove(0).unwrap_or_else(|e| panic!("{e}"));
    let own = kernel.args();
    let buffers: Vec<Buffer> = own.iter().zip(args).map(|(a, v)| upload(device, a.dtype, v)).collect();
    let binds = own.iter().enumerate().map(|(n, a)| (Slot::Arg(n as u32), a.access)).collect();
    let step = Step { exe, binds, scalars: (0..scalars.len() as u32).collect() };
    let tape = device.record(&[step], &[]).unwrap();
    let words: Vec<u32> = scalars.iter().map(|&(t, v)| word(t, v)).collect();
    device.replay(&tape, &buffers, &words).unwrap().wait().unwrap();
    own.iter().zip(&buffers).map(|(a, b)| download(device, a.dtype, a.numel, b)).collect()
}

/// Runs a kernel in all schedules and compares every argument with the oracle.
#[track_caller]
pub(crate) fn check(kernel: &Kernel, args: &[Vec<f64>], scalars: &[(DType, f64)], tolerance: f64) {
    check_in(&SCHEDULES, kernel, args, scalars, tolerance);
}

/// As [`check`], in some schedules.
#[track_caller]
pub(crate) fn check_in(
    schedules: &[Schedule],
    kernel: &Kernel,
    args: &[Vec<f64>],
    scalars: &[(DType, f64)],
    tolerance: f64,
) {
    let mut seen: Vec<String> = Vec::new();
    for &schedule in schedules {
        let Some(device) = device(schedule) else { return };
        let shader = emit(kernel, device.target()).unwrap_or_else(|e| panic!("{e:?}"));
        if !seen.contains(&shader.wgsl) {
            check_on(device, kernel, args, scalars, tolerance);
            seen.push(shader.wgsl);
        }
    }
}

/// As [`check`], on one device.
#[track_caller]
pub(crate) fn check_on(
    device: &WgpuBackend,
    kernel: &Kernel,
    args: &[Vec<f64>],
    scalars: &[(DType, f64)],
    tolerance: f64,
) {
    let plain: Vec<f64> = scalars.iter().map(|s| s.1).collect();
    let expected = oracle::run(kernel, args, &plain);
    let wgsl = emit(kernel, device.target()).unwrap_or_else(|e| panic!("{e:?}")).wgsl;
    for (w, found) in runs(device, kernel, args, scalars).iter().enumerate() {
        for (n, (arg, (found, expected))) in kernel.args().iter().zip(found.iter().zip(&expected)).enumerate() {
            for (i, (&f, &e)) in found.iter().zip(expected).enumerate() {
                let how = if w == 0 { "" } else { " in windows" };
                assert!(close(arg.dtype, f, e, tolerance), "a{n}[{i}]{how}: {f} ≠ {e}\n{wgsl}");
            }
        }
    }
}

/// True iff a result is as near to what was expected as its dtype and the tolerance say.
pub(crate) fn close(dtype: DType, found: f64, expected: f64, tolerance: f64) -> bool {
    // One unit in the last place, where the rounding of an f32 decides otherwise than that of an f64.
    let unit = match dtype {
        DType::F16 if tolerance > 0.0 => 1e-3,
        DType::BF16 if tolerance > 0.0 => 8e-3,
        _ => 0.0,
    };
    let expected = if dtype == DType::F32 { expected as f32 as f64 } else { expected };
    let same = found == expected || (found.is_nan() && expected.is_nan());
    same || (found - expected).abs() <= tolerance.max(unit) * expected.abs().max(1.0)
}

/// `n` numbers in `lo..hi` that the dtype holds exactly, the same on every run.
pub(crate) fn numbers(seed: u32, n: usize, dtype: DType, (lo, hi): (f64, f64)) -> Vec<f64> {
    let unit = |i: usize| threefry2x32([seed, 7], [i as u32, 0])[0] as f64 / 2f64.powi(32);
    (0..n).map(|i| dtype.round(lo + (hi - lo) * unit(i))).collect()
}

/// An argument that is only loaded.
pub(crate) fn read(dtype: DType, numel: usize) -> Arg {
    Arg { dtype, numel, access: Access::Read }
}

/// An argument that is only stored.
pub(crate) fn write(dtype: DType, numel: usize) -> Arg {
    Arg { dtype, numel, access: Access::Write }
}

/// The row-major element number over `dims`, whose first axis is `first` in the space.
pub(crate) fn row_major(first: usize, dims: &[usize]) -> Index {
    let space = vec![usize::MAX; first + dims.len()];
    let mut step = 1;
    let mut index = Index::default();
    for (axis, &dim) in dims.iter().enumerate().rev() {
        index = index.add(&Index::var(first + axis).scale(step), &space);
        step *= dim as i64;
    }
    index
}

/// Shorthand for the steps of a body.
pub(crate) trait Steps {
    fn load(&mut self, arg: u32, dtype: DType, index: Index) -> Value;
    fn constant(&mut self, dtype: DType, v: f64) -> Value;
    fn op(&mut self, op: PointOp, args: &[Value], dtype: DType) -> Value;
    fn reduce(&mut self, op: ReduceOp, a: Value) -> Value;
    fn store(&mut self, arg: u32, index: Index, value: Value);
}

impl Steps for Body {
    fn load(&mut self, arg: u32, dtype: DType, index: Index) -> Value {
        self.push(Instr::Load { arg, index, valid: Vec::new(), gather: None }, dtype.compute())
    }

    fn constant(&mut self, dtype: DType, v: f64) -> Value {
        self.push(Instr::Const(dtype, v), dtype.compute())
    }

    fn op(&mut self, op: PointOp, args: &[Value], dtype: DType) -> Value {
        let at = |n: usize| args[n.min(args.len() - 1)];
        self.push(Instr::Op(op, [at(0), at(1), at(2)]), dtype.compute())
    }

    fn reduce(&mut self, op: ReduceOp, a: Value) -> Value {
        let from = self.types[a as usize];
        self.push(Instr::Reduce(op, a), if op == ReduceOp::ArgMax { DType::I32 } else { from })
    }

    fn store(&mut self, arg: u32, index: Index, value: Value) {
        self.stores.push(Store { arg, index, value });
    }
}
