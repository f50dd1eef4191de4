//! Rows bound by memory: the rate counts the bytes that must be read and written once.

use kiln::Result;
use kiln::prelude::*;

use crate::models::gelu_tanh;
use crate::row::{Case, integers, normals};

/// `gelu_tanh(a·x + b) + r`; `x` and `r` read, the result written: 12 bytes an element.
///
/// # Errors
/// If the device fails.
pub fn elementwise_chain(device: &Device) -> Result<Case> {
    let n = 1 << 24;
    let [x, r] = normals([&[n], &[n]], device)?;
    Ok(Case::computing(device, 12.0 * n as f64 / 1e9, "GB/s", move || gelu_tanh(&(&x * 1.25 + 0.5)) + &r))
}

/// `relu(x + bias)`; `x` read, the result written.
///
/// # Errors
/// If the device fails.
pub fn broadcast_bias_relu(device: &Device) -> Result<Case> {
    let (m, n) = (8192, 2048);
    let [x, bias] = normals([&[m, n], &[n]], device)?;
    Ok(Case::computing(device, 8.0 * (m * n) as f64 / 1e9, "GB/s", move || (&x + &bias).relu()))
}

/// Sums of rows; `x` read.
///
/// # Errors
/// If the device fails.
pub fn reduce_sum_rows(device: &Device) -> Result<Case> {
    let (m, n) = (8192, 2048);
    let [x] = normals([&[m, n]], device)?;
    Ok(Case::computing(device, 4.0 * (m * n) as f64 / 1e9, "GB/s", move || x.sum(&[1])))
}

/// Softmax of rows; `x` read, the result written.
///
/// # Errors
/// If the device fails.
pub fn softmax(device: &Device) -> Result<Case> {
    let m = 4096;
    let [x] = normals([&[m, m]], device)?;
    Ok(Case::computing(device, 8.0 * (m * m) as f64 / 1e9, "GB/s", move || x.softmax(-1)))
}

/// Layer normalisation and its gradients; `x` and the cotangent read, the result and the gradient written.
///
/// # Errors
/// If the device fails.
pub fn layernorm(device: &Device) -> Result<Case> {
    let (m, n) = (8192, 1024);
    let norm = LayerNorm::new(n, device);
    let [x, cotangent] = normals([&[m, n], &[m, n]], device)?;
    Ok(Case::computing(device, 16.0 * (m * n) as f64 / 1e9, "GB/s", move || {
        let y = norm.forward(&x);
        let grads = y.vjp(&cotangent, &[&x, &norm.weight, &norm.bias]);
        (y, grads)
    }))
}

/// Parameters without a model around them.
#[derive(Module)]
struct Weights {
    all: Vec<Param>,
}

/// A step of AdamW on 25 parameters of a million numbers each.
///
/// # Errors
/// If the device fails.
pub fn adamw_step(device: &Device) -> Result<Case> {
    adamw(25, &[1024, 1024], device)
}

/// A step of AdamW; parameter, gradient and both moments read, all but the gradient written: 28 bytes a number.
///
/// # Errors
/// If the device fails.
pub fn adamw(n_params: usize, dims: &[usize], device: &Device) -> Result<Case> {
    let normals = || -> Vec<Tensor> { (0..n_params).map(|_| Tensor::randn(dims, device)).collect() };
    let (all, given) = (normals(), normals());
    device.eval()?;
    let mut model = Weights { all: all.into_iter().map(Param::new).collect() };
    let mut opt = AdamW::new(1e-3).build(&model);
    let work = 28.0 * (n_params * dims.iter().product::<usize>()) as f64 / 1e9;
    Ok(Case::new(work, "GB/s", move || {
        let mut given = given.iter().cloned();
        let grads = Grads::from_fn(&model, |_, _| given.next());
        opt.step(&mut model, grads)
    }))
}

/// A transposed copy; `x` read, the result written.
///
/// # Errors
/// If the device fails.
pub fn transpose_copy(device: &Device) -> Result<Case> {
    let m = 4096;
    let [x] = normals([&[m, m]], device)?;
    // A view alone is never computed; the identity map behind `detach` asks for its elements.
    Ok(Case::computing(device, 8.0 * (m * m) as f64 / 1e9, "GB/s", move || x.t().detach()))
}

/// 16 thousand rows of a table of 50 thousand, and the dense gradient of the table; rows looked up.
///
/// # Errors
/// If the device fails.
pub fn embedding(device: &Device) -> Result<Case> {
    let (n, dim, n_rows) = (50_000, 512, 16_384);
    let table = Embedding::new(n, dim, device);
    let index = integers(&[n_rows], n, device);
    let [cotangent] = normals([&[n_rows, dim]], device)?;
    Ok(Case::computing(device, n_rows as f64, "rows/s", move || {
        let rows = table.forward(&index);
        let grads = rows.vjp(&cotangent, &[&table.weight]);
        (rows, grads)
    }))
}
