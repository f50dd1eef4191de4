//! Training runs that must agree: devices with each other, threads to the bit, steps with the first one's plan.

use kiln::data::Images;
use kiln::prelude::*;

use crate::common::{CPU, gpu};

#[derive(Module)]
struct Net {
    conv: Conv2d,
    norm: BatchNorm2d,
    dropout: Dropout,
    fc: Linear,
}

impl Net {
    fn new(device: &Device) -> Net {
        Net {
            conv: Conv2d::new(1, 8, 3, device).padding(1),
            norm: BatchNorm2d::new(8, device),
            dropout: Dropout::new(0.2),
            fc: Linear::new(8 * 16, 10, device),
        }
    }

    fn forward(&self, x: &Tensor) -> Tensor {
        let x = self.norm.forward(&self.conv.forward(x)).relu();
        let x = MaxPool2d::new(2).forward(&x).flatten(1);
        self.fc.forward(&self.dropout.forward(&x))
    }
}

/// The losses of some steps on the digits, and the test accuracy after them.
fn run(device: &Device, n_steps: usize) -> (Vec<f64>, f64) {
    manual_seed(3);
    let (train, test) = kiln::data::digits(3);
    let (mean, std) = train.mean_std();
    let batches = |set: &Images| set.batches(48).normalised(mean, std);
    let mut model = Net::new(device);
    let mut opt = AdamW::new(Schedule::cosine(5e-3, 400).warmup(5)).build(&model);
    let mut losses = Vec::new();
    let epochs = (0..).flat_map(|epoch| batches(&train).shuffled(1).epoch(epoch).on(device));
    for batch in epochs.take(n_steps) {
        let batch = batch.unwrap();
        let loss = model.forward(&batch.x).cross_entropy(&batch.y);
        let grads = loss.backward(&model).clip_norm(1.0);
        opt.step(&mut model, grads).unwrap();
        losses.push(loss.item().unwrap());
    }
    model.train(false);
    let mut confusion = ConfusionMatrix::new(10);
    for batch in batches(&test).epoch(0).on(device) {
        let batch = batch.unwrap();
        let predicted = model.forward(&batch.x).argmax(-1);
        confusion.extend(&batch.y.to_vec().unwrap(), &predicted.to_vec().unwrap());
    }
    (losses, confusion.accuracy())
}

#[test]
fn the_cpu_learns() {
    let (losses, accuracy) = run(&CPU, 120);
    assert!(losses[0] > 2.0 && losses[119] < 0.35, "{losses:?}");
    assert!(accuracy > 0.93, "{accuracy}");
}

#[test]
fn a_gpu_follows_the_cpu() {
    let Some(gpu) = gpu() else { return };
    let ((cpu, _), (gpu, _)) = (run(&CPU, 20), run(gpu, 20));
    for (step, (a, b)) in cpu.iter().zip(&gpu).enumerate() {
        assert!((a - b).abs() < 1e-4, "step {step}: {a} on the CPU, {b} on the GPU");
    }
}

/// Losses of steps on the digits that are recorded once.
fn run_jitted(device: &Device, n_steps: usize) -> Vec<f64> {
    manual_seed(3);
    let (train, _) = kiln::data::digits(3);
    let (mean, std) = train.mean_std();
    let model = Net::new(device);
    let opt = AdamW::new(Schedule::cosine(5e-3, 400).warmup(5)).build(&model);
    let mut state = (model, opt);
    let mut step = jit(|(model, opt): &mut (Net, Optimizer<AdamW>), (x, y): (Tensor, Tensor)| {
        let loss = model.forward(&x).cross_entropy(&y);
        let grads = loss.backward(model).clip_norm(1.0);
        opt.step(model, grads)?;
        Ok(loss)
    });
    let batches = train.batches(48).normalised(mean, std).shuffled(1);
    let epochs = (0..).flat_map(|epoch| batches.clone().epoch(epoch).on(device)).take(n_steps);
    epochs.map(|batch| batch.and_then(|b| step.call(&mut state, (b.x, b.y))?.item()).unwrap()).collect()
}

