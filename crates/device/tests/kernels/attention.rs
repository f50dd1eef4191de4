//! Attention and its gradients in every schedule: ragged, causal, biased, narrow, strided, empty.

use std::sync::OnceLock;

use kiln_device::emit::{Schedule, Target, emit};
use kiln_device::{Options, WgpuBackend, wgpu};
use kiln_ir::attention::{Extents, Part};
use kiln_ir::kernel::{Attention, Body, Instr};
use kiln_ir::{DType, Index, Kernel, PointOp, Reject};

use crate::attention_oracle as oracle;
use crate::harness::{Steps, device, numbers, read, row_major, runs, write};
use crate::validate::validate;

/// What is added to the scores.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Bias {
    /// Nothing.
    None,
    /// -∞ for the last third of the keys.
    Keys,
    /// A number or -∞ for each score; -∞ for all of every fifth row.
    Full,
    /// Computed: less the farther, -∞ beyond 20.
    Distance,
    /// Computed: 30 more for each key, so that the maximum rises all the way and `exp` of a score overflows.
    Steep,
}

/// How an operand is stored.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Layout {
    /// `[b.., rows, columns]`.
    Rows,
    /// `[rows, b.., columns]`, as a projection leaves its heads.
    Heads,
    /// `[b.., columns, rows]`.
    Columns,
}

#[derive(Clone, Debug)]
struct Case {
    batch: Vec<usize>,
    t: usize,
    s: usize,
    d: usize,
    e: usize,
    causal: bool,
    bias: Bias,
    layout: Layout,
    dtype: DType,
    /// Which element of which operand is NaN.
    nan: Option<(usize, usize)>,
}

const FORWARD: &[Part] = &[Part::Out, Part::LogSum];
const GRAD_Q: &[Part] = &[Part::GradQ];
const GRAD_KV: &[Part] = &[Part::GradK, Part::GradV];
const TILED_AND_PLAIN: [Schedule; 2] = [Schedule::Plain, Schedule::Shared];

impl Case {
    fn new(batch: &[usize], [t, d]: [usize; 2], [s, e]: [usize; 2]) -> Case {
        let (batch, layout, dtype) = (batch.to_vec(), Layout::Rows, DType::F32);
        Case { batch, t, s, d, e, causal: false, bias: Bias::None, layout, dtype, nan: None }
    }

    fn causal(self) -> Case {
        Case { causal: true, ..self }
    }

    fn with(self, bias: Bias, layout: Layout, dtype: DType) -> Case {
        Case { bias, layout, dtype, ..self }
    }

    fn numel(&self, dims: [usize; 2]) -> usize {
        self.batch.iter().product::<usize>() * dims[0] * dims[1]
    }

    /// A load of an operand with these last dims.
    fn load(&self, arg: u32, dims: [usize; 2], dtype: DType) -> Body {
        let n = self.batch.len();
        let all = [&self.batch[..], &dims].concat();
        let order: Vec<usize> = match self.layout {
            Layout::Rows => (0..n + 2).collect(),
            Layout::Heads => std::iter::once(n).chain(0..n).chain([n + 1]).collect(),
            Layout::Columns => (0..n).chain([n + 1, n]).collect(),
        };
        let mut body = Body::default();
        let mut step = 1;
        let mut index = Index::default();
        for axis in order.into_iter().rev() {
            index = index.add(&Index::var(axis).scale(step), &all);
            step *= all[axis] as i64;
        }
        body.load(arg, dtype, index);
        body
    }

    fn bias(&self, arg: u32) -> Body {
        let (row, column) = (self.batch.len(), self.batch.len() + 1);
        let mut body = Body::default();
        match self.bias {
            Bias::None => drop(body.constant(DType::F32, 0.0)),
            Bias::Keys => drop(body.load(arg, self.dtype, Index::var(column))),
            Bias::Full => return self.load(arg, [self.t, self.s], self.dtype),
            Bias::Steep => {
                let key = body.push(Instr::Coord(Index::var(column)), DType::I32);
                let key = body.push(Instr::Cast(DType::F32, key), DType::F32);
                let slope = body.constant(DType::F32, 30.0);
                body.op(PointOp::Mul, &[key, slope], DType::F32);
            }
            Bias::Distance => {
                let dims = [&self.batch[..], &[self.t, self.s]].concat();
                let distance = Index::var(row).add(&Index::var(column).scale(-1), &dims);
                let distance = body.push(Instr::Coord(distance), DType::I32);
                let distance = body.push(Instr::Cast(DType::F32, distance), DType::F32);
                let distance = body.op(PointOp::Abs, &[distance], DType::F32);
                let slope = body.constant(DType::F32, -0.125);
                let bias = body.op(PointOp::Mul, &[distance, slope], DType::F32);
                let (far, hidden) = (body.constant(DType::F32, 20.0), body.constant(DType::F32, f64::NEG_INFINITY));
                let beyond = body.op(PointOp::Lt, &[far, distance], DType::Bool);
                body.op(PointOp::Select, &[beyond, hidden, bias], DType::F32);
            }
        }
        body
    }

