//! [`ConfusionMatrix`]: which class was taken for which.
//!
//! Counts only, `n_classes²` of them; every rate is a quotient of counts, and NaN where there is nothing to
//! divide, so that "no sample" is never read as "always wrong".

use std::fmt;

/// Counts of (truth, predicted) pairs. `Display` gives a table with a row for each truth.
///
/// # Examples
/// ```
/// let mut matrix = kiln_train::ConfusionMatrix::new(3);
/// matrix.extend(&[0, 0, 1, 1, 1], &[0, 1, 1, 1, 1]);
/// assert_eq!((matrix.count(0, 1), matrix.accuracy()), (1, 0.8));
/// assert_eq!((matrix.recall(0), matrix.precision(1)), (0.5, 0.75));
/// assert_eq!(matrix.to_string(), "\
/// truth  0  1  2  recall
///     0  1  1  ·   50.0%
///     1  ·  3  ·  100.0%
///     2  ·  ·  ·       -");
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfusionMatrix {
    n_classes: usize,
    /// `u64[truth, predicted]`, row-major.
    counts: Vec<u64>,
}

impl ConfusionMatrix {
    /// A matrix of zeros.
    ///
    /// # Panics
    /// If `n_classes` is zero.
    #[track_caller]
    pub fn new(n_classes: usize) -> ConfusionMatrix {
        assert!(n_classes > 0, "confusion matrix: expected a number of classes above zero");
        ConfusionMatrix { n_classes, counts: vec![0; n_classes * n_classes] }
    }

    /// Counts one sample.
    ///
    /// # Panics
    /// If either class is not below `n_classes`.
    #[track_caller]
    pub fn add(&mut self, truth: usize, predicted: usize) {
        let cell = self.cell(truth, predicted);
        self.counts[cell] += 1;
    }

    /// Counts the samples of a batch, `truth i32[n]` and `predicted i32[n]`.
    ///
    /// # Panics
    /// If the lengths differ, or a class is negative or not below `n_classes`.
    #[track_caller]
    pub fn extend(&mut self, truth: &[i32], predicted: &[i32]) {
        let (n, m) = (truth.len(), predicted.len());
        assert!(n == m, "confusion matrix: {n} truths, {m} predictions ({n} ≠ {m})");
        for (&truth, &predicted) in truth.iter().zip(predicted) {
            assert!(truth >= 0, "confusion matrix: truth is {truth}, expected zero or more");
            assert!(predicted >= 0, "confusion matrix: predicted is {predicted}, expected zero or more");
            self.add(truth as usize, predicted as usize);
        }
    }

    /// The number of classes.
    pub fn n_classes(&self) -> usize {
        self.n_classes
    }

    /// Samples of class `truth` that were taken for `predicted`.
    ///
    /// # Panics
    /// If either class is not below `n_classes`.
    #[track_caller]
    pub fn count(&self, truth: usize, predicted: usize) -> u64 {
        self.counts[self.cell(truth, predicted)]
    }

    /// The share of samples predicted rightly, in 0 to 1; NaN without a sample.
    ///
    /// ```
    /// assert!(kiln_train::ConfusionMatrix::new(2).accuracy().is_nan());
    /// ```
    pub fn accuracy(&self) -> f64 {
        let right: u64 = (0..self.n_classes).map(|class| self.count(class, class)).sum();
        right as f64 / self.counts.iter().sum::<u64>() as f64
    }

    /// Of the samples of `class`, the share predicted as it; NaN without such a sample.
    ///
    /// # Panics
    /// If `class` is not below `n_classes`.
    #[track_caller]
    pub fn recall(&self, class: usize) -> f64 {
        let right = self.count(class, class);
        right as f64 / (0..self.n_classes).map(|other| self.count(class, other)).sum::<u64>() as f64
    }

    /// Of the samples predicted as `class`, the share that is it; NaN without such a prediction.
    ///
    /// # Panics
    /// If `class` is not below `n_classes`.
    #[track_caller]
    pub fn precision(&self, class: usize) -> f64 {
        let right = self.count(class, class);
        right as f64 / (0..self.n_classes).map(|other| self.count(other, class)).sum::<u64>() as f64
    }

