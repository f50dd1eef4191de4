//! Contractions of f16 on cooperative matrices: which are, their text, and their results.
//!
//! Where no device has matrices, functions that do in every invocation what a subgroup does together
//! take their place in the text: all but the matrices themselves is then run. Operands are whole
//! numbers, of which every sum is exact.

use kiln_device::emit::{Matrix, Schedule, Shader, Target, emit};
use kiln_ir::kernel::{Access, Body, Dot, Instr};
use kiln_ir::{Bound, DType, Index, Kernel, PointOp};

use crate::dots::{load, plain, strided};
use crate::harness::{Steps, check_on, device, numbers, read, row_major, write};
use crate::stand_in;
use crate::validate::validate;

/// What an NVIDIA GPU of 2017 or later has.
pub(crate) fn target(schedule: Schedule) -> Target {
    let matrix = Some(Matrix { size: 16, subgroup: 32 });
    Target { max_workgroup_bytes: 48 << 10, max_invocations: 1024, matrix, schedule, ..Target::default() }
}

/// A product of f16 with this result, either operand stored transposed.
pub(crate) fn product([b, m, k, n]: [usize; 4], [lhs_t, rhs_t]: [bool; 2], result: DType) -> Dot {
    let lhs = if lhs_t { [m * k, 1, m] } else { [m * k, k, 1] };
    let rhs = if rhs_t { [k * n, 1, k] } else { [k * n, n, 1] };
    let index = |strides: [usize; 3], dims| strided(strides.map(|s| s as i64), dims);
    Dot {
        batch: vec![b],
        m: vec![m],
        n: vec![n],
        k: vec![k],
        args: vec![read(DType::F16, b * m * k), read(DType::F16, b * k * n), write(result, b * m * n)],
        lhs: load(0, DType::F16, index(lhs, [b, m, k]), vec![]),
        rhs: load(1, DType::F16, index(rhs, [b, k, n]), vec![]),
        epilogue: plain(2, result, &[b, m, n]),
    }
}

/// `gelu(lhs · rhs + bias) + residual`, stored in f16.
fn with_epilogue([b, m, k, n]: [usize; 4]) -> Dot {
    let mut dot = product([b, m, k, n], [false, false], DType::F16);
    dot.args.extend([read(DType::F16, n), read(DType::F32, b * m * n)]);
    let mut body = Body::default();
    let f = DType::F32;
    let acc = body.push(Instr::Acc, f);
    let bias = body.load(3, DType::F16, Index::var(2));
    let residual = body.load(4, f, row_major(0, &[b, m, n]));
    let x = body.op(PointOp::Add, &[acc, bias], f);
    let half = body.constant(f, 0.5);
    let one = body.constant(f, 1.0);
    let scale = body.constant(f, 0.5f64.sqrt());
    let scaled = body.op(PointOp::Mul, &[x, scale], f);
    let erf = body.op(PointOp::Erf, &[scaled], f);
    let sum = body.op(PointOp::Add, &[erf, one], f);
    let y = body.op(PointOp::Mul, &[x, half], f);
    let y = body.op(PointOp::Mul, &[y, sum], f);
    let y = body.op(PointOp::Add, &[y, residual], f);
    let y = body.push(Instr::Cast(DType::F16, y), f);
    body.store(2, row_major(0, &[b, m, n]), y);
    dot.epilogue = body;
    dot
}

/// Whole numbers for what is read; nothing for what is written.
fn values(dot: &Dot) -> Vec<Vec<f64>> {
    let of = |(n, arg): (usize, &kiln_ir::kernel::Arg)| match arg.access {
        Access::Read => numbers(n as u32, arg.numel, DType::I32, (-4.0, 5.0)),
        _ => vec![0.0; arg.numel],
    };
    dot.args.iter().enumerate().map(of).collect()
}

fn on_matrices(dot: &Dot, target: &Target) -> Option<Shader> {
    let shader = emit(&Kernel::Dot(dot.clone()), target).unwrap();
    shader.uses_matrices().then_some(shader)
}

