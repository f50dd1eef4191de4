//! Several independent loops in one dispatch: of unlike sizes, with and without rows, narrow and empty ones.

use kiln_device::emit::{Schedule, Target, emit};
use kiln_ir::kernel::{Arg, Body, Loop};
use kiln_ir::{DType, Kernel, PointOp};

use crate::harness::{Steps, check, numbers, read, row_major, write};
use crate::rows::softmax_kernel;

/// Loops over arguments of their own as one kernel.
pub(crate) fn group(kernels: Vec<Kernel>) -> Kernel {
    let args: Vec<Arg> = kernels.iter().flat_map(|k| k.args().to_vec()).collect();
    let mut first = 0;
    let loops = kernels.into_iter().map(|kernel| {
        let Kernel::Loop(mut k) = kernel else { unreachable!("a group is of loops") };
        k.body.map_args(&|arg| arg + first);
        first += k.args.len() as u32;
        Loop { args: args.clone(), ..k }
    });
    Kernel::Group(loops.collect())
}

/// `x · scalar`.
fn scaled(n: usize, dtype: DType) -> Kernel {
    let mut body = Body::default();
    let x = body.load(0, dtype, row_major(0, &[n]));
    let scalar = body.push(kiln_ir::kernel::Instr::Scalar(DType::F32, 0), DType::F32);
    let y = body.op(PointOp::Mul, &[x, scalar], DType::F32);
    body.store(1, row_major(0, &[n]), y);
    Kernel::Loop(Loop { outer: vec![n], row: vec![], args: vec![read(dtype, n), write(dtype, n)], body })
}

#[test]
fn unlike_loops_share_a_dispatch() {
    let kernels = vec![
        scaled(1000, DType::F32),
        softmax_kernel(5, 300, DType::F32, false),
        scaled(7, DType::F16),
        scaled(0, DType::F32),
        softmax_kernel(40, 9, DType::F16, false),
        scaled(1, DType::F32),
        softmax_kernel(2, 33, DType::F32, true),
    ];
    let kernel = group(kernels);
    let value = |(n, arg): (usize, &Arg)| numbers(n as u32, arg.numel, arg.dtype, (-4.0, 4.0));
    let args: Vec<Vec<f64>> = kernel.args().iter().enumerate().map(value).collect();
    check(&kernel, &args, &[(DType::F32, 1.5)], 3e-5);
}

#[test]
fn more_workgroups_than_a_dispatch_has_are_refused() {
    let target = Target { max_workgroups: 7, ..Target::default() };
    let kernel = group(vec![scaled(4000, DType::F32), scaled(4000, DType::F32)]);
    assert!(emit(&kernel, &target).is_err());
    let target = Target { schedule: Schedule::Shared, max_workgroups: 8, ..target };
    assert_eq!(emit(&kernel, &target).map(|s| s.workgroups), Ok(8));
}
