//! Whole training steps as plans: how many kernels, with and without every value on the way held, and how much memory.

mod weightless;

use kiln::prelude::*;
use kiln_benches::models::{Block, Cnn, Gpt, GptSize, Mlp};
use kiln_benches::rows::ROWS;

use weightless::device;

/// Kernels of the plan that ran last.
fn n_kernels(device: &Device) -> usize {
    device.last_plan().map_or(0, |plan| plan.steps.len())
}

fn leaf(dims: &[usize], device: &Device) -> Tensor {
    let t = Tensor::zeros(dims, device).detach();
    device.eval().unwrap();
    t
}

/// Kernels of what this thread holds pending.
fn pending(device: &Device) -> usize {
    let plan = device.explain();
    plan.lines().last().and_then(|l| l.split(' ').next()?.parse().ok()).unwrap()
}

/// Kernels of the third step of training with AdamW.
fn training_step<M: Module>(
    mut model: M,
    device: &Device,
    loss: impl Fn(&M, &mut Vec<Tensor>) -> Tensor,
    named: bool,
) -> usize {
    let mut opt = AdamW::new(1e-3).build(&model);
    for _ in 0..3 {
        let mut names = Vec::new();
        let loss = loss(&model, &mut names);
        let grads = loss.backward(&model);
        names.extend(grads.iter().filter_map(|(_, grad)| grad.cloned()));
        if !named {
            names.clear();
        }
        opt.step(&mut model, grads).unwrap();
    }
    n_kernels(device)
}

#[test]
fn the_mlp_and_the_cnn() {
    for named in [false, true] {
        let device = device();
        let (x, y) = (leaf(&[128, 784], &device), leaf(&[128], &device).cast(DType::I32));
        let mlp = |model: &Mlp, names: &mut Vec<Tensor>| {
            let logits = model.forward(&x);
            names.push(logits.clone());
            logits.cross_entropy(&y)
        };
        let n = training_step(Mlp::new(&[784, 512, 512, 10], &device), &device, mlp, named);
        assert!(n <= 18, "MLP, named {named}: {n} kernels");
        let (x, y) = (leaf(&[64, 1, 28, 28], &device), leaf(&[64], &device).cast(DType::I32));
        let cnn = |model: &Cnn, names: &mut Vec<Tensor>| {
            let logits = model.forward(&x);
            names.push(logits.clone());
            logits.cross_entropy(&y)
        };
        let n = training_step(Cnn::new(&device), &device, cnn, named);
        assert!(n <= 32, "CNN, named {named}: {n} kernels");
    }
}

#[test]
fn a_block_of_gpt2() {
    let device = device();
    let block = Block::new(768, 12, &device);
    device.eval().unwrap();
    let (x, g) = (leaf(&[2, 64, 768], &device), leaf(&[2, 64, 768], &device));
    let y = block.forward(&x);
    assert!(pending(&device) <= 7, "forward:\n{}", device.explain());
    let params = block.params();
    let wrt: Vec<&Tensor> = std::iter::once(&x).chain(params.iter().map(|(_, p)| p.tensor())).collect();
    let grads = y.vjp(&g, &wrt);
    assert!(grads.iter().all(Option::is_some));
    assert!(pending(&device) <= 32, "forward and backward:\n{}", device.explain());
}

#[test]
fn adamw_with_clipping_over_all_of_gpt2() {
    let device = device();
    let mut model = Gpt::new(GptSize { vocab: 50257, context: 1024, dim: 768, n_heads: 12, n_blocks: 12 }, &device);
    let mut opt = AdamW::new(1e-3).weight_decay(0.1).build(&model);
    let all: Vec<(String, Tensor)> = model.params().into_iter().map(|(n, p)| (n, leaf(p.dims(), &device))).collect();
    let n_large = all.iter().filter(|(_, g)| g.rank() > 1).count();
    for named in [false, true] {
        for _ in 0..2 {
            let find = |name: &str| all.iter().find(|(n, _)| n == name).map(|(_, g)| g.clone());
            let grads = Grads::from_fn(&model, |name, _| find(name)).clip_norm(1.0);
            let held: Vec<Tensor> = grads.iter().filter_map(|(_, g)| g.cloned()).filter(|_| named).collect();
            opt.step(&mut model, grads).unwrap();
            drop(held);
        }
        let n = n_kernels(&device);
        assert!(n <= 2 * n_large + 4, "{n} kernels for {n_large} large tensors, named {named}");
    }
}

#[test]
fn memory_is_near_what_must_live_at_once() {
    for row in ROWS.iter().filter(|row| row.name.starts_with("train_")) {
        let device = device();
        let mut case = (row.make)(&device).unwrap();
        (0..3).for_each(|_| (case.step)().unwrap());
        let plan = device.last_plan().unwrap();
        let (peak, least) = (plan.peak_bytes(), plan.least_bytes());
        println!("{}: {} kernels, {peak} bytes, at least {least}", row.name, plan.steps.len());
        assert!(peak as f64 <= 1.1 * least as f64, "{}: {peak} bytes, {least} live at once", row.name);
    }
}
