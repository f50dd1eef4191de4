//! The device's own clock: time by kernel over some steady steps.

use std::collections::HashMap;
use std::fmt;
use std::time::Instant;

use kiln::Result;
use kiln::ir::KernelTime;

use crate::place::Place;
use crate::row::Make;

/// Steps that are profiled at most.
const N_STEPS_MAX: usize = 20;

/// Time by kernel.
pub struct Profile {
    n_steps: usize,
    /// Name, how often in all steps, nanoseconds in all; longest first.
    kernels: Vec<(String, usize, f64)>,
}

impl Profile {
    /// Runs a row's case for about this long on a device that times kernels; `None` where it has no clock.
    ///
    /// # Errors
    /// If the device fails.
    pub fn take(place: &Place, make: Make, seconds: f64) -> Result<Option<Profile>> {
        kiln::manual_seed(0);
        let mut case = make(&place.device())?;
        for _ in 0..2 {
            (case.step)()?;
        }
        place.take_profile()?;
        let (start, mut n_steps, mut times) = (Instant::now(), 0, Vec::new());
        while n_steps == 0 || n_steps < N_STEPS_MAX && start.elapsed().as_secs_f64() < seconds {
            (case.step)()?;
            n_steps += 1;
            times.extend(place.take_profile()?);
        }
        Ok((!times.is_empty()).then(|| Profile::of(&times, n_steps)))
    }

    fn of(times: &[KernelTime], n_steps: usize) -> Profile {
        let mut kernels: HashMap<&str, (usize, f64)> = HashMap::new();
        for time in times {
            let (count, ns) = kernels.entry(&time.name).or_default();
            *count += 1;
            *ns += time.gpu_ns;
        }
        let mut kernels: Vec<_> = kernels.into_iter().map(|(name, (n, ns))| (name.to_owned(), n, ns)).collect();
        kernels.sort_by(|a, b| b.2.total_cmp(&a.2).then_with(|| a.0.cmp(&b.0)));
        Profile { n_steps, kernels }
    }

    /// Dispatches of a step.
    pub fn dispatches(&self) -> u64 {
        let total: usize = self.kernels.iter().map(|k| k.1).sum();
        (total as f64 / self.n_steps as f64).round() as u64
    }

    /// Milliseconds that a step's kernels run.
    pub fn gpu_ms(&self) -> f64 {
        self.kernels.iter().map(|k| k.2).sum::<f64>() / self.n_steps as f64 / 1e6
    }
}

/// One line a kernel: its share of the step, how often a step, the mean microseconds, the name.
impl fmt::Display for Profile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let all: f64 = self.kernels.iter().map(|k| k.2).sum();
        writeln!(f, "{:>6} {:>7} {:>10}  kernel", "share", "count", "mean µs")?;
        for (name, n, ns) in &self.kernels {
            let (share, count, mean) =
                (100.0 * ns / all.max(1.0), *n as f64 / self.n_steps as f64, ns / *n as f64 / 1e3);
            writeln!(f, "{share:5.1}% {count:7.1} {mean:10.2}  {name}")?;
        }
        writeln!(f, "{} dispatches, {:.4} ms a step over {} steps", self.dispatches(), self.gpu_ms(), self.n_steps)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernels_are_summed_by_name_and_sorted_by_time() {
        let time = |name: &str, gpu_ns| KernelTime { name: name.into(), begin_ns: 0.0, gpu_ns };
        let times = [time("map", 1e3), time("dot", 4e3), time("map", 2e3), time("dot", 5e3)];
        let profile = Profile::of(&times, 2);
        assert_eq!((profile.dispatches(), profile.gpu_ms()), (2, 6e-3));
        let text = profile.to_string();
        let rows: Vec<Vec<&str>> = text.lines().map(|l| l.split_whitespace().collect()).collect();
        assert_eq!(rows[1], ["75.0%", "1.0", "4.50", "dot"]);
        assert_eq!(rows[2], ["25.0%", "1.0", "1.50", "map"]);
    }
}
