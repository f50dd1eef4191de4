//! Learning rates over the steps of a run.

use std::f64::consts::PI;

/// The learning rate of each step: a linear warm-up, then constant, cosine or linear decay.
///
/// ```
/// # use kiln_nn::Schedule;
/// let lr = Schedule::cosine(0.1, 110).warmup(10);
/// assert_eq!([lr.at(0), lr.at(9)], [0.01, 0.1]);
/// assert!((lr.at(60) - 0.05).abs() < 1e-12 && lr.at(110) == 0.0);
/// assert_eq!(Schedule::from(1e-3).at(7), 1e-3);
/// ```
///
/// Loshchilov and Hutter 2016, <https://arxiv.org/abs/1608.03983>, eq. 5, without restarts.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Schedule {
    peak: f64,
    warmup: u64,
    floor: f64,
    decay: Decay,
}

#[derive(Clone, Copy, PartialEq, Debug)]
enum Decay {
    Constant,
    Cosine { n_steps: u64 },
    Linear { n_steps: u64 },
}

impl Schedule {
    fn new(peak: f64, decay: Decay) -> Schedule {
        assert!(peak.is_finite() && peak >= 0.0, "schedule: learning rate {peak}");
        Schedule { peak, warmup: 0, floor: 0.0, decay }
    }

    /// The same rate at every step.
    ///
    /// # Panics
    /// If the rate is negative or not finite, as with every constructor.
    pub fn constant(lr: f64) -> Schedule {
        Schedule::new(lr, Decay::Constant)
    }

    /// From `peak` along half a cosine to the floor at step `n_steps`, the warm-up counted in.
    pub fn cosine(peak: f64, n_steps: u64) -> Schedule {
        Schedule::new(peak, Decay::Cosine { n_steps })
    }

    /// From `peak` along a line to the floor at step `n_steps`, the warm-up counted in.
    pub fn linear(peak: f64, n_steps: u64) -> Schedule {
        Schedule::new(peak, Decay::Linear { n_steps })
    }

    /// Rises along a line over the first `n_steps` steps; the last of them has the peak rate.
    pub fn warmup(self, n_steps: u64) -> Schedule {
        Schedule { warmup: n_steps, ..self }
    }

    /// The rate at the end of the decay, 0 if not said.
    pub fn floor(self, lr: f64) -> Schedule {
        Schedule { floor: lr, ..self }
    }

    /// The rate of a step, counted from 0.
    pub fn at(&self, step: u64) -> f64 {
        if step < self.warmup {
            return self.peak * (step + 1) as f64 / self.warmup as f64;
        }
        let progress = |n_steps: u64| {
            let whole = n_steps.saturating_sub(self.warmup).max(1) as f64;
            ((step - self.warmup) as f64 / whole).min(1.0)
        };
        let left = match self.decay {
            Decay::Constant => return self.peak,
            Decay::Cosine { n_steps } => (1.0 + (PI * progress(n_steps)).cos()) / 2.0,
            Decay::Linear { n_steps } => 1.0 - progress(n_steps),
        };
        self.floor + (self.peak - self.floor) * left
    }
}

/// A constant rate.
impl From<f64> for Schedule {
    fn from(lr: f64) -> Schedule {
        Schedule::constant(lr)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_schedule_rises_falls_and_stays() {
        let lr = Schedule::linear(1.0, 14).warmup(4).floor(0.5);
        let rates: Vec<f64> = [0, 1, 3, 4, 9, 14, 99].map(|s| lr.at(s)).to_vec();
        assert_eq!(rates, [0.25, 0.5, 1.0, 1.0, 0.75, 0.5, 0.5]);
    }

    #[test]
    fn a_warmup_longer_than_the_run_is_finite() {
        let lr = Schedule::cosine(1.0, 5).warmup(10);
        assert!((0..20).all(|s| lr.at(s).is_finite() && lr.at(s) <= 1.0));
    }
}
