//! Whole training steps as plans: how many kernels, with and without every value on the way held, and how much memory.

mod weightless;

use kiln::prelude::*;
use kiln_benches::models::{Block, Cnn, Gpt, GptSize, Mlp, gelu_tanh};
use kiln_benches::rows::ROWS;

use weightless::{device, large_gpu};

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

/// The same block as a user writes it who names every value.
#[test]
fn a_block_of_gpt2_with_every_value_named() {
    let device = device();
    let linear = |n_in: usize, n_out: usize| Linear::new(n_in, n_out, &device);
    let (norm1, norm2) = (LayerNorm::new(768, &device), LayerNorm::new(768, &device));
    let (qkv, out, up, down) = (linear(768, 2304), linear(768, 768), linear(768, 3072), linear(3072, 768));
    device.eval().unwrap();
    let (x, g) = (leaf(&[2, 64, 768], &device), leaf(&[2, 64, 768], &device));
    let a = norm1.forward(&x);
    let b = qkv.forward(&a);
    let split = b.reshape(&[2, 64, 3, 12, 64]).permute(&[2, 0, 3, 1, 4]);
    let [q, k, v] = [0, 1, 2].map(|n| split.slice(0, n..n + 1).squeeze(0));
    let c = q.scaled_dot_product_attention(&k, &v, None, true);
    let d = c.transpose(1, 2).reshape(&[2, 64, 768]);
    let e = out.forward(&d);
    let x1 = &x + &e;
    let f = norm2.forward(&x1);
    let h = up.forward(&f);
    let i = gelu_tanh(&h);
    let j = down.forward(&i);
    let y = &x1 + &j;
    assert!(pending(&device) <= 7, "forward:\n{}", device.explain());
    let layers: [&dyn Module; 6] = [&norm1, &norm2, &qkv, &out, &up, &down];
    let params: Vec<&Tensor> = layers.iter().flat_map(|l| l.params()).map(|(_, p)| p.tensor()).collect();
    let grads = y.vjp(&g, &[&[&x], params.as_slice()].concat());
    assert!(grads.iter().all(Option::is_some));
    assert!(pending(&device) <= 32, "forward and backward:\n{}", device.explain());
    println!("{} kernels forward and backward", pending(&device));
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

/// A pipeline takes a driver 10 ms and more, so what a first step waits for is their number. Layers alike share theirs.
#[test]
fn a_first_step_makes_few_pipelines() {
    for (name, at_most) in [("train_mnist_mlp_b128", 20), ("train_gpt2_124m_b4x512", 60)] {
        let (backend, device) = large_gpu();
        let row = ROWS.iter().find(|row| row.name == name).unwrap();
        let mut case = (row.make)(&device).unwrap();
        let before = backend.n_pipelines();
        (case.step)().unwrap();
        let first = backend.n_pipelines();
        (0..3).for_each(|_| (case.step)().unwrap());
        let n = backend.n_pipelines();
        println!("{name}: {before} pipelines before the first step, {} in it, {} later", first - before, n - first);
        assert!(n <= at_most, "{name}: {n} pipelines");
    }
}

/// A block reads its input once or twice, not what all blocks before it have added to it.
#[test]
fn the_blocks_of_gpt2_share_kernels_and_move_no_more_the_deeper_they_lie() {
    let moved = |n_blocks: usize| {
        let (backend, device) = large_gpu();
        let size = GptSize { vocab: 512, context: 64, dim: 256, n_heads: 4, n_blocks };
        let model = Gpt::new(size, &device);
        let [x, y] = [(); 2].map(|()| leaf(&[4, 64], &device).cast(DType::I32));
        training_step(model, &device, |model, _| model.forward(&x).cross_entropy(&y), false);
        let plan = device.last_plan().unwrap();
        let args = plan.steps.iter().flat_map(|step| step.kernel.args());
        (args.map(|arg| device.caps().bytes(arg.dtype, arg.numel)).sum::<u64>(), backend.n_pipelines())
    };
    let [(four, _), (eight, few), (twelve, more)] = [4, 8, 12].map(moved);
    let [nearer, farther] = [eight - four, twelve - eight];
    assert!(farther as f64 <= 1.05 * nearer as f64, "four blocks more move {nearer} bytes, then {farther}");
    assert!(more <= few + 8, "{few} pipelines for eight blocks, {more} for twelve");
}
