//! [`Progress`]: one epoch of training on stderr, as a bar that ends as a line.
//!
//! The bar belongs to a person who watches, the line to whoever reads the log later. So the bar is drawn only on
//! a terminal and erased at the end, and the line is the same plain text in both places.

use std::fmt;
use std::io::{self, Write};
use std::time::Instant;

use indicatif::{HumanCount, ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::Mean;
use crate::text::{number, plain};

/// The running metrics of one epoch, shown on stderr.
///
/// On a terminal a bar shows the metrics, samples/s and the time left, and [`Progress::finish`] puts a line in
/// its place. Elsewhere only that line is printed, without control characters. Dropped unfinished, it erases the
/// bar and prints nothing.
///
/// # Examples
/// ```
/// let mut progress = kiln_train::Progress::hidden("epoch 1/10", 2);
/// progress.step(64, &[("loss", 2.0), ("accuracy", 0.25)]);
/// progress.step(32, &[("loss", 5.0), ("accuracy", 1.0)]);
/// let summary = progress.finish();
/// assert_eq!((summary.samples, summary.metric("loss"), summary.metric("accuracy")), (96, Some(3.0), Some(0.5)));
/// ```
#[derive(Debug)]
#[must_use = "nothing is left on the screen before `finish`"]
pub struct Progress {
    label: String,
    /// Draws nothing if hidden, and where stderr is no terminal.
    bar: ProgressBar,
    hidden: bool,
    started: Instant,
    samples: usize,
    metrics: Vec<(String, Mean)>,
}

impl Progress {
    /// Starts the clock of an epoch of `n_batches`, shown as `label`, such as `epoch 3/10`.
    pub fn new(label: &str, n_batches: usize) -> Progress {
        Progress::on(ProgressDrawTarget::stderr(), false, label, n_batches)
    }

    /// The same, printing nothing, for tests and quiet runs.
    pub fn hidden(label: &str, n_batches: usize) -> Progress {
        Progress::on(ProgressDrawTarget::hidden(), true, label, n_batches)
    }

    fn on(target: ProgressDrawTarget, hidden: bool, label: &str, n_batches: usize) -> Progress {
        let style = ProgressStyle::with_template("{prefix} {bar:12} {pos}/{len} {eta} left  {wide_msg}")
            .expect("the template is a constant")
            .progress_chars("━╸ ");
        let label = plain(label);
        let bar = ProgressBar::with_draw_target(Some(n_batches as u64), target).with_style(style);
        let bar = bar.with_prefix(label.clone());
        Progress { label, bar, hidden, started: Instant::now(), samples: 0, metrics: Vec::new() }
    }

    /// Counts one batch: its number of samples, and the mean of each metric over them.
    ///
    /// Each metric is averaged over the samples so far that came with it, in `f64`; see [`Mean`].
    pub fn step(&mut self, n_samples: usize, metrics: &[(&str, f64)]) {
        self.samples += n_samples;
        for &(name, value) in metrics {
            let at = self.metrics.iter().position(|(known, _)| known == name).unwrap_or_else(|| {
                self.metrics.push((name.to_owned(), Mean::default()));
                self.metrics.len() - 1
            });
            self.metrics[at].1.add(value, n_samples);
        }
        if !self.bar.is_hidden() {
            let summary = self.summary();
            self.bar.inc(1);
            self.bar.set_message(plain(&format!("{}  {} samples/s", summary.metrics(), rate(summary.samples_per_s()))));
        }
    }

    /// Stops the clock and prints the line, such as
    /// `epoch 3/10: loss 0.1234, accuracy 0.9712 (1,437 samples in 2.1 s, 684 samples/s)`.
    pub fn finish(self) -> Summary {
        let summary = self.summary();
        self.bar.finish_and_clear();
        if !self.hidden {
            let line = plain(&format!("{}: {summary}", self.label)) + "\n";
            // A closed stderr must not end a training run, which `eprintln!` would.
            let _ = io::stderr().write_all(line.as_bytes());
        }
        summary
    }

    fn summary(&self) -> Summary {
        let metrics = self.metrics.iter().map(|(name, mean)| (name.clone(), mean.value())).collect();
        Summary { samples: self.samples, seconds: self.started.elapsed().as_secs_f64(), metrics }
    }
}

/// What an epoch came to.
///
/// # Examples
/// ```
/// let metrics = vec![("loss".to_string(), 0.12341), ("accuracy".to_string(), 0.97123)];
/// let summary = kiln_train::Summary { samples: 1437, seconds: 2.1, metrics };
/// let line = "loss 0.1234, accuracy 0.9712 (1,437 samples in 2.1 s, 684 samples/s)";
/// assert_eq!(summary.to_string(), line);
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Summary {
    /// Samples seen.
    pub samples: usize,
    /// Wall time from [`Progress::new`] to [`Progress::finish`].
    pub seconds: f64,
    /// Each metric's mean over its samples, in the order first seen.
    pub metrics: Vec<(String, f64)>,
}

impl Summary {
    /// Samples per second; 0 if no time passed.
    pub fn samples_per_s(&self) -> f64 {
        if self.seconds > 0.0 { self.samples as f64 / self.seconds } else { 0.0 }
    }

    /// The mean of the metric `name`; none if no step had it.
    pub fn metric(&self, name: &str) -> Option<f64> {
        self.metrics.iter().find(|(known, _)| known == name).map(|&(_, value)| value)
    }

    fn metrics(&self) -> String {
        let metrics: Vec<_> = self.metrics.iter().map(|(name, value)| format!("{name} {}", number(*value))).collect();
        metrics.join(", ")
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (samples, seconds, rate) = (HumanCount(self.samples as u64), self.seconds, rate(self.samples_per_s()));
        let times = format!("{samples} samples in {seconds:.1} s, {rate} samples/s");
        match self.metrics.is_empty() {
            true => f.write_str(&times),
            false => write!(f, "{} ({times})", self.metrics()),
        }
    }
}

/// Whole samples per second with thousands marked; one decimal where that would lose much.
fn rate(samples_per_s: f64) -> String {
    if samples_per_s < 10.0 {
        format!("{samples_per_s:.1}")
    } else {
        HumanCount(samples_per_s.round() as u64).to_string()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use indicatif::TermLike;

    use super::*;

    #[test]
    fn metrics_are_weighted_by_samples_and_keep_their_order() {
        let mut progress = Progress::hidden("e", 3);
        progress.step(3, &[("loss", 1.0), ("b", 8.0)]);
        progress.step(1, &[("loss", 5.0)]);
        progress.step(0, &[("a", f64::NAN)]);
        let summary = progress.finish();
        assert_eq!(summary.samples, 4);
        assert_eq!(summary.metrics[..2], [("loss".to_string(), 2.0), ("b".to_string(), 8.0)]);
        assert!(summary.metric("a").unwrap().is_nan() && summary.metric("c").is_none());
        assert!(summary.seconds > 0.0);
        assert_eq!(summary.samples_per_s(), 4.0 / summary.seconds);
    }

    #[test]
    fn the_line_reads_well_at_the_edges() {
        let empty = Summary { samples: 0, seconds: 0.0, metrics: vec![] };
        assert_eq!(empty.to_string(), "0 samples in 0.0 s, 0.0 samples/s");
        let fast = Summary { samples: 2_000_000, seconds: 0.5, metrics: vec![("lr".into(), 3e-4)] };
        assert_eq!(fast.to_string(), "lr 3.00e-4 (2,000,000 samples in 0.5 s, 4,000,000 samples/s)");
    }

    /// A terminal of 100 columns that remembers what was written.
    #[derive(Clone, Debug, Default)]
    struct Screen(Arc<Mutex<String>>);

    impl TermLike for Screen {
        fn width(&self) -> u16 {
            100
        }
        fn move_cursor_up(&self, _: usize) -> io::Result<()> {
            Ok(())
        }
        fn move_cursor_down(&self, _: usize) -> io::Result<()> {
            Ok(())
        }
        fn move_cursor_right(&self, _: usize) -> io::Result<()> {
            Ok(())
        }
        fn move_cursor_left(&self, _: usize) -> io::Result<()> {
            Ok(())
        }
        fn write_line(&self, line: &str) -> io::Result<()> {
            self.write_str(line)
        }
        fn write_str(&self, text: &str) -> io::Result<()> {
            self.0.lock().unwrap().push_str(text);
            Ok(())
        }
        fn clear_line(&self) -> io::Result<()> {
            self.write_str("\n")
        }
        fn flush(&self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_terminal_gets_a_bar_with_the_running_means() {
        let screen = Screen::default();
        let target = ProgressDrawTarget::term_like(Box::new(screen.clone()));
        let mut progress = Progress::on(target, true, "epoch 1/2", 4);
        progress.step(1, &[("loss", 1.0)]);
        progress.step(3, &[("loss", 5.0)]);
        let text = screen.0.lock().unwrap().clone();
        let bar = text.lines().last().unwrap();
        assert!(bar.starts_with("epoch 1/2 ━━━━━━╸      2/4 "), "{text}");
        assert!(bar.contains(" left  loss 4.0000  ") && bar.contains(" samples/s"), "{text}");
        progress.finish();
        let text = screen.0.lock().unwrap().clone();
        assert!(text.ends_with('\n'), "the bar is erased: {text:?}");
    }

    /// Not a test of its own: the epochs that `a_log_gets_one_plain_line_an_epoch` watches from outside.
    #[test]
    #[ignore = "run by another test, with its stderr in a pipe"]
    fn two_epochs() {
        for epoch in 1..=2 {
            let mut progress = Progress::new(&format!("epoch\n{epoch}/2"), 50);
            for _ in 0..50 {
                progress.step(64, &[("lo\x1bss", 0.5)]);
            }
            progress.finish();
        }
        Progress::hidden("quiet", 1).finish();
        drop(Progress::new("unfinished", 1));
    }

    #[test]
    fn a_log_gets_one_plain_line_an_epoch() {
        let child = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "progress::tests::two_epochs", "--ignored", "--nocapture"])
            .output()
            .unwrap();
        assert!(child.status.success());
        let log = String::from_utf8(child.stderr).unwrap();
        let lines: Vec<_> = log.lines().collect();
        assert_eq!(lines.len(), 2, "{log:?}");
        assert!(lines[0].starts_with("epoch 1/2: lo ss 0.5000 (3,200 samples in "), "{log:?}");
        assert!(lines[1].starts_with("epoch 2/2: ") && lines[1].ends_with(" samples/s)"), "{log:?}");
        assert!(log.chars().all(|c| c == '\n' || !c.is_control()), "{log:?}");
    }
}