#[test]
fn plain_products_of_f16_are_on_matrices() {
    let auto = target(Schedule::Auto);
    for transposed in [[false, false], [false, true], [true, false], [true, true]] {
        let shader = on_matrices(&product([1, 4096, 4096, 4096], transposed, DType::F16), &auto).unwrap();
        assert!(shader.wgsl.contains("// tiles of 128 x 128"), "{}", shader.wgsl);
    }
    assert!(on_matrices(&with_epilogue([2, 512, 64, 512]), &auto).is_some());
    // One argument as both operands.
    let mut gram = product([1, 256, 64, 256], [false, true], DType::F32);
    gram.rhs = load(0, DType::F16, strided([0, 1, 64], [1, 64, 256]), vec![]);
    gram.args[1] = read(DType::F32, 1);
    assert!(on_matrices(&gram, &auto).is_some());
    // A conversion that keeps what it converts.
    let mut widened = product([1, 256, 64, 256], [false, false], DType::F32);
    widened.lhs.push(Instr::Cast(DType::F32, 0), DType::F32);
    assert!(on_matrices(&widened, &auto).is_some());
    // Rows that lie apart by more than their length, from an element on that begins a quad.
    let mut window = product([1, 256, 64, 256], [false, false], DType::F32);
    window.lhs = load(0, DType::F16, strided([0, 96, 1], [1, 256, 64]).offset(8), vec![]);
    window.args[0] = read(DType::F16, 256 * 96);
    assert!(on_matrices(&window, &auto).is_some());
}

#[test]
fn other_contractions_are_not() {
    let auto = target(Schedule::Auto);
    let dims = [1, 256, 64, 256];
    let change = |f: &dyn Fn(&mut Dot)| {
        let mut dot = product(dims, [false, false], DType::F16);
        f(&mut dot);
        assert_eq!(on_matrices(&dot, &auto), None);
    };
    change(&|dot| {
        dot.lhs.op(PointOp::Neg, &[0], DType::F16);
    });
    change(&|dot| dot.args[0] = read(DType::BF16, 256 * 64));
    change(&|dot| dot.args[1] = read(DType::F32, 64 * 256));
    change(&|dot| {
        dot.lhs.push(Instr::Cast(DType::BF16, 0), DType::F32);
    });
    let index = || strided([0, 64, 1], [1, 256, 64]);
    change(&|dot| {
        dot.lhs = load(0, DType::F16, index(), vec![Bound { index: Index::var(1), lo: 0, hi: 200 }]);
    });
    change(&|dot| dot.lhs = load(0, DType::F16, index().offset(2), vec![]));
    change(&|dot| dot.lhs = load(0, DType::F16, strided([0, 66, 1], [1, 256, 64]), vec![]));
    change(&|dot| dot.lhs = load(0, DType::F16, strided([0, 64, 2], [1, 256, 64]), vec![]));
    // The epilogue takes apart the words of what would be declared as quads.
    change(&|dot| {
        dot.epilogue = Body::default();
        let acc = dot.epilogue.push(Instr::Acc, DType::F32);
        let bias = dot.epilogue.load(1, DType::F16, Index::var(2));
        let sum = dot.epilogue.op(PointOp::Add, &[acc, bias], DType::F16);
        dot.epilogue.store(2, row_major(0, &[1, 256, 256]), sum);
    });
    // Extents that are no quads, or too few to fill a tile.
    for dims in [[1, 256, 62, 256], [1, 16, 64, 256], [1, 256, 64, 16], [1, 256, 16, 256], [1, 256, 0, 256]] {
        assert_eq!(on_matrices(&product(dims, [false, false], DType::F16), &auto), None, "{dims:?}");
    }
    // A device without matrices, without the memory for tiles, or whose schedule has no tiles.
    let dot = product(dims, [false, false], DType::F16);
    for other in [
        Target { matrix: None, ..auto.clone() },
        Target { max_workgroup_bytes: 8 << 10, ..auto.clone() },
        Target { max_invocations: 32, ..auto.clone() },
        target(Schedule::Plain),
    ] {
        assert_eq!(on_matrices(&dot, &other), None, "{other:?}");
    }
}

