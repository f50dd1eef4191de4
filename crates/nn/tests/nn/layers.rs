//! Every layer's values and gradients, beside PyTorch's.

use kiln_graph::{Conv2dOptions, Tensor, manual_seed};
use kiln_ir::DType;
use kiln_nn::{
    AvgPool2d, Backward, BatchNorm2d, Conv2d, Dropout, Embedding, Flatten, Gelu, Layer, LayerNorm, Linear, MaxPool2d,
    Module, Relu, State,
};

use crate::{CPU, assert_close, filled, reference, wave};

/// Checks the output for `x`, and the gradients of `Σ y · wave(9)` by the input and by each parameter.
#[track_caller]
fn check(layer: &impl Layer, x: &Tensor, expected: &[f64], expected_grads: &[f64]) {
    let y = layer.forward(x);
    assert_close(&[&y], expected);
    let loss = (&y * wave(9.0, y.dims(), 1.0)).sum_all();
    let mut grads: Vec<Tensor> = Vec::new();
    if x.dtype().is_float() {
        grads.extend(loss.grad(&[x]).remove(0));
    }
    if !layer.params().is_empty() {
        grads.extend(loss.backward(layer).iter().map(|(name, grad)| grad.expect(name).clone()));
    }
    assert_close(&grads.iter().collect::<Vec<_>>(), expected_grads);
}

#[test]
fn linear() {
    check(&filled(Linear::new(3, 4, &CPU)), &wave(0.0, &[2, 3], 1.0), reference::LINEAR, reference::LINEAR_GRADS);
}

#[test]
fn conv2d() {
    let options = Conv2dOptions { stride: [2, 2], padding: [1, 1], groups: 2, ..Conv2dOptions::default() };
    let layer = filled(Conv2d::with_options(4, 6, [3, 3], options, &CPU));
    check(&layer, &wave(0.0, &[2, 4, 5, 6], 1.0), reference::CONV, reference::CONV_GRADS);
}

#[test]
fn layer_norm() {
    let layer = filled(LayerNorm::new(5, &CPU));
    check(&layer, &wave(0.0, &[3, 5], 1.0), reference::LAYER_NORM, reference::LAYER_NORM_GRADS);
}

#[test]
fn embedding() {
    let index = Tensor::new(&[1i32, 3, 1, 0, 4, 4], &[2, 3], &CPU).unwrap();
    check(&filled(Embedding::new(5, 2, &CPU)), &index, reference::EMBEDDING, reference::EMBEDDING_GRADS);
}

#[test]
fn batch_norm() {
    let mut layer = filled(BatchNorm2d::new(3, &CPU));
    let f64s = |value: f64| State::new(Tensor::full(&[3], value, DType::F64, &CPU));
    (layer.running_mean, layer.running_var) = (f64s(0.0), f64s(1.0));
    // The check's one forward pass moves the running statistics once.
    check(&layer, &wave(0.0, &[4, 3, 2, 2], 1.0), reference::BATCH_NORM, reference::BATCH_NORM_GRADS);
    assert_close(&[&layer.running_mean.get(), &layer.running_var.get()], reference::BATCH_NORM_RUNNING);
    layer.train(false);
    assert_close(&[&layer.forward(&wave(2.0, &[4, 3, 2, 2], 1.0))], reference::BATCH_NORM_EVAL);
}

#[test]
fn pools_and_activations() {
    let image = wave(0.0, &[1, 2, 3, 4], 1.0);
    check(&MaxPool2d::new(2).stride(1), &image, reference::MAX_POOL, reference::MAX_POOL_GRADS);
    // The waves go below 0, which is what lies around an average's image, and not what lies around a maximum's.
    let (max, avg) = (MaxPool2d::new(3).stride(2).padding(1), AvgPool2d::new(3).stride(2).padding(1));
    check(&max, &image, reference::MAX_POOL_PADDED, reference::MAX_POOL_PADDED_GRADS);
    check(&avg, &image, reference::AVG_POOL_PADDED, reference::AVG_POOL_PADDED_GRADS);
    check(&AvgPool2d::new(2), &wave(0.0, &[1, 2, 5, 4], 1.0), reference::AVG_POOL, reference::AVG_POOL_GRADS);
    check(&Gelu, &wave(0.0, &[7], 3.0), reference::GELU, reference::GELU_GRADS);
    assert_eq!(Flatten.forward(&image).dims(), [1, 24]);
    assert!(Relu.forward(&image).to_vec_f64().unwrap().iter().all(|v| *v >= 0.0));
}

#[test]
fn cross_entropy() {
    let logits = wave(0.0, &[3, 4], 2.0);
    let target = Tensor::new(&[2i32, 0, 3], &[3], &CPU).unwrap();
    let loss = logits.cross_entropy(&target);
    assert_close(&[&loss], reference::CROSS_ENTROPY);
    let grad = (&loss * wave(9.0, &[], 1.0)).grad(&[&logits]).remove(0).unwrap();
    assert_close(&[&grad], reference::CROSS_ENTROPY_GRADS);
}

#[test]
fn dropout_drops_its_share_in_training_and_nothing_after() {
    manual_seed(4);
    let mut layer = Dropout::new(0.25);
    let x = Tensor::ones(&[100, 100], &CPU);
    let y = layer.forward(&x).to_vec::<f32>().unwrap();
    let dropped = y.iter().filter(|v| **v == 0.0).count();
    // Binomial(10,000, 1/4) has deviation 43.
    assert!((2250..2750).contains(&dropped), "{dropped}");
    assert!(y.iter().all(|v| *v == 0.0 || (v - 4.0 / 3.0).abs() < 1e-6));
    assert_ne!(y, layer.forward(&x).to_vec::<f32>().unwrap(), "each pass draws anew");
    layer.train(false);
    assert!(layer.forward(&x).to_vec::<f32>().unwrap().iter().all(|v| *v == 1.0));
}
