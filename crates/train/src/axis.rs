//! An axis of a chart: where a value lies, which values get a tick, and how a tick reads.
//!
//! The plotting library's own axes go wrong at the ends that a diverged run reaches: a range whose width
//! overflows, or one narrower than `f64::EPSILON`. Here the range is widened when it is made, and a tick is a
//! whole multiple of a step, so their number is bounded.

use std::ops::Range;

use plotters::coord::ranged1d::{KeyPointHint, NoDefaultFormatting, Ranged, ValueFormatter};

/// Ticks aimed at on a linear axis.
const TICKS: f64 = 7.0;

/// A linear or logarithmic axis. True of every value: `low < high`, both are finite, and above zero if `log`.
#[derive(Clone, Debug)]
pub(crate) struct Axis {
    low: f64,
    high: f64,
    log: bool,
}

impl Axis {
    /// An axis for finite `values` with `margin` of its length left free at each end.
    ///
    /// # Panics
    /// If there is no value, or one is not finite, or below `f64::MIN_POSITIVE` while `log`.
    pub(crate) fn new(values: impl Iterator<Item = f64>, margin: f64, log: bool) -> Axis {
        let (low, high) = values.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), v| (v.min(low), v.max(high)));
        assert!(low <= high && low.is_finite() && high.is_finite(), "an axis needs finite values");
        if log {
            assert!(low >= f64::MIN_POSITIVE, "a logarithmic axis needs values above zero");
            let (low, high) = (low.log10(), high.log10());
            let free = ((high - low) * margin).max(0.02);
            let clamp = |v: f64| 10f64.powf(v).clamp(f64::MIN_POSITIVE, f64::MAX);
            return Axis { low: clamp(low - free), high: clamp(high + free), log };
        }
        let size = low.abs().max(high.abs());
        let free = match high / 2.0 - low / 2.0 {
            _ if size < 1e-300 => 1.0,                 // zero, or so small that a step would vanish
            half if half < size * 1e-6 => size * 0.05, // one value, give or take the rounding of f32
            half => (half * margin).min(f64::MAX / 4.0) * 2.0,
        };
        Axis { low: (low - free).max(f64::MIN), high: (high + free).min(f64::MAX), log }
    }

    /// Where `value` lies, 0 at the low end and 1 at the high one.
    fn fraction(&self, value: f64) -> f64 {
        // Half of each, since the width of a range may overflow.
        let half = |v: f64| if self.log { v.log10() } else { v / 2.0 };
        (half(value) - half(self.low)) / (half(self.high) - half(self.low))
    }

    fn decades(&self) -> f64 {
        self.high.log10() - self.low.log10()
    }

    /// The distance of two ticks of a linear axis: 1, 2 or 5 times a power of ten.
    fn step(&self) -> f64 {
        let raw = (self.high / TICKS - self.low / TICKS).max(f64::MIN_POSITIVE);
        let power = 10f64.powf(raw.log10().floor());
        let times = [1.0, 2.0, 5.0].into_iter().find(|times| times * power >= raw * 0.999);
        times.unwrap_or(10.0) * power
    }

    fn ticks(&self) -> Vec<f64> {
        // Below one decade a logarithmic axis has too few round powers, and is nearly linear.
        if !self.log || self.decades() < 1.0 {
            let step = self.step();
            let slack = 1e-9; // of a step: 6 · 0.00005 is above 0.0003 by rounding
            let first = (self.low / step - slack).ceil();
            let ticks = (0..=2 * TICKS as usize).map(|i| (first + i as f64) * step);
            return ticks.take_while(|&tick| tick - slack * step <= self.high).collect();
        }
        let every = (self.decades() / 8.0).ceil() as i32;
        let times: &[f64] = if self.decades() < 3.0 { &[1.0, 2.0, 5.0] } else { &[1.0] };
        let powers = self.low.log10().floor() as i32..=self.high.log10().ceil() as i32;
        let ticks = powers
            .filter(|power| power % every == 0)
            .flat_map(|power| times.iter().map(move |t| t * 10f64.powi(power)));
        ticks.filter(|tick| (self.low..=self.high).contains(tick)).collect()
    }

    /// A tick's text, with the digits that tell it from the next one.
    fn label(&self, tick: f64) -> String {
        let (step, size) = if self.log && self.decades() >= 1.0 {
            (tick, tick)
        } else {
            (self.step(), self.low.abs().max(self.high.abs()))
        };
        if tick.abs() < step / 2.0 {
            return "0".to_owned(); // also where rounding left -0
        }
        let power = |v: f64| (v.abs().log10() + 1e-9).floor() as i32; // a step is 1 - 1e-16 times its power at worst
        if (0.999e-3..0.999e6).contains(&size) {
            let decimals = (-power(step)).max(0) as usize;
            format!("{tick:.decimals$}")
        } else {
            let digits = (power(tick) - power(step)).max(0) as usize;
            format!("{tick:.digits$e}")
        }
    }
}