/// Sizes that tiles divide and sizes that they do not, along every axis, with several tiles of each.
const SIZES: [[usize; 4]; 6] =
    [[1, 64, 64, 64], [1, 128, 96, 128], [1, 100, 44, 76], [3, 68, 40, 132], [1, 1100, 36, 64], [2, 20, 12, 8]];

/// Kernels in all layouts and with several epilogues, with their tolerance.
fn kernels() -> Vec<(Dot, f64)> {
    let mut kernels: Vec<(Dot, f64)> = Vec::new();
    for (i, dims) in SIZES.into_iter().enumerate() {
        let results = if i % 2 == 0 { [DType::F32, DType::F16] } else { [DType::F16, DType::F32] };
        let layouts = if i % 3 == 0 { [[false, false], [true, true]] } else { [[false, true], [true, false]] };
        kernels.extend([0, 1].map(|n| (product(dims, layouts[n], results[n]), 0.0)));
    }
    kernels.push((with_epilogue([2, 76, 40, 72]), 1e-5));
    // Heads side by side: `[b, t, h, d]` as batch `(b, h)`, and keys turned.
    let (b, t, h, d) = (2, 40, 3, 32);
    let mut heads = product([b * h, t, d, t], [false, true], DType::F32);
    (heads.batch, heads.args[2]) = (vec![b, h], write(DType::F32, b * h * t * t));
    let head = |strides: [usize; 4], dims: [usize; 4]| {
        (0..4).fold(Index::default(), |sum, axis| sum.add(&Index::var(axis).scale(strides[axis] as i64), &dims))
    };
    heads.lhs = load(0, DType::F16, head([t * h * d, d, h * d, 1], [b, h, t, d]), vec![]);
    heads.rhs = load(1, DType::F16, head([t * h * d, d, 1, h * d], [b, h, d, t]), vec![]);
    heads.epilogue = plain(2, DType::F32, &[b, h, t, t]);
    kernels.push((heads, 0.0));
    kernels
}

#[test]
fn emitted_text_is_valid() {
    for (dot, _) in kernels() {
        for (size, subgroup) in [(16, 32), (16, 64), (8, 32), (8, 16)] {
            let matrix = Some(Matrix { size, subgroup });
            let shader = on_matrices(&dot, &Target { matrix, ..target(Schedule::Shared) }).unwrap();
            validate(&shader.wgsl);
        }
    }
}

#[test]
fn stand_ins_for_matrices_equal_the_oracle() {
    for (dot, tolerance) in kernels() {
        let shader = on_matrices(&dot, &target(Schedule::Shared)).unwrap();
        stand_in::check(&shader, &dot, &values(&dot), tolerance);
    }
}

#[test]
fn matrices_equal_the_oracle() {
    for schedule in [Schedule::Shared, Schedule::Auto] {
        let Some(device) = device(schedule) else { return };
        if device.target().matrix.is_none() {
            return println!("skipped: {} has no cooperative matrices", device.info());
        }
        let mut n_taken = 0;
        for (dot, tolerance) in kernels() {
            n_taken += on_matrices(&dot, device.target()).is_some() as usize;
            check_on(device, &Kernel::Dot(dot.clone()), &values(&dot), &[], tolerance);
        }
        assert!(n_taken >= if schedule == Schedule::Shared { kernels().len() } else { 8 }, "{n_taken} on matrices");
    }
}

/// A driver that lists matrices must have some that work, or the log says why.
#[test]
fn listed_matrices_work() {
    let Some(device) = device(Schedule::Auto) else { return };
    assert_eq!(device.target().matrix, device.info().matrix);
}
