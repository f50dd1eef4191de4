//! The clock: warm up for a third of the time, then measure until the time is over, exactly as the peer does.

use std::time::Instant;

use kiln::Result;

use crate::Case;
use crate::place::Place;
use crate::row::Make;

/// Batches of steps between two synchronisations of a GPU last about this long.
const BATCH_S: f64 = 0.002;

/// How long a row took.
pub struct Timing {
    /// From nothing to the first finished step, seconds.
    pub first_s: f64,
    /// Seconds a step, sorted; one for each batch of steps.
    pub seconds: Vec<f64>,
    /// Steps of a batch.
    pub batch: usize,
    /// Kernels of a steady step.
    pub n_kernels: u64,
}

impl Timing {
    /// The middle one, or the mean of the middle two.
    pub fn median(&self) -> f64 {
        let (low, high) = (self.seconds[(self.seconds.len() - 1) / 2], self.seconds[self.seconds.len() / 2]);
        (low + high) / 2.0
    }

    /// The time that so many of a hundred do not exceed.
    pub fn percentile(&self, n: usize) -> f64 {
        self.seconds[(self.seconds.len() * n / 100).min(self.seconds.len() - 1)]
    }
}

/// Makes a row's case and times it for about this long.
///
/// # Errors
/// If the device fails.
pub fn measure(place: &Place, make: Make, seconds: f64) -> Result<(Timing, Case)> {
    let start = Instant::now();
    kiln::manual_seed(0);
    let mut case = make(&place.device())?;
    (case.step)()?;
    place.sync()?;
    let first_s = start.elapsed().as_secs_f64();

    let batch = warm_up(place, &mut case, seconds / 3.0)?;
    let before = place.n_kernels();
    (case.step)()?;
    let n_kernels = place.n_kernels() - before;

    let mut times = Vec::new();
    let start = Instant::now();
    while start.elapsed().as_secs_f64() < seconds || times.len() < 3 {
        place.sync()?;
        let begun = Instant::now();
        for _ in 0..batch {
            (case.step)()?;
        }
        place.sync()?;
        times.push(begun.elapsed().as_secs_f64() / batch as f64);
    }
    times.sort_by(f64::total_cmp);
    Ok((Timing { first_s, seconds: times, batch, n_kernels }, case))
}

/// Steps until the time is over, and at least two; gives the number of steps of a batch.
///
/// A GPU is waited for after 1, 2, 4 and so on steps, so that a slow one has no queue to work off at the end.
fn warm_up(place: &Place, case: &mut Case, seconds: f64) -> Result<usize> {
    let start = Instant::now();
    let (mut n_steps, mut chunk, mut step_s) = (0, 1, 0.0);
    while start.elapsed().as_secs_f64() < seconds || n_steps < 2 {
        let begun = Instant::now();
        for _ in 0..chunk {
            (case.step)()?;
        }
        place.sync()?;
        let took = begun.elapsed().as_secs_f64();
        n_steps += chunk;
        step_s = took / chunk as f64;
        if place.is_asynchronous() && took < BATCH_S {
            chunk *= 2;
        }
    }
    Ok(if place.is_asynchronous() { batch_of(step_s) } else { 1 })
}

/// Steps that last [`BATCH_S`] together, at least one.
fn batch_of(step_s: f64) -> usize {
    ((BATCH_S / step_s.max(1e-9)) as usize).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn timing(seconds: &[f64]) -> Timing {
        Timing { first_s: 0.0, seconds: seconds.to_vec(), batch: 1, n_kernels: 0 }
    }

    #[test]
    fn figures_are_those_of_the_peer() {
        assert_eq!(timing(&[1.0, 2.0, 4.0]).median(), 2.0);
        assert_eq!(timing(&[1.0, 2.0, 4.0, 8.0]).median(), 3.0);
        let hundred: Vec<f64> = (0..100).map(f64::from).collect();
        assert_eq!(timing(&hundred).percentile(10), 10.0);
        assert_eq!(timing(&hundred).percentile(99), 99.0);
        assert_eq!(timing(&[1.0, 2.0, 4.0]).percentile(99), 4.0);
    }

    #[test]
    fn a_batch_fills_two_milliseconds() {
        assert_eq!(batch_of(0.0001), 20);
        assert_eq!(batch_of(1.0), 1);
        assert_eq!(batch_of(0.0), 2_000_000);
    }

    #[test]
    fn a_row_is_timed_at_least_three_times() {
        let place = Place::open(crate::place::Kind::Cpu, false).unwrap();
        let row = crate::rows::ROWS.iter().find(|row| row.name == "infer_tiny_mlp_b1").unwrap();
        let (timing, case) = measure(&place, row.make, 0.0).unwrap();
        assert!(timing.seconds.len() >= 3 && timing.n_kernels > 0);
        assert_eq!(case.unit, "steps/s");
    }
}
