//! Optimizers move parameters as PyTorch's do.

use kiln_graph::{Device, Tensor};
use kiln_ir::DType;
use kiln_nn::{AdamW, Backward, Linear, Module, Optimizer, Param, Rule, Sgd};

use crate::{CPU, assert_close, reference, wave};

#[derive(Module)]
#[module(crate = "kiln_nn")]
struct One {
    p: Param,
}

/// Four steps down `Σ wave(t) p²`, beside those of the reference.
fn check<R: Rule>(build: impl FnOnce(&One) -> Optimizer<R>, expected: &[f64]) {
    let mut model = One { p: Param::new(wave(1.0, &[4], 1.0).cast(DType::F32)) };
    let mut opt = build(&model);
    let mut seen = Vec::new();
    for t in 0..4 {
        let loss = (wave(f64::from(t), &[4], 1.0).cast(DType::F32) * model.p.square()).sum_all();
        let grads = loss.backward(&model);
        opt.step(&mut model, grads).unwrap();
        seen.push(model.p.cast(DType::F64).detach());
        CPU.eval().unwrap();
    }
    assert_close(&seen.iter().collect::<Vec<_>>(), expected);
}

#[test]
fn adamw() {
    check(|m| AdamW::new(0.1).betas(0.8, 0.9).eps(1e-6).weight_decay(0.05).build(m), reference::ADAMW);
}

#[test]
fn sgd() {
    check(|m| Sgd::new(0.1).build(m), reference::SGD);
    check(|m| Sgd::new(0.1).momentum(0.9).weight_decay(0.01).build(m), reference::SGD_MOMENTUM);
    check(|m| Sgd::new(0.1).momentum(0.9).nesterov().build(m), reference::SGD_NESTEROV);
}

#[test]
fn clipping_bounds_the_common_norm() {
    let model = Linear::new(3, 2, &CPU);
    let grads = || model.weight.square().sum_all() * 50.0 + model.bias.as_ref().unwrap().square().sum_all();
    let norm = |max: f64| grads().backward(&model).clip_norm(max).norm().unwrap().item().unwrap();
    assert!((norm(1.0) - 1.0).abs() < 1e-4);
    let whole = grads().backward(&model).norm().unwrap().item().unwrap();
    assert!((norm(1e6) - whole).abs() < 1e-3 * whole, "a small norm stays");
}

#[test]
fn sums_of_gradients_are_gradients_of_sums() {
    let model = Linear::new(3, 2, &CPU);
    let loss = |k: f64| (model.weight.tensor() * wave(k, &[2, 3], 1.0).cast(DType::F32)).sum_all();
    let parts = loss(1.0).backward(&model) + loss(2.0).backward(&model);
    let whole = (loss(1.0) + loss(2.0)).backward(&model);
    let [a, b] = [&parts, &whole].map(|g| g.get("weight").unwrap().to_vec::<f32>().unwrap());
    assert!(a.iter().zip(&b).all(|(a, b)| (a - b).abs() < 1e-6));
    assert_eq!(parts.missing(), ["bias"]);
}

#[test]
fn a_step_for_which_memory_is_short_says_so_and_loses_nothing() {
    let device = Device::new(kiln_cpu::CpuBackend::new());
    let mut model = Linear::new(2, 2, &device);
    let mut opt = Sgd::new(0.1).build(&model);
    // More memory than any machine has.
    let huge = Tensor::ones(&[1 << 24, 1 << 24], &device).detach();
    let before = model.weight.to_vec::<f32>().unwrap();
    let grads = model.weight.sum_all().backward(&model);
    let error = opt.step(&mut model, grads).unwrap_err();
    assert!(error.is_out_of_memory(), "{error}");
    assert!(format!("{}", huge).starts_with("<failed: "), "{huge}");
    drop(huge);
    device.eval().unwrap();
    let after = model.weight.to_vec::<f32>().unwrap();
    assert!(before.iter().zip(&after).all(|(b, a)| (b - 0.1 - a).abs() < 1e-6), "{before:?} and {after:?}");
}
