//! [`Mean`]: a running mean over samples, from the means of batches.
//!
//! A last batch is often short, so the mean of batch means is not the mean over samples; each value comes with
//! its number of samples, and the sums are `f64`.

/// A running mean, each value weighted by its number of samples.
///
/// # Examples
/// ```
/// let mut loss = kiln_train::Mean::default();
/// loss.add(2.0, 64);
/// loss.add(5.0, 32); // a short last batch
/// assert_eq!(loss.value(), 3.0);
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Mean {
    sum: f64,
    weight: u64,
}

impl Mean {
    /// Adds `value`, the mean of `weight` samples.
    ///
    /// Numerics: a weight of zero adds nothing, not even a NaN; any other NaN stays in the mean, so that a loss
    /// that diverged is seen.
    pub fn add(&mut self, value: f64, weight: usize) {
        if weight > 0 {
            self.sum += value * weight as f64;
            self.weight += weight as u64;
        }
    }

    /// The mean so far; NaN before the first sample.
    ///
    /// ```
    /// assert!(kiln_train::Mean::default().value().is_nan());
    /// ```
    pub fn value(&self) -> f64 {
        self.sum / self.weight as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_small_value_is_not_lost_beside_many() {
        // In f32 the sum would stop growing at 2^24.
        let mut mean = Mean::default();
        mean.add(1.0, 1 << 30);
        mean.add(2.0, 1);
        assert_eq!(mean.value(), ((1u64 << 30) as f64 + 2.0) / ((1u64 << 30) as f64 + 1.0));
        assert!(mean.value() > 1.0);
    }

    #[test]
    fn no_samples_add_nothing_and_a_nan_stays() {
        let mut mean = Mean::default();
        mean.add(f64::NAN, 0);
        mean.add(4.0, 2);
        assert_eq!(mean.value(), 4.0);
        mean.add(f64::NAN, 1);
        mean.add(4.0, 2);
        assert!(mean.value().is_nan());
    }
}
