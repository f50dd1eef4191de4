//! Sorts.

use kiln_ir::kernel::Sort;
use kiln_ir::sort::Part;
use kiln_ir::{DType, Kernel};

use crate::common::{Rng, check, read, write};

fn kernel(descending: bool, dtype: DType, extents: [usize; 3], parts: &[Part]) -> Kernel {
    keeping(extents[1], descending, dtype, extents, parts)
}

fn keeping(keep: usize, descending: bool, dtype: DType, [outer, len, inner]: [usize; 3], parts: &[Part]) -> Kernel {
    let (n, kept) = (outer * len * inner, outer * keep * inner);
    let dtype_of = |part: &Part| if *part == Part::Values { dtype } else { DType::I32 };
    let args = std::iter::once(read(dtype, n)).chain(parts.iter().map(|p| write(dtype_of(p), kept))).collect();
    let stores = parts.iter().copied().zip(1..).collect();
    Kernel::Sort(Sort { descending, outer, len, inner, keep, args, stores })
}

#[test]
fn rows_of_any_length_and_dtype() {
    let mut rng = Rng::new(41);
    for dtype in DType::ALL {
        for len in [0, 1, 2, 3, 17, 127, 129, 255, 256, 1000] {
            for [outer, inner] in [[1, 1], [3, 1], [2, 5]] {
                let n = outer * len * inner;
                // Few different numbers, so that many are equal, and all that there are.
                let few: Vec<f64> = (0..n).map(|_| dtype.round(rng.below(9) as f64 - 4.0)).collect();
                for values in [few, rng.values(dtype, n)] {
                    for (descending, parts) in [
                        (false, &[Part::Values, Part::Indices, Part::Indices][..]),
                        (true, &[Part::Indices]),
                        (true, &[Part::Values]),
                    ] {
                        let mut args = vec![values.clone()];
                        args.resize(1 + parts.len(), vec![0.0; n]);
                        let name = format!("sort {dtype} {outer}·{len}·{inner}, descending {descending}");
                        check(&name, &kernel(descending, dtype, [outer, len, inner], parts), &args, &[], 0.0);
                    }
                }
            }
        }
    }
}

#[test]
fn nan_is_greatest_and_zeros_are_equal() {
    let mut rng = Rng::new(42);
    for dtype in [DType::F32, DType::F64, DType::F16, DType::BF16] {
        for (len, descending) in [(40, false), (40, true), (700, false), (700, true)] {
            let of = [f64::NAN, -f64::NAN, f64::INFINITY, f64::NEG_INFINITY, 0.0, -0.0, 1.0, -1.0];
            let values: Vec<f64> = (0..len).map(|_| rng.pick(&of)).collect();
            let parts = [Part::Values, Part::Indices];
            let args = [values, vec![0.0; len], vec![0.0; len]];
            let name = format!("{dtype}, {len}, descending {descending}");
            check(&name, &kernel(descending, dtype, [1, len, 1], &parts), &args, &[], 0.0);
        }
    }
}

#[test]
fn greatest_and_least_integers_keep_their_places() {
    for (dtype, values) in [
        (DType::I32, [i32::MIN as f64, i32::MAX as f64, 0.0, -1.0, 1.0, i32::MIN as f64]),
        (DType::U32, [u32::MAX as f64, 0.0, 2147483648.0, 2147483647.0, 1.0, 0.0]),
    ] {
        let args = [values.to_vec(), vec![0.0; 6], vec![0.0; 6]];
        check(dtype.name(), &kernel(false, dtype, [1, 6, 1], &[Part::Values, Part::Indices]), &args, &[], 0.0);
    }
}

#[test]
fn the_first_few_are_those_of_the_whole() {
    let mut rng = Rng::new(43);
    for dtype in [DType::F32, DType::F64, DType::BF16, DType::U8] {
        for (extents, keep) in [([1, 1, 1], 0), ([3, 17, 1], 1), ([2, 129, 5], 40), ([1, 1000, 2], 300), ([2, 9, 3], 8)]
        {
            let [n, kept] = [extents[1], keep].map(|len| extents[0] * len * extents[2]);
            // Few different numbers, so that equals are on either side of the last one kept.
            let values: Vec<f64> = (0..n).map(|_| rng.below(5) as f64).collect();
            let kernel = keeping(keep, true, dtype, extents, &[Part::Values, Part::Indices]);
            let args = [values, vec![0.0; kept], vec![0.0; kept]];
            check(&format!("{keep} of {dtype} {extents:?}"), &kernel, &args, &[], 0.0);
        }
    }
}
