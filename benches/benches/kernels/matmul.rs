//! Products: square in each layout, batched, with few rows, by a vector, of half floats, and with what follows in the
//! same kernel.

use criterion::Criterion;
use kiln::prelude::*;
use kiln_benches::models::gelu_tanh;
use kiln_benches::row::normals;

use crate::family::{Family, Work::Flops};

pub(crate) fn all(c: &mut Criterion) {
    let mut family = Family::new(c, "matmul");
    for n in [64, 256, 1024] {
        let mut square = |name: &str, record: fn(&Tensor, &Tensor) -> Tensor, dtype: DType| {
            family.computing(&format!("{name}_{n}"), Flops(2 * n * n * n), |device| {
                let [lhs, rhs] = normals([&[n, n], &[n, n]], device)?.map(|t| t.cast(dtype));
                device.eval()?;
                Ok(move || record(&lhs, &rhs))
            });
        };
        square("nn", |lhs, rhs| lhs.matmul(rhs), DType::F32);
        square("nt", |lhs, rhs| lhs.matmul(&rhs.t()), DType::F32);
        square("tn", |lhs, rhs| lhs.t().matmul(rhs), DType::F32);
        square("f16", |lhs, rhs| lhs.matmul(rhs), DType::F16);
        family.computing(&format!("bias_gelu_{n}"), Flops(2 * n * n * n), |device| {
            let [lhs, rhs, bias] = normals([&[n, n], &[n, n], &[n]], device)?;
            Ok(move || gelu_tanh(&(lhs.matmul(&rhs) + &bias)))
        });
    }
    for (size, [b, n]) in [("8x64", [8, 64]), ("64x256", [64, 256])] {
        family.computing(&format!("batched_{size}"), Flops(2 * b * n * n * n), |device| {
            let [lhs, rhs] = normals([&[b, n, n], &[b, n, n]], device)?;
            Ok(move || lhs.matmul(&rhs))
        });
    }
    for n in [512, 4096] {
        family.computing(&format!("skinny_16x{n}x{n}"), Flops(2 * 16 * n * n), |device| {
            let [lhs, rhs] = normals([&[16, n], &[n, n]], device)?;
            Ok(move || lhs.matmul(&rhs))
        });
        family.computing(&format!("matrix_vector_{n}"), Flops(2 * n * n), |device| {
            let [lhs, rhs] = normals([&[n, n], &[n]], device)?;
            Ok(move || lhs.matmul(&rhs))
        });
        family.computing(&format!("vector_matrix_{n}"), Flops(2 * n * n), |device| {
            let [lhs, rhs] = normals([&[n], &[n, n]], device)?;
            Ok(move || lhs.matmul(&rhs))
        });
    }
}
