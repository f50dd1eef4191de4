//! Windows of 3 × 3 by tiles: how far sums may be off, and what becomes of infinities.

use kiln_cpu::CpuBackend;
use kiln_ir::{DType, Kernel};

use crate::common::{Rng, check, decode, oracle, points, run_bytes};
use crate::windows::Conv;

/// Rounding to `f32` changes a number by no more than this share of it.
const UNIT: f64 = 1.0 / (1u64 << 24) as f64;

fn conv(n: usize, [c, o]: [usize; 2], image: [usize; 2]) -> Conv {
    Conv { n, c, o, image, window: [3, 3], stride: 1, dilation: 1, pad: 1 }
}

/// So many sums over so few tiles that blocks of rows are cut.
fn conv_of_many_sums() -> Conv {
    conv(17, [260, 256], [4, 4])
}

/// Values of which a few are a thousand times as large.
fn uneven(rng: &mut Rng, n: usize) -> Vec<f64> {
    let one = |rng: &mut Rng| {
        let scale = if rng.chance(3) { 1000.0 } else { 1.0 };
        DType::F32.round(rng.uniform(-2.0, 2.0) * scale)
    };
    (0..n).map(|_| one(rng)).collect()
}

/// What the kernel gives, on any number of threads, and what it should.
fn both(kernel: &Kernel, lhs: &[f64], rhs: &[f64]) -> [Vec<f64>; 2] {
    let args = [lhs.to_vec(), rhs.to_vec(), vec![0.0; kernel.args()[2].numel]];
    let got = run_bytes(&CpuBackend::poisoned(), kernel, &args, &[]);
    for n in [1, 3] {
        let on_threads = run_bytes(&CpuBackend::with_threads(n), kernel, &args, &[]);
        assert!(on_threads == got, "{n} threads change the result");
    }
    [decode(DType::F32, &got[2]), oracle(kernel, &args, &[])[2].clone()]
}

/// The largest element that the tile of a place sees in an image's channel.
fn largest(conv: &Conv, images: &[f64], [n, c, y, x]: [usize; 4]) -> f64 {
    let [h, w] = conv.image;
    let (top, left) = (y / 2 * 2, x / 2 * 2);
    let rows = top.saturating_sub(1)..h.min(top + 3);
    let at = |row: usize| ((n * conv.c + c) * h + row) * w;
    let row = |row: usize| images[at(row) + left.saturating_sub(1)..at(row) + w.min(left + 3)].iter();
    rows.flat_map(row).fold(0.0, |most: f64, x| most.max(x.abs()))
}

/// A transformed element is a sum of 4 of the tile's, a transformed weight one of the window's with factors of at most 1,
/// and a sum one of 9 products over all channels. Roundings: 2 of the element, 4 of the weight, one for each channel, 4 of
/// the sum.
#[test]
fn a_sums_error_is_bounded_by_its_tile() {
    let mut rng = Rng::new(31);
    // Of few tiles, blocks of rows share the transformed images.
    for conv in [conv(2, [32, 24], [12, 11]), conv(9, [48, 100], [4, 4])] {
        let [w, image, _] = conv.numels();
        let (weights, images) = (uneven(&mut rng, w), uneven(&mut rng, image));
        let [got, want] = both(&conv.forward(), &weights, &images);
        let [h, wide] = conv.out();
        for (at, (got, want)) in got.iter().zip(&want).enumerate() {
            let (n, o, y, x) = (at / (conv.o * h * wide), at / (h * wide) % conv.o, at / wide % h, at % wide);
            let share = |c: usize| {
                let window: f64 = weights[(o * conv.c + c) * 9..][..9].iter().map(|x| x.abs()).sum();
                window * largest(&conv, &images, [n, c, y, x])
            };
            let scale: f64 = (0..conv.c).map(share).sum();
            let bound = (conv.c + 10) as f64 * UNIT * 9.0 * 4.0 * scale;
            assert!((got - want).abs() <= bound, "{conv:?} at {at}: {got} ≠ {want} ± {bound}");
        }
    }
}