    fn bias_values(&self) -> Option<Vec<f64>> {
        match self.bias {
            Bias::Keys => {
                let value = |j| if 3 * j >= 2 * self.s { f64::NEG_INFINITY } else { 0.0 };
                Some((0..self.s).map(value).collect())
            }
            Bias::Full => {
                // The operand's own order, so that whole rows are hidden in any layout.
                let n = self.numel([self.t, self.s]);
                let body = self.load(0, [self.t, self.s], self.dtype);
                let Instr::Load { index, .. } = &body.instrs[0] else { unreachable!() };
                let mut values = numbers(4, n, self.dtype, (-3.0, 2.0));
                for at in crate::oracle::points(&[&self.batch[..], &[self.t, self.s]].concat()) {
                    let (row, column) = (at[self.batch.len()], at[self.batch.len() + 1]);
                    if row % 5 == 3 || (row * 7 + column * 3) % 11 < 3 {
                        values[index.eval(&at) as usize] = f64::NEG_INFINITY;
                    }
                }
                Some(values)
            }
            _ => None,
        }
    }

    /// A kernel that stores these parts, and its arguments.
    fn kernel(&self, parts: &[Part]) -> (Attention, Vec<Vec<f64>>) {
        let Case { t, s, d, e, dtype, .. } = *self;
        let shapes = [[t, d], [s, d], [s, e]];
        let mut args: Vec<_> = shapes.iter().map(|&dims| read(dtype, self.numel(dims))).collect();
        let mut values: Vec<Vec<f64>> = (0..3)
            .map(|n| {
                numbers(n as u32 + 1, self.numel(shapes[n]), dtype, if n == 2 { (-1.0, 1.0) } else { (-2.0, 2.0) })
            })
            .collect();
        if let Some((operand, element)) = self.nan {
            values[operand][element] = f64::NAN;
        }
        if let Some(bias) = self.bias_values() {
            args.push(read(dtype, bias.len()));
            values.push(bias);
        }
        let mut operands: Vec<Body> = (0..3).map(|n| self.load(n as u32, shapes[n], dtype)).collect();
        operands.push(self.bias(3));
        let extents = Extents { batch: self.batch.clone(), t, s, d, e };
        let mut kernel = Attention { extents, causal: self.causal, args, operands, stores: vec![] };
        if parts.iter().any(|part| part.is_backward()) {
            self.backward(&mut kernel, &mut values);
        }
        for &part in parts {
            let (dims, dtype) = match part {
                Part::Out => ([t, e], dtype),
                Part::LogSum => ([t, 1], DType::F32),
                Part::GradQ => ([t, d], dtype),
                Part::GradK => ([s, d], dtype),
                Part::GradV => ([s, e], dtype),
            };
            kernel.stores.push((part, kernel.args.len() as u32));
            kernel.args.push(write(dtype, self.numel(dims)));
            values.push(vec![0.0; self.numel(dims)]);
        }
        (kernel, values)
    }

