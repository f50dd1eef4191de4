//! Running sums and sorts: many rows, few long ones, and down columns.

use criterion::Criterion;
use kiln::prelude::*;
use kiln_benches::row::normals;

use crate::family::{Family, Work::Bytes};

pub(crate) fn all(c: &mut Criterion) {
    let mut family = Family::new(c, "sorting");
    for (size, [m, n]) in [("64x256", [64, 256]), ("4kx1k", [4096, 1024]), ("4x1m", [4, 1 << 20])] {
        // Values read, as many values or twice as many (with their places) written.
        let mut ordered = |name: &str, words: usize, op: fn(&Tensor) -> Vec<Tensor>| {
            family.computing(&format!("{name}_{size}"), Bytes(4 * words * m * n), |device| {
                let [x] = normals([&[m, n]], device)?;
                Ok(move || op(&x))
            });
        };
        ordered("cumsum_rows", 2, |x| vec![x.cumsum(1)]);
        ordered("cumsum_columns", 2, |x| vec![x.cumsum(0)]);
        ordered("cummax_rows", 3, |x| Vec::from(<[Tensor; 2]>::from(x.cummax(1))));
        ordered("sort_rows", 3, |x| Vec::from(<[Tensor; 2]>::from(x.sort(1, false))));
        ordered("argsort_rows", 2, |x| vec![x.argsort(1, false)]);
        ordered("topk_rows", 1, |x| Vec::from(<[Tensor; 2]>::from(x.topk(8, 1, true))));
    }
}
