//! [`EarlyStopping`]: ends a run whose validation loss no longer falls.
//!
//! Each value is compared with the best so far, never with the last, so a slow drift upwards is not read as
//! improvement.

/// Says when a value that should fall has stopped falling.
///
/// True of every state: `should_stop` iff the last `patience` values in a row did not improve. Default: any
/// fall counts, `minimum_delta` is 0. For a value that should rise, pass its negative.
///
/// # Examples
/// ```
/// use kiln_train::EarlyStopping;
/// let mut stopping = EarlyStopping::new(2).minimum_delta(0.01);
/// let improved: Vec<bool> = [1.0, 0.8, 0.795, 0.9].map(|loss| stopping.improved(loss)).into();
/// assert_eq!(improved, [true, true, false, false]);
/// assert!(stopping.should_stop());
/// assert_eq!(stopping.best(), Some(0.8));
/// ```
///
/// Prechelt 1998, "Early Stopping: But When?", the criterion UP in its simplest form.
#[derive(Clone, Debug, PartialEq)]
pub struct EarlyStopping {
    patience: usize,
    minimum_delta: f64,
    best: Option<f64>,
    /// Values in a row that did not improve.
    stale: usize,
}

impl EarlyStopping {
    /// Stops after `patience` values in a row without improvement.
    ///
    /// # Panics
    /// If `patience` is zero, which would stop before the first value.
    #[track_caller]
    pub fn new(patience: usize) -> EarlyStopping {
        assert!(patience > 0, "early stopping: expected a patience above zero");
        EarlyStopping { patience, minimum_delta: 0.0, best: None, stale: 0 }
    }

    /// A value improves iff it is below `best - delta`.
    ///
    /// # Panics
    /// If `delta` is negative or not finite.
    #[must_use]
    #[track_caller]
    pub fn minimum_delta(self, delta: f64) -> EarlyStopping {
        assert!(delta.is_finite() && delta >= 0.0, "minimum_delta: expected zero or more and finite, found {delta}");
        EarlyStopping { minimum_delta: delta, ..self }
    }

    /// Takes the next value; true iff it is the new best, the moment to save a checkpoint.
    ///
    /// Numerics: NaN never improves. The first value that is not NaN is the best so far.
    pub fn improved(&mut self, value: f64) -> bool {
        let improved = match self.best {
            Some(best) => value < best - self.minimum_delta,
            None => !value.is_nan(),
        };
        if improved {
            self.best = Some(value);
            self.stale = 0;
        } else {
            self.stale += 1;
        }
        improved
    }

    /// True iff the last `patience` values did not improve.
    pub fn should_stop(&self) -> bool {
        self.stale >= self.patience
    }

    /// The best value so far; none before the first improvement.
    pub fn best(&self) -> Option<f64> {
        self.best
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stops_after(patience: usize, delta: f64, values: &[f64]) -> Option<usize> {
        let mut stopping = EarlyStopping::new(patience).minimum_delta(delta);
        values.iter().position(|&value| {
            stopping.improved(value);
            stopping.should_stop()
        })
    }

    #[test]
    fn patience_counts_values_in_a_row() {
        assert_eq!(stops_after(1, 0.0, &[3.0, 2.0, 2.0]), Some(2)); // equal is no improvement
        assert_eq!(stops_after(2, 0.0, &[3.0, 4.0, 2.0, 4.0, 1.0]), None);
        assert_eq!(stops_after(2, 0.0, &[3.0, 2.0, 2.5, 2.2]), Some(3));
    }

    #[test]
    fn a_drift_smaller_than_delta_stops() {
        assert_eq!(stops_after(3, 0.5, &[3.0, 2.9, 2.8, 2.7, 2.6]), Some(3));
        assert_eq!(stops_after(3, 0.15, &[3.0, 2.9, 2.8, 2.7, 2.6]), None); // every second one is below best - delta
    }

    #[test]
    fn nan_never_improves() {
        assert_eq!(stops_after(2, 0.0, &[f64::NAN, f64::NAN]), Some(1));
        let mut stopping = EarlyStopping::new(2);
        assert!(!stopping.improved(f64::NAN));
        assert_eq!(stopping.best(), None);
        assert!(stopping.improved(7.0));
        assert!(!stopping.improved(f64::NAN));
        assert_eq!(stopping.best(), Some(7.0));
    }

    #[test]
    #[should_panic(expected = "expected a patience above zero")]
    fn no_patience_panics() {
        EarlyStopping::new(0);
    }

    #[test]
    #[should_panic(expected = "expected zero or more and finite, found -0.5")]
    fn a_negative_delta_panics() {
        let _ = EarlyStopping::new(1).minimum_delta(-0.5);
    }
}