    /// Appends the operands that only gradients have; those of the rows are in row-major order.
    fn backward(&self, kernel: &mut Attention, values: &mut Vec<Vec<f64>>) {
        let Case { t, e, dtype, .. } = *self;
        let g = numbers(5, self.numel([t, e]), dtype, (-1.0, 1.0));
        let first = kernel.args.len() as u32;
        let g_body = self.load(first + 2, [t, e], dtype);
        let log: Vec<f64> = oracle::part(kernel, Part::LogSum, values).iter().map(|x| x.value as f32 as f64).collect();
        let out = oracle::part(kernel, Part::Out, values);
        let mut delta = vec![0.0; self.numel([t, 1])];
        for (n, at) in crate::oracle::points(&[&self.batch[..], &[t, e]].concat()).iter().enumerate() {
            let Instr::Load { index, .. } = &g_body.instrs[0] else { unreachable!() };
            delta[n / e.max(1)] += out[n].value * g[index.eval(at) as usize];
        }
        let delta = delta.into_iter().map(|x| x as f32 as f64).collect();
        let rows = [&self.batch[..], &[t, 1]].concat();
        for (n, numbers) in [log, delta].into_iter().enumerate() {
            let mut body = Body::default();
            body.load(first + n as u32, DType::F32, row_major(0, &rows));
            kernel.operands.push(body);
            kernel.args.push(read(DType::F32, numbers.len()));
            values.push(numbers);
        }
        kernel.operands.push(g_body);
        kernel.args.push(read(dtype, g.len()));
        values.push(g);
    }
}

/// The device's parts equal the oracle's.
#[track_caller]
fn check_on(device: &WgpuBackend, case: &Case, parts: &[Part]) {
    let (kernel, values) = case.kernel(parts);
    let whole = Kernel::Attention(kernel.clone());
    let shader = emit(&whole, device.target()).unwrap_or_else(|e| panic!("{case:?} {parts:?}: {e:?}"));
    let runs = runs(device, &whole, &values, &[]);
    let ways = if runs.len() > 1 { &["", " in windows"][..] } else { &[""] };
    for ((found, how), &(part, arg)) in
        runs.iter().zip(ways).flat_map(|run| kernel.stores.iter().map(move |s| (run, s)))
    {
        let dtype = kernel.args[arg as usize].dtype;
        let expected = oracle::part(&kernel, part, &values);
        assert_eq!(found[arg as usize].len(), expected.len());
        for (i, (&f, e)) in found[arg as usize].iter().zip(&expected).enumerate() {
            // Half a unit in the last place of what is stored, and of its least numbers.
            let (relative, least) = match dtype {
                DType::F16 => (2f64.powi(-11), 2f64.powi(-25)),
                DType::BF16 => (2f64.powi(-8), 0.0),
                _ => (2f64.powi(-24), 1e-37),
            };
            let same = f.is_nan() && e.value.is_nan();
            let near = same || (f - e.value).abs() <= e.error * (1.0 + relative) + e.value.abs() * relative + least;
            let schedule = device.target().schedule;
            assert!(near, "{case:?} {part:?} {schedule:?}{how} [{i}]: {f} ≠ {e:?}\n{}", shader.wgsl);
        }
    }
}

#[track_caller]
fn check(case: &Case, parts: &[Part]) {
    for schedule in TILED_AND_PLAIN {
        let Some(device) = device(schedule) else { return };
        check_on(device, case, parts);
    }
}

#[track_caller]
fn check_all(case: &Case) {
    [FORWARD, GRAD_Q, GRAD_KV].into_iter().for_each(|parts| check(case, parts));
}

#[test]
fn shapes_of_every_size() {
    for case in [
        Case::new(&[2], [17, 16], [17, 16]),
        Case::new(&[], [1, 3], [1, 1]),
        Case::new(&[1], [3, 1], [65, 3]),
        Case::new(&[2], [65, 32], [3, 64]),
    ] {
        check_all(&case);
    }
    // A software adapter takes seconds to compile the widest ones.
    check(&Case::new(&[], [129, 64], [127, 32]), FORWARD);
    check(&Case::new(&[], [129, 64], [127, 32]), GRAD_KV);
    check(&Case::new(&[1, 2], [64, 80], [64, 80]), GRAD_Q);
    check(&Case::new(&[1], [35, 128], [70, 128]), FORWARD);
    check(&Case::new(&[1], [35, 128], [70, 128]), GRAD_KV);
}

#[test]
fn causal_rows_see_no_later_columns() {
    check_all(&Case::new(&[2], [65, 16], [65, 16]).causal());
    check_all(&Case::new(&[1], [129, 8], [40, 4]).causal());
    check(&Case::new(&[1], [20, 4], [150, 8]).causal(), FORWARD);
    check(&Case::new(&[1], [20, 4], [150, 8]).causal(), GRAD_KV);
    check(&Case::new(&[], [64, 12], [128, 12]).causal(), GRAD_Q);
}

