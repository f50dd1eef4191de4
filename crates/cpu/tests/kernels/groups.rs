//! Several independent loops as one kernel.

use kiln_ir::kernel::Loop;
use kiln_ir::{DType, Kernel, ReduceOp};

use crate::common::{Rng, check, flat, reduction};

#[test]
fn loops_of_unlike_sizes_run_as_one() {
    let mut rng = Rng::new(5);
    // The largest is worth several threads by itself, the others are not.
    let sizes = [(3, 5), (1, 1), (700, 300), (0, 4), (17, 129), (64, 2)];
    let mut args = Vec::new();
    let mut loops = Vec::new();
    for (first, (outer, row)) in (0u32..).step_by(2).zip(sizes) {
        let index = flat(&[outer, row]);
        let Kernel::Loop(mut k) = reduction(ReduceOp::Sum, DType::F32, &[outer], &[row], index) else { unreachable!() };
        k.body.map_args(&|arg| arg + first);
        args.append(&mut k.args);
        loops.push(k);
    }
    let values: Vec<Vec<f64>> = args.iter().map(|arg| rng.values(arg.dtype, arg.numel)).collect();
    let kernel = Kernel::Group(loops.into_iter().map(|k| Loop { args: args.clone(), ..k }).collect());
    check("group", &kernel, &values, &[], 1e-5);
}