    #[track_caller]
    fn cell(&self, truth: usize, predicted: usize) -> usize {
        let n = self.n_classes;
        assert!(truth < n, "confusion matrix: truth is {truth}, expected below {n}");
        assert!(predicted < n, "confusion matrix: predicted is {predicted}, expected below {n}");
        truth * n + predicted
    }
}

impl fmt::Display for ConfusionMatrix {
    /// Row = truth, column = predicted, `·` = zero; each row ends with its recall.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let largest = self.counts.iter().copied().max().unwrap_or(0).max(self.n_classes as u64 - 1);
        let width = largest.to_string().len();
        write!(f, "truth")?;
        for class in 0..self.n_classes {
            write!(f, "  {class:>width$}")?;
        }
        write!(f, "  recall")?;
        for truth in 0..self.n_classes {
            write!(f, "\n{truth:>5}")?;
            for predicted in 0..self.n_classes {
                match self.count(truth, predicted) {
                    0 => write!(f, "  {:>width$}", '·')?,
                    count => write!(f, "  {count:>width$}")?,
                }
            }
            match self.recall(truth) {
                recall if recall.is_nan() => write!(f, "  {:>6}", '-')?,
                recall => write!(f, "  {:>5.1}%", recall * 100.0)?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_aligned() {
        let mut matrix = ConfusionMatrix::new(11);
        for class in 0..10 {
            for _ in 0..=class * 13 {
                matrix.add(class, class);
            }
        }
        matrix.add(3, 10);
        matrix.add(9, 4);
        let golden = "\
truth    0    1    2    3    4    5    6    7    8    9   10  recall
    0    1    ·    ·    ·    ·    ·    ·    ·    ·    ·    ·  100.0%
    1    ·   14    ·    ·    ·    ·    ·    ·    ·    ·    ·  100.0%
    2    ·    ·   27    ·    ·    ·    ·    ·    ·    ·    ·  100.0%
    3    ·    ·    ·   40    ·    ·    ·    ·    ·    ·    1   97.6%
    4    ·    ·    ·    ·   53    ·    ·    ·    ·    ·    ·  100.0%
    5    ·    ·    ·    ·    ·   66    ·    ·    ·    ·    ·  100.0%
    6    ·    ·    ·    ·    ·    ·   79    ·    ·    ·    ·  100.0%
    7    ·    ·    ·    ·    ·    ·    ·   92    ·    ·    ·  100.0%
    8    ·    ·    ·    ·    ·    ·    ·    ·  105    ·    ·  100.0%
    9    ·    ·    ·    ·    1    ·    ·    ·    ·  118    ·   99.2%
   10    ·    ·    ·    ·    ·    ·    ·    ·    ·    ·    ·       -";
        assert_eq!(matrix.to_string(), golden);
    }

    #[test]
    fn rates_are_quotients_of_counts() {
        let mut matrix = ConfusionMatrix::new(3);
        matrix.extend(&[0, 0, 0, 0, 1, 1], &[0, 0, 0, 1, 1, 0]);
        assert_eq!((matrix.recall(0), matrix.recall(1)), (0.75, 0.5));
        assert_eq!((matrix.precision(0), matrix.precision(1)), (0.75, 0.5));
        assert_eq!(matrix.accuracy(), 4.0 / 6.0);
        assert!(matrix.recall(2).is_nan() && matrix.precision(2).is_nan());
    }

    #[test]
    #[should_panic(expected = "confusion matrix: truth is 3, expected below 3")]
    fn a_truth_out_of_range_panics() {
        ConfusionMatrix::new(3).add(3, 0);
    }

    #[test]
    #[should_panic(expected = "confusion matrix: predicted is 5, expected below 3")]
    fn a_prediction_out_of_range_panics() {
        ConfusionMatrix::new(3).extend(&[0, 0], &[1, 5]);
    }

    #[test]
    #[should_panic(expected = "confusion matrix: truth is -1, expected zero or more")]
    fn a_negative_class_panics() {
        ConfusionMatrix::new(3).extend(&[-1], &[1]);
    }

    #[test]
    #[should_panic(expected = "2 truths, 1 predictions (2 ≠ 1)")]
    fn lengths_that_differ_panic() {
        ConfusionMatrix::new(3).extend(&[0, 1], &[1]);
    }

    #[test]
    #[should_panic(expected = "expected a number of classes above zero")]
    fn no_class_panics() {
        ConfusionMatrix::new(0);
    }
}