/// A transformed output is a sum of the tile's, and a tap one of products over all tiles with factors that add up to 4.
/// Roundings: 2 of the output, 2 of the element, one for each tile, 4 of the tap, and fewer than 16 of groups.
#[test]
fn a_taps_error_is_bounded_by_all_tiles() {
    let mut rng = Rng::new(32);
    for conv in [conv(20, [16, 24], [12, 11]), conv_of_many_sums()] {
        let [_, image, result] = conv.numels();
        let (outputs, images) = (uneven(&mut rng, result), uneven(&mut rng, image));
        let [got, want] = both(&conv.gradient(), &outputs, &images);
        // The largest element that each tile sees in each channel, and the sum of its outputs in each row.
        let tiles: Vec<[usize; 3]> = tiles(&conv);
        let most = |c: usize| tiles.iter().map(|&[n, y, x]| largest(&conv, &images, [n, c, y, x])).collect();
        let most: Vec<Vec<f64>> = (0..conv.c).map(most).collect();
        for o in 0..conv.o {
            let sums: Vec<f64> = tiles.iter().map(|&tile| outputs_of(&conv, &outputs, o, tile)).collect();
            for (c, most) in most.iter().enumerate() {
                let scale: f64 = sums.iter().zip(most).map(|(sum, most)| sum * most).sum();
                let bound = (tiles.len() + 24) as f64 * UNIT * 4.0 * 4.0 * scale;
                for at in (o * conv.c + c) * 9..(o * conv.c + c + 1) * 9 {
                    let (got, want) = (got[at], want[at]);
                    assert!((got - want).abs() <= bound, "row {o}, channel {c}: {got} ≠ {want} ± {bound}");
                }
            }
        }
    }
}

/// The first output of each tile: image, row and column.
fn tiles(conv: &Conv) -> Vec<[usize; 3]> {
    let [h, w] = conv.out();
    points(&[conv.n, h.div_ceil(2), w.div_ceil(2)]).iter().map(|p| [p[0], 2 * p[1], 2 * p[2]]).collect()
}

/// The sum of a tile's outputs without their signs.
fn outputs_of(conv: &Conv, outputs: &[f64], o: usize, [n, y, x]: [usize; 3]) -> f64 {
    let [h, w] = conv.out();
    let at = |row: usize| ((n * conv.o + o) * h + row) * w;
    let row = |row: usize| outputs[at(row) + x..at(row) + w.min(x + 2)].iter();
    (y..h.min(y + 2)).flat_map(row).map(|x| x.abs()).sum()
}

/// What overflows or is infinite in a tile, or not a number, reaches the sums that see it, and no others.
#[test]
fn infinities_reach_only_sums_that_see_them() {
    let mut rng = Rng::new(33);
    let conv = conv(20, [16, 24], [12, 12]);
    let [w, image, result] = conv.numels();
    for odd in [f64::INFINITY, f64::NAN, 3e38] {
        let odd = DType::F32.round(odd);
        let mut values = |n: usize| rng.values(DType::F32, n);
        let (mut weights, mut images, mut outputs) = (values(w), values(image), values(result));
        // Large numbers of both signs beside each other, in one channel; small weights for it.
        images[12 * 12 * 5 + 40] = odd;
        images[12 * 12 * 5 + 42] = -odd;
        weights
            .iter_mut()
            .enumerate()
            .filter(|w| w.0 / 9 % conv.c == 5)
            .for_each(|w| *w.1 = DType::F32.round(*w.1 / 8.0));
        check(
            &format!("{odd} seen"),
            &conv.forward(),
            &[weights.clone(), images.clone(), vec![0.0; result]],
            &[],
            1e-4,
        );
        images[12 * 12 * 5 + 40] = 1.0;
        images[12 * 12 * 5 + 42] = 1.0;
        outputs[12 * 12 * 7 + 25] = odd;
        outputs[12 * 12 * 7 + 26] = odd;
        outputs.iter_mut().skip(12 * 12 * 7 + 27).take(20).for_each(|x| *x = 0.0);
        images.iter_mut().for_each(|x| *x = DType::F32.round(*x / 8.0));
        check(&format!("{odd} to see"), &conv.gradient(), &[outputs.clone(), images.clone(), vec![0.0; w]], &[], 1e-4);
        // A large weight is a finite part of sums whose error may be as large as it.
        weights[77] = if odd.is_finite() { f64::INFINITY } else { odd };
        check(&format!("{odd} in a window"), &conv.forward(), &[weights, images, vec![0.0; result]], &[], 1e-4);
    }
    // The same where blocks of rows are cut: other rows have no part in it.
    let conv = conv_of_many_sums();
    let [w, image, result] = conv.numels();
    let [mut outputs, images] = [result, image].map(|n| rng.values(DType::F32, n));
    outputs[16 * 70 + 5] = f64::INFINITY;
    check("inf in a row", &conv.gradient(), &[outputs, images, vec![0.0; w]], &[], 1e-3);
}