impl Ranged for Axis {
    type FormatOption = NoDefaultFormatting;
    type ValueType = f64;

    fn map(&self, value: &f64, (from, to): (i32, i32)) -> i32 {
        from + (f64::from(to - from) * self.fraction(*value)).round() as i32
    }

    fn key_points<Hint: KeyPointHint>(&self, _: Hint) -> Vec<f64> {
        self.ticks()
    }

    fn range(&self) -> Range<f64> {
        self.low..self.high
    }
}

impl ValueFormatter<f64> for Axis {
    fn format_ext(&self, tick: &f64) -> String {
        self.label(*tick)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(low: f64, high: f64, log: bool) -> String {
        let axis = Axis::new([low, high].into_iter(), 0.0, log);
        axis.ticks().into_iter().map(|tick| axis.label(tick)).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn linear_ticks_are_round() {
        assert_eq!(labels(0.0, 1.0, false), "0 0.2 0.4 0.6 0.8 1.0");
        assert_eq!(labels(1.0, 10.0, false), "2 4 6 8 10");
        assert_eq!(labels(-0.3, 2.31, false), "0 0.5 1.0 1.5 2.0");
        assert_eq!(labels(0.0, 23_000.0, false), "0 5000 10000 15000 20000");
        assert_eq!(labels(0.0, 3e6, false), "0 5e5 1.0e6 1.5e6 2.0e6 2.5e6 3.0e6");
        assert_eq!(labels(100.0, 100.003, false), "100.0000 100.0005 100.0010 100.0015 100.0020 100.0025 100.0030");
        assert_eq!(labels(0.0, 3e-4, false), "0 5e-5 1.0e-4 1.5e-4 2.0e-4 2.5e-4 3.0e-4");
        assert_eq!(labels(5.0, 5.0, false), "4.8 4.9 5.0 5.1 5.2");
    }

    #[test]
    fn logarithmic_ticks_are_powers_of_ten() {
        assert_eq!(labels(3e-4, 2.0, true), "0.001 0.01 0.1 1");
        assert_eq!(labels(1e-6, 0.02, true), "1e-6 1e-5 1e-4 0.001 0.01");
        assert_eq!(labels(0.03, 2.0, true), "0.05 0.1 0.2 0.5 1 2");
        assert_eq!(labels(0.5, 2.0, true), "0.5 1.0 1.5 2.0");
        assert_eq!(labels(1e-30, 1e30, true), "1e-24 1e-16 1e-8 1 1e8 1e16 1e24");
    }

    #[test]
    fn every_range_has_distinct_ticks_in_it() {
        let edges =
            [f64::MIN, -1e300, -1.0, -1e-9, -5e-324, 0.0, 5e-324, 1e-300, 1e-20, 1.0, 1.0 + 1e-15, 3.4e38, f64::MAX];
        for (i, &low) in edges.iter().enumerate() {
            for &high in &edges[i..] {
                for log in [false, true] {
                    if log && low < f64::MIN_POSITIVE {
                        continue;
                    }
                    let axis = Axis::new([low, high].into_iter(), 0.04, log);
                    assert!(axis.low < axis.high && axis.low.is_finite() && axis.high.is_finite(), "{axis:?}");
                    let ticks = axis.ticks();
                    assert!((2..=15).contains(&ticks.len()), "{low} {high} {axis:?} {ticks:?}");
                    assert!(ticks.is_sorted_by(|a, b| a < b), "{axis:?} {ticks:?}");
                    let labels: std::collections::HashSet<_> = ticks.iter().map(|&t| axis.label(t)).collect();
                    assert_eq!(labels.len(), ticks.len(), "{axis:?} {labels:?}");
                    for value in ticks.into_iter().chain([low, high]) {
                        assert!((-1e-9..=1.0 + 1e-9).contains(&axis.fraction(value)), "{axis:?} {value}");
                    }
                }
            }
        }
    }
}