#[test]
fn a_jitted_step_follows_a_recorded_one() {
    let plain = run(&CPU, 20).0;
    assert_eq!(run_jitted(&CPU, 20), plain);
    let Some(gpu) = gpu() else { return };
    for (step, (a, b)) in plain.iter().zip(run_jitted(gpu, 20)).enumerate() {
        assert!((a - b).abs() < 1e-4, "step {step}: {a} on the CPU, {b} on the GPU");
    }
}

#[test]
fn a_warm_loop_on_a_gpu_makes_nothing() {
    if gpu().is_none() {
        return;
    }
    let backend = std::sync::Arc::new(kiln_device::WgpuBackend::gpu(0, kiln_device::Options::default()).unwrap());
    let device = Device::with_options(backend.clone(), kiln::graph::plan::PlanOptions::default());
    let mut model = Net::new(&device);
    let mut opt = AdamW::new(1e-3).build(&model);
    let (x, y) = (Tensor::rand(&[8, 1, 8, 8], &device), Tensor::iota(&[8], 0, &device).detach());
    device.eval().unwrap();
    let mut warm = None;
    for step in 0..60 {
        let loss = model.forward(&x).cross_entropy(&y);
        let grads = loss.backward(&model);
        opt.step(&mut model, grads).unwrap();
        if step % 5 == 0 {
            loss.item().unwrap();
        }
        if step == 25 {
            warm = Some(backend.made());
        }
    }
    assert_eq!(Some(backend.made()), warm);
}

#[test]
fn threads_do_not_change_a_bit() {
    let losses: Vec<Vec<u64>> = [1, 2, 3]
        .map(|n| run(&Device::new(kiln_cpu::CpuBackend::with_threads(n)), 25).0.iter().map(|l| l.to_bits()).collect())
        .to_vec();
    assert!(losses[0] == losses[1] && losses[1] == losses[2]);
}

#[test]
fn after_two_steps_nothing_is_compiled() {
    let device = Device::cpu();
    manual_seed(5);
    let mut model = Net::new(&device);
    // The learning rate, the mask's seed and the bias corrections change each step.
    let mut opt = AdamW::new(Schedule::linear(1e-2, 50).warmup(10)).build(&model);
    let mut warm = None;
    for step in 0..40 {
        let x = Tensor::new(&vec![step as f32 / 10.0; 4 * 64], &[4, 1, 8, 8], &device).unwrap();
        let y = Tensor::new(&[1i32, 2, 3, step % 10], &[4], &device).unwrap();
        let loss = model.forward(&x).cross_entropy(&y);
        let grads = loss.backward(&model);
        opt.step(&mut model, grads).unwrap();
        if step == 1 {
            warm = Some(device.compilations());
        }
    }
    assert_eq!(Some(device.compilations()), warm);
}

#[test]
fn a_step_updates_in_place() {
    let device = Device::cpu();
    let mut model = Linear::new(300, 200, &device);
    let mut opt = AdamW::new(1e-2).build(&model);
    let x = Tensor::ones(&[8, 300], &device).detach();
    device.eval().unwrap();
    for _ in 0..3 {
        let grads = model.forward(&x).square().mean_all().backward(&model);
        opt.step(&mut model, grads).unwrap();
    }
    let grads = model.forward(&x).square().mean_all().backward(&model);
    let before = model.weight.tensor().clone();
    let plan = {
        let mut rest = Linear { weight: Param::new(before), bias: None };
        std::mem::swap(&mut rest, &mut model);
        drop(rest);
        (model.weight.tensor() - grads.get("weight").unwrap() * 0.1).explain()
    };
    assert!(plan.contains("results of which 0 in place"), "the model still holds its weight:\n{plan}");
}
