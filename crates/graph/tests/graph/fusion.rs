//! What must come out of fusion, as counts of kernels, each also with every value on the way held.

use kiln_graph::{Conv2dOptions, Tensor};
use kiln_ir::DType;

use crate::common::{CPU, golden};

/// The number of kernels that a tensor takes.
fn n_kernels(t: &Tensor) -> usize {
    t.explain().lines().last().and_then(|l| l.split(' ').next()?.parse().ok()).unwrap()
}

fn leaf(dims: &[usize]) -> Tensor {
    Tensor::from_f64(&vec![0.5; dims.iter().product()], dims, DType::F32, &CPU).unwrap()
}

#[track_caller]
fn check(name: &str, t: &Tensor, at_most: usize) {
    assert!(n_kernels(t) <= at_most, "{name}:\n{}", t.explain());
}

#[test]
fn a_chain_of_pointwise_ops_is_one_kernel() {
    let (x, y) = (leaf(&[6, 8]), leaf(&[8]));
    let a = x.exp() * &y + 1.0;
    let b = a.t().slice(0, 1..5).flip(1).pad(0, 1, 2);
    let c = b.round().cast(DType::I32).lt(3.0);
    let d = c.select(&b, &b.tanh()).floor().reshape(&[42]).expand(&[3, 42]);
    // Held values that live on other points than the last one each take a kernel to be stored by.
    check("named", &d, 3);
    drop((a, b));
    check("its mask is held", &d, 2);
    drop(c);
    check("nothing is held", &d, 1);
    check("bool", &x.gt(&x.abs()).logical_not().logical_or(x.eq(1.0)).cast(DType::F32), 1);
    let unnamed = ((x.exp() * &y + 1.0).t().slice(0, 1..5).flip(1).pad(0, 1, 2).round() * 2.0).sigmoid();
    check("unnamed", &unnamed, 1);
}

#[test]
fn rows_are_one_kernel() {
    for dims in [&[8usize][..], &[6, 8], &[2, 3, 8], &[2, 3, 2, 8]] {
        let x = leaf(dims);
        for axis in 0..dims.len() as isize {
            check("softmax", &x.softmax(axis), 1);
            check("log_softmax", &x.log_softmax(axis), 1);
        }
        let (weight, bias) = (leaf(&[8]), leaf(&[8]));
        check("layer norm", &(x.normalize(1e-5) * &weight + &bias), 1);
        check("rms norm", &(&x * (x.square().mean_keepdim(&[-1]) + 1e-5).rsqrt() * &weight), 1);
        let (max, e) = (x.amax_keepdim(&[-1]), (&x - x.amax_keepdim(&[-1])).exp());
        let y = &e / e.sum_keepdim(&[-1]);
        check("softmax, named", &y, 1);
        drop(max);
    }
}

#[test]
fn epilogues_join_their_contraction() {
    let (x, w, b) = (leaf(&[16, 32]), leaf(&[32, 24]), leaf(&[24]));
    check("linear", &((x.matmul(&w) + &b).gelu() + leaf(&[16, 24])), 1);
    let (product, residual) = (x.matmul(&w), leaf(&[16, 24]));
    let activated = (&product + &b).gelu();
    check("linear, named", &(&activated + &residual), 1);
    let (image, kernel) = (leaf(&[2, 3, 8, 8]), leaf(&[4, 3, 3, 3]));
    let options = Conv2dOptions { padding: [1, 1], ..Conv2dOptions::default() };
    let bias = leaf(&[4]).reshape(&[4, 1, 1]);
    check("conv", &(image.conv2d(&kernel, options) + &bias).relu(), 1);
    let heads = x.matmul(&w).reshape(&[16, 4, 6]).permute(&[1, 0, 2]);
    check("a transposed result", &(heads * 2.0), 1);
}

#[test]
fn losses() {
    let (logits, target) = (leaf(&[64, 10]), Tensor::new(&[1i32; 64], &[64], &CPU).unwrap());
    let loss = logits.cross_entropy(&target);
    check("cross entropy, and the mean of the batch", &loss, 2);
    check("its gradient", &loss.grad(&[&logits])[0].clone().unwrap(), 2);
}

#[test]
fn plans_are_as_blessed() {
    let (x, w, b) = (leaf(&[16, 32]), leaf(&[32, 10]), leaf(&[10]));
    let target = Tensor::new(&[1i32; 16], &[16], &CPU).unwrap();
    let loss = (x.matmul(&w) + &b).cross_entropy(&target);
    let step = &w - loss.grad(&[&w])[0].as_ref().unwrap() * 0.1;
    // Source lines move; what is computed does not.
    let plan: String = step.explain().lines().map(|l| l.split("  at ").next().unwrap().to_owned() + "\n").collect();
    golden("plan_linear_step.txt", &plan);
}