#[test]
fn biases_hide_single_scores_and_whole_rows() {
    let case = |bias| Case::new(&[2, 2], [33, 8], [70, 8]).with(bias, Layout::Rows, DType::F32);
    check_all(&case(Bias::Full));
    check(&case(Bias::Full).causal(), FORWARD);
    check(&case(Bias::Full).causal(), GRAD_KV);
    check(&case(Bias::Keys), FORWARD);
    check(&case(Bias::Distance).causal(), FORWARD);
    check(&case(Bias::Distance), GRAD_Q);
    check(&case(Bias::Steep).causal(), FORWARD);
    check(&case(Bias::Steep).causal(), GRAD_KV);
}

/// All that a NaN score has a part in, and nothing else: rows before a key that is NaN do not see it.
#[test]
fn a_nan_score_makes_its_row_nan() {
    let d = 8;
    for nan in [(0, 40 * d), (1, 37 * d + 3), (1, 66 * d)] {
        let case = Case { nan: Some(nan), ..Case::new(&[2], [65, d], [70, 4]) };
        check_all(&case);
        check(&case.causal(), FORWARD);
    }
}

#[test]
fn operands_of_any_layout_and_dtype() {
    let case = |layout, dtype| Case::new(&[2, 3], [18, 10], [21, 6]).with(Bias::Full, layout, dtype);
    check_all(&case(Layout::Heads, DType::F16));
    check(&case(Layout::Columns, DType::F32), FORWARD);
    check(&case(Layout::Columns, DType::F32), GRAD_KV);
    check(&case(Layout::Rows, DType::BF16), FORWARD);
    check(&case(Layout::Rows, DType::BF16), GRAD_Q);
}

#[test]
fn each_part_alone() {
    for part in [Part::Out, Part::LogSum, Part::GradQ, Part::GradK, Part::GradV] {
        check(&Case::new(&[2], [19, 5], [23, 7]).causal(), &[part]);
    }
    check(&Case::new(&[2], [19, 5], [23, 7]), &[Part::GradV, Part::GradK]);
    // Alone in the largest tiles, which halves of a workgroup share.
    for part in [Part::LogSum, Part::GradK, Part::GradV] {
        check(&Case::new(&[2], [70, 12], [67, 20]).causal(), &[part]);
    }
}

#[test]
fn empty_dims() {
    for case in [
        Case::new(&[2], [0, 4], [5, 4]),
        Case::new(&[2], [5, 4], [0, 4]),
        Case::new(&[0], [5, 4], [5, 4]),
        Case::new(&[2], [5, 0], [6, 4]),
        Case::new(&[2], [5, 4], [6, 0]),
    ] {
        check_all(&case);
    }
}

/// A device with no more than WebGPU's default of workgroup memory, and few workgroups.
fn small(schedule: Schedule) -> Option<&'static WgpuBackend> {
    static DEVICES: OnceLock<Option<[WgpuBackend; 2]>> = OnceLock::new();
    device(schedule)?;
    let open = |schedule| {
        let instance = wgpu::Instance::new(wgpu::InstanceDescriptor::new_without_display_handle());
        let adapter = pollster::block_on(instance.request_adapter(&wgpu::RequestAdapterOptions::default())).unwrap();
        let required_limits = wgpu::Limits {
            max_compute_workgroups_per_dimension: 7,
            max_compute_workgroup_storage_size: 16 << 10,
            ..wgpu::Limits::default()
        };
        let descriptor = wgpu::DeviceDescriptor { required_limits, ..Default::default() };
        let (device, queue) = pollster::block_on(adapter.request_device(&descriptor)).unwrap();
        WgpuBackend::from_wgpu(device, queue, Options { schedule, checked: true, ..Options::default() })
    };
    let devices = DEVICES.get_or_init(|| Some(TILED_AND_PLAIN.map(open)));
    devices.as_ref().map(|d| &d[usize::from(schedule == Schedule::Shared)])
}

#[test]
fn few_workgroups_come_back_for_more() {
    for schedule in TILED_AND_PLAIN {
        let Some(device) = small(schedule) else { return };
        assert_eq!((device.target().max_workgroups, device.target().max_workgroup_bytes), (7, 16 << 10));
        // More pieces of work than workgroups, in every schedule.
        for parts in [FORWARD, GRAD_Q, GRAD_KV] {
            check_on(device, &Case::new(&[9], [260, 4], [40, 8]).causal(), parts);
        }
        check_on(device, &Case::new(&[], [129, 20], [260, 128]), GRAD_KV);
    }
}

