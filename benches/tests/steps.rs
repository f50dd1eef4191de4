//! Whole training steps as counts of kernels, with and without every value on the way held.
//!
//! The device is a dry one: plans are made for the CPU backend and recorded, but no kernel runs.

use std::sync::Arc;

use kiln::graph::plan::PlanOptions;
use kiln::prelude::*;
use kiln_benches::counted::Counted;
use kiln_benches::models::{Block, Cnn, Gpt, GptSize, Mlp};
use kiln_cpu::CpuBackend;

fn dry() -> (Arc<Counted>, Device) {
    let counted = Arc::new(Counted::dry(Arc::new(CpuBackend::new())));
    (counted.clone(), Device::with_options(counted, PlanOptions::default()))
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

/// Kernels of the third step of training with AdamW, and the text of what it computes before the update.
fn training_step<M: Module>(
    mut model: M,
    counted: &Counted,
    clip: Option<f64>,
    loss: impl Fn(&M, &mut Vec<Tensor>) -> Tensor,
    named: bool,
) -> u64 {
    let mut opt = AdamW::new(1e-3).build(&model);
    let mut n_kernels = 0;
    for _ in 0..3 {
        let mut names = Vec::new();
        let loss = loss(&model, &mut names);
        let mut grads = loss.backward(&model);
        if let Some(max) = clip {
            grads = grads.clip_norm(max);
        }
        if named {
            names.extend(grads.iter().filter_map(|(_, grad)| grad.cloned()));
        } else {
            names.clear();
        }
        let before = counted.n_kernels();
        opt.step(&mut model, grads).unwrap();
        n_kernels = counted.n_kernels() - before;
    }
    n_kernels
}

#[test]
fn the_mlp_and_the_cnn() {
    for named in [false, true] {
        let (counted, device) = dry();
        let (x, y) = (leaf(&[128, 784], &device), leaf(&[128], &device).cast(DType::I32));
        let n = training_step(
            Mlp::new(&[784, 512, 512, 10], &device),
            &counted,
            None,
            |model: &Mlp, names| {
                let logits = model.forward(&x);
                names.push(logits.clone());
                logits.cross_entropy(&y)
            },
            named,
        );
        assert!(n <= 18, "MLP, named {named}: {n} kernels");
        let (x, y) = (leaf(&[64, 1, 28, 28], &device), leaf(&[64], &device).cast(DType::I32));
        let n = training_step(
            Cnn::new(&device),
            &counted,
            None,
            |model: &Cnn, names| {
                let logits = model.forward(&x);
                names.push(logits.clone());
                logits.cross_entropy(&y)
            },
            named,
        );
        assert!(n <= 32, "CNN, named {named}: {n} kernels");
    }
}

#[test]
fn a_block_of_gpt2() {
    let (_, device) = dry();
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
    let (counted, device) = dry();
    let model = Gpt::new(GptSize { vocab: 50257, context: 1024, dim: 768, n_heads: 12, n_blocks: 12 }, &device);
    device.eval().unwrap();
    let grads: Vec<(String, Tensor)> =
        model.params().into_iter().map(|(name, p)| (name, leaf(p.dims(), &device))).collect();
    let large = grads.iter().filter(|(_, g)| g.rank() > 1).count() as u64;
    for named in [false, true] {
        let mut model = Gpt::new(GptSize { vocab: 50257, context: 1024, dim: 768, n_heads: 12, n_blocks: 12 }, &device);
        let mut opt = AdamW::new(1e-3).weight_decay(0.1).build(&model);
        let mut n = 0;
        for _ in 0..2 {
            let grads = Grads::from_fn(&model, |name, _| grads.iter().find(|(n, _)| n == name).map(|(_, g)| g.clone()));
            let grads = grads.clip_norm(1.0);
            let held: Vec<Tensor> = grads.iter().filter_map(|(_, g)| g.cloned()).filter(|_| named).collect();
            let before = counted.n_kernels();
            opt.step(&mut model, grads).unwrap();
            drop(held);
            n = counted.n_kernels() - before;
        }
        assert!(n <= 2 * large + 4, "{n} kernels for {large} large tensors, named {named}");
    }
}
