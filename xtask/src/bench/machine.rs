//! Where and when a table was measured, for its header.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::thread::available_parallelism;
use std::time::{SystemTime, UNIX_EPOCH};

use super::options::Options;
use crate::shell::{git, read};

/// The machine, the day and the versions.
pub(super) struct Machine {
    pub(super) processor: String,
    /// The adapter, on a GPU.
    pub(super) adapter: Option<String>,
    /// True iff one thread was kept busy all the time.
    pub(super) loaded: bool,
    pub(super) date: String,
    pub(super) kiln: String,
    pub(super) torch: Option<String>,
}

impl Machine {
    /// This machine, today.
    pub(super) fn here(table: &Path, options: &Options, torch: Option<&str>) -> Machine {
        let file = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let (cpu, memory) = (file("/proc/cpuinfo"), file("/proc/meminfo"));
        let n_cores = available_parallelism().map_or(1, |n| n.get());
        let adapter = (options.device == "gpu").then(|| {
            let mut command = Command::new(table);
            command.arg("--adapters");
            read(command).ok().and_then(|text| text.lines().next().map(str::to_owned)).unwrap_or("none".into())
        });
        let seconds = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        Machine {
            processor: processor(&cpu, &memory, n_cores),
            adapter,
            loaded: options.loaded,
            date: date(seconds),
            kiln: format!("Kiln {} ({}, release)", commit(), rustc()),
            torch: torch.map(|version| format!("PyTorch {version}")),
        }
    }
}

/// The model, the cores that we may use and the memory.
fn processor(cpuinfo: &str, meminfo: &str, n_cores: usize) -> String {
    let field = |text: &str, name: &str| -> Option<String> {
        let line = text.lines().find(|line| line.starts_with(name))?;
        Some(line.split_once(':')?.1.trim().to_owned())
    };
    let model = field(cpuinfo, "model name").unwrap_or_else(|| "unknown processor".into());
    let kib = field(meminfo, "MemTotal").and_then(|text| text.split_whitespace().next()?.parse::<f64>().ok());
    let wide = if cpuinfo.contains(" avx512f") { " with AVX-512" } else { "" };
    let memory = kib.map_or(String::new(), |kib| format!(", {:.0} GiB", kib / f64::from(1 << 20)));
    format!("{model}{wide}, {n_cores} cores{memory}")
}

/// The commit that was measured, marked if files differ from it.
fn commit() -> String {
    let described = read(git(&["describe", "--always", "--dirty=, changed"]));
    described.map_or_else(|_| env!("CARGO_PKG_VERSION").to_owned(), |text| text.trim().to_owned())
}

fn rustc() -> String {
    let mut command = Command::new("rustc");
    command.arg("--version");
    let words = read(command).unwrap_or_default();
    words.split_whitespace().take(2).collect::<Vec<_>>().join(" ")
}

/// The day as `2026-01-31`, in the calendar of Greenwich.
///
/// Howard Hinnant, `civil_from_days`, <https://howardhinnant.github.io/date_algorithms.html>; a year begins in March.
fn date(unix_seconds: u64) -> String {
    let days = unix_seconds / 86_400 + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    format!("{year}-{month:02}-{day:02}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_have_dates() {
        let days = [(0, "1970-01-01"), (951_782_400, "2000-02-29"), (1_798_675_199, "2026-12-30")];
        for (seconds, day) in days {
            assert_eq!(date(seconds), day);
        }
    }

    #[test]
    fn a_processor_is_read_from_the_kernel() {
        let cpuinfo = "processor\t: 0\nmodel name\t: Some CPU @ 2 GHz\nflags\t\t: fpu avx512f\n";
        assert_eq!(processor(cpuinfo, "MemTotal:  8388608 kB\n", 2), "Some CPU @ 2 GHz with AVX-512, 2 cores, 8 GiB");
        assert_eq!(processor("", "", 1), "unknown processor, 1 cores");
    }
}
