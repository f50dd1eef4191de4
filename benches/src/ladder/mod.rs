//! Slower ancestors of two kernels, one idea a rung, up to Kiln's own: why they are written as they are.
//!
//! Rungs are plain functions over slices, on one core. Each is compared with an oracle in `f64` by the tests here, and
//! by `benches/ladder.rs` once more, at the sizes that it times.

pub mod adamw;
pub mod matmul;

/// Numbers in `-1..1`, the same for the same seed.
///
/// Marsaglia 2003, "Xorshift RNGs"; the upper 24 bits of a 64-bit state.
pub fn numbers(n: usize, seed: u64) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 40) as f32 / (1 << 23) as f32 - 1.0
    };
    std::iter::repeat_with(next).take(n).collect()
}

/// # Panics
/// If a number is further from the oracle's than `tolerance` of it, or of 1 where it is smaller.
#[track_caller]
pub fn assert_close(rung: &str, found: &[f32], oracle: &[f64], tolerance: f64) {
    assert_eq!(found.len(), oracle.len(), "{rung}: as many numbers as the oracle has");
    for (at, (&found, &oracle)) in found.iter().zip(oracle).enumerate() {
        let far = (f64::from(found) - oracle).abs() / oracle.abs().max(1.0);
        assert!(far <= tolerance, "{rung}: {found} at {at}, {oracle} by the oracle");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_fill_their_range() {
        let found = numbers(1000, 3);
        assert!(found.iter().all(|x| (-1.0..1.0).contains(x)));
        assert!(found.iter().any(|x| *x < -0.9) && found.iter().any(|x| *x > 0.9));
        assert_eq!(found, numbers(1000, 3));
        assert_ne!(found, numbers(1000, 4));
    }

    #[test]
    #[should_panic(expected = "rung: 1.1 at 1, 1 by the oracle")]
    fn what_is_far_from_the_oracle_is_found() {
        assert_close("rung", &[1.0, 1.1], &[1.0, 1.0], 0.01);
    }

    #[test]
    #[should_panic(expected = "NaN at 0")]
    fn nan_is_far_from_everything() {
        assert_close("rung", &[f32::NAN], &[1.0], 1e9);
    }
}
