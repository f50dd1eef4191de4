//! Seeded permutations: the same seed and stream give the same order on every machine.
//!
//! Fisher-Yates, each draw addressed by a counter, so no generator state is carried about.

use kiln_ir::random::threefry2x32;

/// A permutation of `0..n`, a pure function of `seed` and `stream` (an epoch, say).
///
/// Fisher-Yates; draw `i` is a 64-bit word scaled to `0..=i`, whose bias is below `n / 2^64`.
///
/// ```
/// let order = kiln_data::permutation(5, 1, 0);
/// assert_eq!(order, kiln_data::permutation(5, 1, 0));
/// let mut sorted = order.clone();
/// sorted.sort();
/// assert_eq!(sorted, [0, 1, 2, 3, 4]);
/// ```
pub fn permutation(n: usize, seed: u64, stream: u64) -> Vec<usize> {
    let key = threefry2x32(words(seed), words(stream));
    let mut order: Vec<usize> = (0..n).collect();
    for i in (1..n).rev() {
        let [low, high] = threefry2x32(key, words(i as u64));
        let draw = (u64::from(high) << 32) | u64::from(low);
        let j = (u128::from(draw) * (i as u128 + 1)) >> 64; // in 0..=i
        order.swap(i, j as usize);
    }
    order
}

fn words(x: u64) -> [u32; 2] {
    [x as u32, (x >> 32) as u32]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_index_appears_once() {
        for n in [0, 1, 2, 17, 1797] {
            let mut order = permutation(n, 3, 4);
            order.sort();
            assert_eq!(order, (0..n).collect::<Vec<_>>());
        }
    }

    #[test]
    fn seed_and_stream_both_matter() {
        let base = permutation(100, 1, 2);
        assert_eq!(base, permutation(100, 1, 2));
        assert_ne!(base, permutation(100, 2, 2));
        assert_ne!(base, permutation(100, 1, 3));
        assert_ne!(base, permutation(100, 2, 1), "seed and stream do not commute");
        assert_ne!(base, permutation(100, 1 | 1 << 40, 2), "the high word counts");
    }

    #[test]
    fn orders_of_three_are_equally_likely() {
        let mut counts = std::collections::BTreeMap::new();
        for seed in 0..6000 {
            *counts.entry(permutation(3, seed, 0)).or_insert(0) += 1;
        }
        assert_eq!(counts.len(), 6);
        // Each count is binomial(6000, 1/6): mean 1000, standard deviation 29; five of them here.
        assert!(counts.values().all(|&c| (855..=1145).contains(&c)), "{counts:?}");
    }
}
