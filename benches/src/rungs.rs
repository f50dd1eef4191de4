//! Rows of a ladder: the same work in sizes from what launching bounds to what the machine bounds. They have no peer,
//! and run only for whoever names them.

use kiln::prelude::*;
use kiln::{DType, Result};

use crate::Row;
use crate::arithmetic::matmul;
use crate::row::{Case, normals};

/// A square product.
macro_rules! product {
    ($name:literal, $n:literal, $dtype:ident) => {
        Row::new($name, |d| matmul([$n; 3], DType::$dtype, d))
    };
}

/// Every rung, by what it climbs.
pub const LADDER: &[Row] = &[
    Row::new("ladder_negate_64k", |d| negate(1 << 16, d)),
    Row::new("ladder_negate_1m", |d| negate(1 << 20, d)),
    Row::new("ladder_negate_16m", |d| negate(1 << 24, d)),
    Row::new("ladder_negate_128m", |d| negate(1 << 27, d)),
    product!("ladder_matmul_f32_256", 256, F32),
    product!("ladder_matmul_f32_512", 512, F32),
    product!("ladder_matmul_f32_1024", 1024, F32),
    product!("ladder_matmul_f32_2048", 2048, F32),
    product!("ladder_matmul_f32_8192", 8192, F32),
    product!("ladder_matmul_f16_512", 512, F16),
    product!("ladder_matmul_f16_1024", 1024, F16),
    product!("ladder_matmul_f16_2048", 2048, F16),
    product!("ladder_matmul_f16_8192", 8192, F16),
    Row::new("ladder_dispatch_1000", dispatches),
];

/// `-x`, 8 bytes an element.
fn negate(n: usize, device: &Device) -> Result<Case> {
    let [x] = normals([&[n]], device)?;
    Ok(Case::computing(device, 8.0 * n as f64 / 1e9, "GB/s", move || -&x))
}

/// A thousand kernels of which each needs the last one's result, and nothing to compute: `x·w` of 16 × 16.
fn dispatches(device: &Device) -> Result<Case> {
    let n_kernels = 1000;
    let [x, w] = normals([&[16, 16], &[16, 16]], device)?;
    let step = move || (0..n_kernels).fold(x.clone(), |x, _| x.matmul(&w));
    Ok(Case::computing(device, n_kernels as f64, "kernels/s", step))
}
