//! Whole training steps: forward, loss, backward, AdamW. Eight batches in turn; every tenth loss is read.

use kiln::Result;
use kiln::nn::Carry;
use kiln::prelude::*;

use crate::models::{Cnn, Gpt, GptSize, Mlp, ResNet18};
use crate::row::{Case, Mode, integers};

/// Input and target.
pub(crate) type Batch = (Tensor, Tensor);

/// A case that trains `model` to make `loss` of a batch small.
pub(crate) fn train<M: Module + 'static, B: Carry + Clone + 'static>(
    model: M,
    loss: impl Fn(&M, &B) -> Tensor + Copy + 'static,
    batch: impl Fn() -> B,
    (work, unit): (usize, &'static str),
    mode: Mode,
) -> Result<Case> {
    let batches: Vec<B> = (0..8).map(|_| batch()).collect();
    // Computes the batches and the first weights as well.
    let opt = AdamW::new(1e-3).build(&model);
    let mut state = (model, opt);
    let step = move |(model, opt): &mut (M, Optimizer<AdamW>), batch: B| {
        let loss = loss(model, &batch);
        let grads = loss.backward(model);
        opt.step(model, grads)?;
        Ok(loss)
    };
    let mut jitted = jit(step);
    let mut n_steps = 0;
    Ok(Case::new(work as f64, unit, move || {
        let batch = batches[n_steps % batches.len()].clone();
        n_steps += 1;
        let loss = match mode {
            Mode::Implicit => step(&mut state, batch)?,
            Mode::Jit => jitted.call(&mut state, batch)?,
        };
        if n_steps % 10 == 0 {
            loss.item()?;
        }
        Ok(())
    }))
}

/// A case that trains `model` with the cross-entropy of `forward`.
pub(crate) fn classify<M: Module + 'static>(
    model: M,
    forward: fn(&M, &Tensor) -> Tensor,
    batch: impl Fn() -> Batch,
    rate: (usize, &'static str),
    mode: Mode,
) -> Result<Case> {
    let loss = move |model: &M, (x, target): &Batch| forward(model, x).cross_entropy(target);
    train(model, loss, batch, rate, mode)
}

/// Random normal inputs and random classes.
pub(crate) fn classified(dims: &[usize], n_classes: usize, device: &Device) -> Batch {
    (Tensor::randn(dims, device), integers(&dims[..1], n_classes, device))
}

/// 4, 32, 32, 2 numbers; host cost shows here.
///
/// # Errors
/// If the device fails.
pub fn tiny_mlp(mode: Mode, device: &Device) -> Result<Case> {
    let model = Mlp::new(&[4, 32, 32, 2], device);
    classify(model, Mlp::forward, || classified(&[32, 4], 2, device), (1, "steps/s"), mode)
}

/// 784, 512, 512, 10 numbers.
///
/// # Errors
/// If the device fails.
pub fn mnist_mlp(mode: Mode, device: &Device) -> Result<Case> {
    let model = Mlp::new(&[784, 512, 512, 10], device);
    classify(model, Mlp::forward, || classified(&[128, 784], 10, device), (128, "samples/s"), mode)
}

/// The CNN on images of 28×28.
///
/// # Errors
/// If the device fails.
pub fn mnist_cnn(mode: Mode, device: &Device) -> Result<Case> {
    classify(Cnn::new(device), Cnn::forward, || classified(&[64, 1, 28, 28], 10, device), (64, "samples/s"), mode)
}

/// ResNet-18 on images of 32×32.
///
/// # Errors
/// If the device fails.
pub fn resnet18_cifar(mode: Mode, device: &Device) -> Result<Case> {
    let batch = || classified(&[32, 3, 32, 32], 10, device);
    classify(ResNet18::new(device), ResNet18::forward, batch, (32, "samples/s"), mode)
}

/// A language model on random tokens `[b, t]`.
fn gpt(size: GptSize, [b, t]: [usize; 2], mode: Mode, device: &Device) -> Result<Case> {
    let tokens = || integers(&[b, t], size.vocab, device);
    classify(Gpt::new(size, device), Gpt::forward, || (tokens(), tokens()), (b * t, "tokens/s"), mode)
}

/// A model of characters, 6 blocks of 384.
///
/// # Errors
/// If the device fails.
pub fn char_gpt_6x384(mode: Mode, device: &Device) -> Result<Case> {
    gpt(GptSize { vocab: 65, context: 256, dim: 384, n_heads: 6, n_blocks: 6 }, [8, 256], mode, device)
}

/// A model of characters, 4 blocks of 128.
///
/// # Errors
/// If the device fails.
pub fn char_gpt_4x128(mode: Mode, device: &Device) -> Result<Case> {
    gpt(GptSize { vocab: 65, context: 64, dim: 128, n_heads: 4, n_blocks: 4 }, [12, 64], mode, device)
}

/// The size of GPT-2's smallest.
///
/// # Errors
/// If the device fails.
pub fn gpt2_124m(mode: Mode, device: &Device) -> Result<Case> {
    gpt(GptSize { vocab: 50257, context: 1024, dim: 768, n_heads: 12, n_blocks: 12 }, [4, 512], mode, device)
}