/// As long as a software adapter's loops may be: it would end the walk early and say nothing.
#[test]
fn long_walks_are_walked_to_the_end() {
    for (schedule, n) in [(Schedule::Plain, 40_000), (Schedule::Shared, 12_000)] {
        let Some(device) = device(schedule) else { return };
        check_on(device, &Case::new(&[], [3, 4], [n, 4]), FORWARD);
        check_on(device, &Case::new(&[], [n / 2, 4], [3, 4]), GRAD_KV);
    }
}

#[test]
fn what_no_kernel_can_do_is_refused() {
    let refused = |case: Case, parts: &[Part], schedule| {
        let (kernel, _) = case.kernel(parts);
        let target = Target { schedule, max_bindings: 16, software: true, max_turns: 65_000, ..Target::default() };
        matches!(emit(&Kernel::Attention(kernel), &target), Err(Reject::Unsupported(_)))
    };
    let case = || Case::new(&[1], [4, 6], [4, 6]);
    assert!(!refused(case(), FORWARD, Schedule::Plain));
    assert!(refused(case(), &[Part::GradQ, Part::GradK], Schedule::Plain));
    assert!(refused(Case::new(&[1], [4, 129], [4, 6]), FORWARD, Schedule::Plain));
    assert!(refused(Case::new(&[1], [4, 6], [4, 130]), FORWARD, Schedule::Plain));
    let narrow = |e| Case::new(&[1], [4, 6], [4, e]).with(Bias::None, Layout::Rows, DType::F16);
    assert!(refused(narrow(7), FORWARD, Schedule::Plain));
    assert!(!refused(narrow(7), &[Part::LogSum], Schedule::Plain));
    assert!(refused(Case::new(&[1], [2, 1], [66_000, 1]), FORWARD, Schedule::Plain));
}

/// Whatever a device's limits are, the text is valid and keeps them.
#[test]
fn tiles_fit_every_device() {
    let wide = |t: usize, d: usize| Case::new(&[1], [t, d], [9, d]).causal();
    for (case, parts) in [
        (wide(70, 128), FORWARD),
        (wide(70, 64), FORWARD),
        (wide(70, 64), GRAD_Q),
        (wide(70, 64), GRAD_KV),
        (wide(40, 96), GRAD_KV),
        (wide(5, 20), GRAD_Q),
    ] {
        let kernel = Kernel::Attention(case.kernel(parts).0);
        for (max_workgroup_bytes, max_invocations) in
            [(8 << 10, 256), (16 << 10, 128), (32 << 10, 32), (48 << 10, 1024)]
        {
            let schedule = Schedule::Shared;
            let target = Target { max_workgroup_bytes, max_invocations, schedule, ..Target::default() };
            let shader = emit(&kernel, &target).unwrap();
            validate(&shader.wgsl);
            let number = |text: &str| text.split(|c: char| !c.is_ascii_digit()).next().unwrap().parse::<u32>().unwrap();
            let arrays = shader.wgsl.lines().filter_map(|line| line.strip_prefix("var<workgroup>"));
            let quads: u32 = arrays.map(|line| number(line.split_once("vec4<f32>, ").unwrap().1)).sum();
            assert!(16 * quads <= max_workgroup_bytes, "{}", shader.wgsl);
            let threads = number(shader.wgsl.split_once("@workgroup_size(").unwrap().1);
            assert!(threads <= max_invocations, "{}", shader.wgsl);
            // Steps stand in the text one after the other, but no more than drivers take in without delay.
            assert!(shader.wgsl.lines().count() <= 3000, "{}", shader.wgsl);
            // What every WebGPU device has is enough for tiles.
            assert!(quads > 0 || max_workgroup_bytes < 16 << 10 || max_invocations < 128, "{}", shader.wgsl);
        }
    }
}

/// Kernels for the golden files: forward and backward, and one of few columns.
pub(crate) fn golden() -> [Kernel; 3] {
    let wide = Case::new(&[2, 3], [200, 64], [200, 64]).causal().with(Bias::None, Layout::Heads, DType::F32);
    let narrow = Case::new(&[2], [9, 6], [11, 8]).with(Bias::Full, Layout::Rows, DType::F16);
    [(&wide, FORWARD), (&wide, GRAD_KV), (&narrow, FORWARD)]
        .map(|(case, parts)| Kernel::Attention(case.kernel(parts).0))
}
