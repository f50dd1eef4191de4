//! What moves elements and computes nothing: other orders of axes, tensors side by side, rows looked up and added up.

use criterion::Criterion;
use kiln::prelude::*;
use kiln_benches::row::{integers, normals};

use crate::family::{Family, Work::Bytes};

pub(crate) fn all(c: &mut Criterion) {
    let mut family = Family::new(c, "movement");
    for (size, m) in [("256", 256), ("4k", 4096)] {
        // A view alone is never computed; the identity map behind `detach` asks for its elements.
        family.computing(&format!("transpose_{size}x{size}"), Bytes(8 * m * m), |device| {
            let [x] = normals([&[m, m]], device)?;
            Ok(move || x.t().detach())
        });
        family.computing(&format!("concat_{size}x{size}"), Bytes(8 * m * m), |device| {
            let [x, y] = normals([&[m, m / 2], &[m, m / 2]], device)?;
            Ok(move || Tensor::cat(&[&x, &y], 1))
        });
    }
    for (size, dims) in [("4x16x14x14", [4, 16, 14, 14]), ("32x64x56x56", [32, 64, 56, 56])] {
        let numel: usize = dims.iter().product();
        family.computing(&format!("channels_last_{size}"), Bytes(8 * numel), |device| {
            let [x] = normals([&dims], device)?;
            Ok(move || x.permute(&[0, 2, 3, 1]).detach())
        });
    }
    for (size, [n, dim, n_rows]) in [("256_of_1kx64", [1000, 64, 256]), ("16k_of_50kx512", [50_000, 512, 16_384])] {
        family.computing(&format!("gather_{size}"), Bytes(8 * n_rows * dim), |device| {
            let [table] = normals([&[n, dim]], device)?;
            let index = integers(&[n_rows], n, device);
            device.eval()?;
            Ok(move || table.index_select(0, &index))
        });
        // The whole table is written, mostly with zeros.
        family.computing(&format!("scatter_{size}"), Bytes(4 * (n_rows + n) * dim), |device| {
            let [values] = normals([&[n_rows, dim]], device)?;
            let index = integers(&[n_rows], n, device);
            device.eval()?;
            Ok(move || index.scatter_add(0, n, &values))
        });
    }
}
