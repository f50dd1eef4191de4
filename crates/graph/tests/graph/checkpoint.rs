//! Checkpoints: the same gradients from less memory.

use kiln_graph::{Conv2dOptions, Device, Tensor, checkpoint, manual_seed};
use kiln_ir::DType;

use crate::stream::Stream;

const DIM: usize = 32;
const ROWS: usize = 256;

fn leaf(seed: u32, dims: &[usize], device: &Device) -> Tensor {
    let values = Stream(seed, 0).values(dims.iter().product(), -0.3, 0.3);
    Tensor::from_f64(&values, dims, DType::F32, device).unwrap()
}

/// Two products with a norm before and a mask after them.
fn block(x: &Tensor, [up, down]: &[Tensor; 2]) -> Tensor {
    let hidden = x.normalize(1e-5).matmul(up).gelu();
    let kept = Tensor::bernoulli(hidden.dims(), 0.8, x.device());
    let zero = Tensor::zeros(&[], x.device());
    x + kept.select(&hidden, &zero).matmul(down)
}

/// The gradients of eight blocks, the peak of the program, and how many products it has.
fn run(checkpointed: bool) -> (Vec<Vec<f32>>, u64, usize) {
    manual_seed(4);
    let device = Device::new(kiln_cpu::CpuBackend::new());
    let weights: Vec<[Tensor; 2]> =
        (0..8).map(|n| [leaf(2 * n, &[DIM, 4 * DIM], &device), leaf(2 * n + 1, &[4 * DIM, DIM], &device)]).collect();
    let x = leaf(99, &[ROWS, DIM], &device);
    let y = weights.iter().fold(x.clone(), |x, w| match checkpointed {
        true => checkpoint(|| block(&x, w)),
        false => block(&x, w),
    });
    let wrt: Vec<&Tensor> = weights.iter().flatten().chain([&x]).collect();
    let grads = y.square().mean_all().grad(&wrt);
    drop(y);
    device.eval().unwrap();
    let plan = device.last_plan().unwrap();
    let products = plan.steps.iter().filter(|s| s.name.starts_with("dot")).count();
    let grads = grads.into_iter().map(|g| g.unwrap().to_vec::<f32>().unwrap()).collect();
    (grads, plan.peak_bytes(), products)
}

#[test]
fn a_checkpoint_changes_memory_and_nothing_else() {
    let ((kept, peak, products), (again, peak_again, products_again)) = (run(false), run(true));
    assert!(kept == again, "equal to the bit, masks included");
    // Within a block only the hidden layers are as large as four inputs; of eight blocks one is alive.
    assert!(peak_again * 2 < peak, "{peak_again} bytes with checkpoints, {peak} without");
    assert_eq!(products_again, products + 8, "the last product of a block has no part in its gradient");
}

#[test]
fn checkpoints_nest_and_hold_convolutions() {
    let device = Device::new(kiln_cpu::CpuBackend::new());
    let (image, weight) = (leaf(1, &[2, 3, 6, 6], &device), leaf(2, &[3, 3, 3, 3], &device));
    let options = Conv2dOptions { padding: [1, 1], ..Conv2dOptions::default() };
    let layer = |x: &Tensor| x.tanh().conv2d(&weight, options);
    let grads = |y: Tensor| -> Vec<Vec<f32>> {
        y.square().sum_all().grad(&[&image, &weight]).into_iter().map(|g| g.unwrap().to_vec::<f32>().unwrap()).collect()
    };
    let plain = grads(layer(&layer(&image)));
    assert_eq!(grads(checkpoint(|| layer(&checkpoint(|| layer(&image))))), plain);
    assert_eq!(grads(checkpoint(|| layer(&layer(&image)))), plain);
    let second = |y: Tensor| {
        let first = y.sum_all().grad(&[&image]).remove(0).unwrap();
        grads(first)
    };
    assert_eq!(second(checkpoint(|| layer(&image))), second(layer(&image)));
}
