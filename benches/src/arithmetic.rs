//! Rows bound by arithmetic: the rate counts a multiplication and an addition as two operations.

use kiln::prelude::*;
use kiln::{DType, Result};

use crate::models::gelu_tanh;
use crate::row::{Case, normals};

/// `[m, k]·[k, n]`, 2·m·n·k operations.
///
/// # Errors
/// If the device fails.
pub fn matmul([m, n, k]: [usize; 3], dtype: DType, device: &Device) -> Result<Case> {
    let [lhs, rhs] = normals([&[m, k], &[k, n]], device)?.map(|t| t.cast(dtype));
    device.eval()?;
    Ok(Case::computing(device, 2.0 * (m * n * k) as f64 / 1e9, "GFLOP/s", move || lhs.matmul(&rhs)))
}

/// `gelu_tanh(a·b + bias)`; only the product counts.
///
/// # Errors
/// If the device fails.
pub fn matmul_bias_gelu(device: &Device) -> Result<Case> {
    let n = 2048;
    let [lhs, rhs, bias] = normals([&[n, n], &[n, n], &[n]], device)?;
    let work = 2.0 * (n * n * n) as f64 / 1e9;
    Ok(Case::computing(device, work, "GFLOP/s", move || gelu_tanh(&(lhs.matmul(&rhs) + &bias))))
}

/// A convolution of `[16, 64, 56, 56]` with 64 windows of 3×3, and both gradients: three products.
///
/// # Errors
/// If the device fails.
pub fn conv2d(device: &Device) -> Result<Case> {
    let image: &[usize] = &[16, 64, 56, 56];
    let [x, cotangent] = normals([image, image], device)?;
    let weight = Tensor::randn(&[64, 64, 3, 3], device) * 0.05;
    device.eval()?;
    let options = Conv2dOptions { padding: [1; 2], ..Conv2dOptions::default() };
    let work = 3.0 * 2.0 * (16 * 64 * 64 * 9 * 56 * 56) as f64 / 1e9;
    Ok(Case::computing(device, work, "GFLOP/s", move || {
        let y = x.conv2d(&weight, options);
        let grads = y.vjp(&cotangent, &[&x, &weight]);
        (y, grads)
    }))
}

/// Causal attention over `[8, 8, 512, 64]` and its gradients: two products forward and five backward, of which
/// causality needs half.
///
/// # Errors
/// If the device fails.
pub fn attention(device: &Device) -> Result<Case> {
    let dims: &[usize] = &[8, 8, 512, 64];
    let [q, k, v, cotangent] = normals([dims; 4], device)?;
    let work = 7.0 * 2.0 * (8 * 8 * 512 * 512 * 64) as f64 / 2.0 / 1e9;
    Ok(Case::computing(device, work, "GFLOP/s", move || {
        let y = q.scaled_dot_product_attention(&k, &v, None, true);
        let grads = y.vjp(&cotangent, &[&q, &k, &v]);
        (y, grads)
    }))
}
