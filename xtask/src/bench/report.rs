//! The Markdown table.

use super::join::{Limits, Row, Side, geometric_mean};
use super::machine::Machine;
use super::options::{Options, TURNS};

/// The whole report; `others` are the names of the Rust peers.
pub(super) fn markdown(machine: &Machine, options: &Options, limits: &Limits, others: &[&str], rows: &[Row]) -> String {
    let mut text = String::new();
    let mut line = |s: String| {
        text.push_str(&s);
        text.push('\n');
    };
    line(format!("- machine: {}", machine.processor));
    if let Some(adapter) = &machine.adapter {
        line(format!("- adapter: {adapter}"));
    }
    if machine.loaded {
        line("- loaded: one more thread was busy all the time, at normal priority".into());
    }
    if let (Some(copy), Some(fma)) = (limits.copy_gb_s, limits.fma_gflop_s) {
        line(format!("- measured limits: copy {copy:.1} GB/s, multiply-add {fma:.0} GFLOP/s"));
    }
    line(format!("- date: {}", machine.date));
    line(format!("- versions: {}; {}", machine.kiln, machine.torch.as_deref().unwrap_or("no PyTorch")));
    let command = options.shown();
    let turns = match options.turns {
        TURNS => "the middle of three turns".to_owned(),
        n => format!("the middle of {n} turns, or of three where a step takes long"),
    };
    line(format!(
        "- command: `{command}`; {turns}; theirs is the best way to run it, of which one that takes twice as long is run once"
    ));
    line(String::new());
    let columns: String = others.iter().map(|name| format!(" {name} ms |")).collect();
    let jit = rows.iter().any(|row| row.jit.is_some());
    let (jit_column, jit_line) = if jit { (" jit ms |", "--:|") } else { ("", "") };
    line(format!("| workload | ours ms |{jit_column} theirs ms | ratio | rate | unit | of limit |{columns}"));
    line(format!("|---|--:|{jit_line}--:|--:|--:|---|--:|{}", "--:|".repeat(others.len())));
    rows.iter().for_each(|row| line(table_row(row, limits, jit)));
    line(String::new());
    summary(rows).into_iter().for_each(&mut line);
    peaks(rows).into_iter().for_each(&mut line);
    others.iter().enumerate().for_each(|(n, name)| beside(n, name, rows).into_iter().for_each(&mut line));
    text
}

fn table_row(row: &Row, limits: &Limits, jit: bool) -> String {
    let (ours, rate, unit) = match &row.ours {
        Ok(side) => (figure(side.median_ms), figure(side.rate), side.unit.as_str()),
        Err(_) => ("failed".to_owned(), String::new(), ""),
    };
    let jit = if jit { format!(" {} |", cell(row.jit.as_ref())) } else { String::new() };
    let theirs = cell(row.theirs.as_ref());
    let ratio = match row.ratio() {
        None => String::new(),
        Some(ratio) if ratio < 1.0 => format!("**{ratio:.2} lost**"),
        Some(ratio) => format!("{ratio:.2}"),
    };
    let of_limit = row.of_limit(limits).map_or(String::new(), |part| format!("{:.0} %", part * 100.0));
    let others: String = row.others.iter().map(|side| format!(" {} |", cell(side.as_ref()))).collect();
    format!("| `{}` | {ours} |{jit} {theirs} | {ratio} | {rate} | {unit} | {of_limit} |{others}", row.name)
}

/// The time of another side, and how it ran if not as usual.
fn cell(side: Option<&Result<Side, String>>) -> String {
    match side {
        None => String::new(),
        Some(Err(_)) => "failed".to_owned(),
        Some(Ok(side)) if ["", "eager", "jit"].contains(&side.way.as_str()) => figure(side.median_ms),
        Some(Ok(side)) => format!("{} ({})", figure(side.median_ms), side.way),
    }
}

/// The mean, what was lost, what failed and what cannot be compared.
fn summary(rows: &[Row]) -> Vec<String> {
    let mut lines = Vec::new();
    let ratios: Vec<f64> = rows.iter().filter_map(Row::ratio).collect();
    if let Some(mean) = geometric_mean(&ratios) {
        lines.push(format!("Geometric mean of {} ratios: {mean:.2}.", ratios.len()));
        let lost = quoted(rows.iter().filter(|row| row.ratio().is_some_and(|ratio| ratio < 1.0)));
        if !lost.is_empty() {
            lines.push(format!("Lost, {} of {}: {}.", lost.len(), ratios.len(), lost.join(", ")));
        }
    }
    for row in rows {
        if let Err(error) = &row.ours {
            lines.push(format!("`{}` failed: {error}", row.name));
        }
        lines.extend(doubt(row, "jit", row.jit.as_ref()));
        lines.extend(doubt(row, "the peer", row.theirs.as_ref()));
    }
    lines
}

/// The memory of both sides in rows that train: the whole process, of theirs with its interpreter.
fn peaks(rows: &[Row]) -> Option<String> {
    let of_row = |row: &Row| {
        let (Ok(ours), Some(Ok(theirs))) = (&row.ours, &row.theirs) else { return None };
        Some(format!("`{}` {} and {}", row.name, ours.peak_mb?, theirs.peak_mb?))
    };
    let all: Vec<String> = rows.iter().filter(|row| row.name.starts_with("train_")).filter_map(of_row).collect();
    (!all.is_empty()).then(|| format!("Most memory held, MB, ours and theirs: {}.", all.join(", ")))
}

/// On how many rows Kiln is ahead of a Rust peer, where it is not, and what cannot be compared.
fn beside(n: usize, name: &str, rows: &[Row]) -> Vec<String> {
    let both: Vec<&Row> = rows.iter().filter(|row| row.other_ratio(n).is_some()).collect();
    let behind: Vec<&Row> = both.iter().copied().filter(|row| row.other_ratio(n).is_some_and(|r| r <= 1.0)).collect();
    let mut ahead = format!("Ahead of {name} on {} of {} rows", both.len() - behind.len(), both.len());
    if !behind.is_empty() {
        ahead.push_str(&format!("; not on {}", quoted(behind.iter().copied()).join(", ")));
    }
    ahead.push('.');
    let n_jit = behind.iter().filter(|row| row.jit_ratio(n).is_some_and(|r| r > 1.0)).count();
    if n_jit > 0 {
        ahead.push_str(&format!(" With jit, on {}.", both.len() - behind.len() + n_jit));
    }
    std::iter::once(ahead).chain(rows.iter().filter_map(|row| doubt(row, name, row.others[n].as_ref()))).collect()
}

/// Why a row of another side cannot be compared with ours.
fn doubt(row: &Row, whose: &str, side: Option<&Result<Side, String>>) -> Option<String> {
    match (&row.ours, side?) {
        (_, Err(error)) => Some(format!("`{}` failed in {whose}: {error}", row.name)),
        (Ok(ours), Ok(theirs)) if ours.unit != theirs.unit => {
            Some(format!("`{}` counts {} here and {} in {whose}", row.name, ours.unit, theirs.unit))
        }
        _ => None,
    }
}

fn quoted<'a>(rows: impl Iterator<Item = &'a Row>) -> Vec<String> {
    rows.map(|row| format!("`{}`", row.name)).collect()
}

/// A row in a few words, while the others run.
pub(super) fn brief(row: &Row, others: &[&str]) -> String {
    let side = |side: &Result<Side, String>| match side {
        Ok(side) => format!("{} ms", figure(side.median_ms)),
        Err(error) => format!("failed ({error})"),
    };
    let ratio = row.ratio().map_or(String::new(), |ratio| format!(", ratio {ratio:.2}"));
    let theirs = row.theirs.as_ref().map_or(String::new(), |theirs| format!(", theirs {}", side(theirs)));
    let of_other = |(other, name): (&Option<_>, &&str)| Some(format!(", {name} {}", side(other.as_ref()?)));
    let others: String = row.others.iter().zip(others).filter_map(of_other).collect();
    format!("ours {}{theirs}{ratio}{others}", side(&row.ours))
}

/// Three digits or more.
fn figure(value: f64) -> String {
    match value.abs() {
        v if v >= 100.0 => format!("{value:.0}"),
        v if v >= 10.0 => format!("{value:.1}"),
        v if v >= 1.0 => format!("{value:.2}"),
        v if v >= 0.1 => format!("{value:.3}"),
        _ => format!("{value:.4}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn side(median_ms: f64, way: &str) -> Side {
        Side { median_ms, rate: 20.0, unit: "GB/s".into(), way: way.into(), peak_mb: None }
    }

    fn machine(loaded: bool) -> Machine {
        Machine {
            processor: "Some CPU".into(),
            adapter: None,
            loaded,
            date: "2026-01-31".into(),
            kiln: "Kiln abc".into(),
            torch: None,
        }
    }

    fn usual() -> Options {
        Options::parse(&[]).unwrap()
    }

    #[test]
    fn the_table_shows_what_was_won_lost_and_failed() {
        let row = |name: &str, ours, theirs| Row { name: name.into(), ours, jit: None, theirs, others: Vec::new() };
        let rows = [
            row("won", Ok(side(2.0, "implicit")), Some(Ok(side(8.0, "jemalloc")))),
            row("lost", Ok(side(4.0, "implicit")), Some(Ok(side(1.0, "eager")))),
            row("broken", Err("dims differ".into()), Some(Ok(side(1.0, "eager")))),
            row("alone", Ok(side(0.0123, "implicit")), None),
        ];
        let limits = Limits { copy_gb_s: Some(40.0), fma_gflop_s: Some(100.0) };
        let text = markdown(&machine(false), &usual(), &limits, &[], &rows);
        for expected in [
            "- machine: Some CPU\n",
            "- measured limits: copy 40.0 GB/s, multiply-add 100 GFLOP/s\n",
            "| `won` | 2.00 | 8.00 (jemalloc) | 4.00 | 20.0 | GB/s | 50 % |\n",
            "| `lost` | 4.00 | 1.00 | **0.25 lost** | 20.0 | GB/s | 50 % |\n",
            "| `broken` | failed | 1.00 |  |  |  |  |\n",
            "| `alone` | 0.0123 |  |  | 20.0 | GB/s | 50 % |\n",
            "\nGeometric mean of 2 ratios: 1.00.\nLost, 1 of 2: `lost`.\n`broken` failed: dims differ\n",
        ] {
            assert!(text.contains(expected), "{expected:?} in\n{text}");
        }
    }

    #[test]
    fn rust_peers_have_a_column_and_a_line_each() {
        let row = |name: &str, others| Row {
            name: name.into(),
            ours: Ok(side(2.0, "implicit")),
            jit: None,
            theirs: None,
            others,
        };
        let other = |median_ms| Some(Ok(side(median_ms, "")));
        let rows = [
            row("a", vec![other(6.0), other(1.0)]),
            row("b", vec![other(2.5), None]),
            row("c", vec![None, Some(Err("no".into()))]),
        ];
        let text = markdown(&machine(true), &usual(), &Limits::default(), &["burn", "candle"], &rows);
        for expected in [
            "- loaded: one more thread was busy all the time, at normal priority\n",
            " of limit | burn ms | candle ms |\n|---|--:|--:|--:|--:|---|--:|--:|--:|\n",
            "| `a` | 2.00 |  |  | 20.0 | GB/s |  | 6.00 | 1.00 |\n",
            "| `b` | 2.00 |  |  | 20.0 | GB/s |  | 2.50 |  |\n",
            "| `c` | 2.00 |  |  | 20.0 | GB/s |  |  | failed |\n",
            "\nAhead of burn on 2 of 2 rows.\nAhead of candle on 0 of 1 rows; not on `a`.\n`c` failed in candle: no\n",
        ] {
            assert!(text.contains(expected), "{expected:?} in\n{text}");
        }
        assert_eq!(brief(&rows[1], &["burn", "candle"]), "ours 2.00 ms, burn 2.50 ms");
    }

    #[test]
    fn memory_is_told_of_rows_that_train() {
        let held = |peak_mb| Ok(Side { peak_mb, ..side(2.0, "") });
        let row = |name: &str, ours, theirs| Row {
            name: name.into(),
            ours: held(ours),
            jit: None,
            theirs: Some(held(theirs)),
            others: Vec::new(),
        };
        let rows =
            [row("softmax", Some(1), Some(2)), row("train_a", Some(10), Some(700)), row("train_b", None, Some(3))];
        assert_eq!(peaks(&rows).as_deref(), Some("Most memory held, MB, ours and theirs: `train_a` 10 and 700."));
        assert_eq!(peaks(&rows[..1]), None);
    }

    #[test]
    fn steps_that_are_recorded_once_have_a_column() {
        let row = |name: &str, jit| Row {
            name: name.into(),
            ours: Ok(side(2.0, "implicit")),
            jit,
            theirs: None,
            others: vec![Some(Ok(side(1.5, "")))],
        };
        let rows =
            [row("a", Some(Ok(side(1.0, "jit")))), row("b", None), row("c", Some(Err("a value is read".into())))];
        let text = markdown(&machine(false), &usual(), &Limits::default(), &["burn"], &rows);
        for expected in [
            "| workload | ours ms | jit ms | theirs ms | ratio | rate | unit | of limit | burn ms |\n",
            "|---|--:|--:|--:|--:|--:|---|--:|--:|\n",
            "| `a` | 2.00 | 1.00 |  |  | 20.0 | GB/s |  | 1.50 |\n",
            "| `b` | 2.00 |  |  |  | 20.0 | GB/s |  | 1.50 |\n",
            "| `c` | 2.00 | failed |  |  | 20.0 | GB/s |  | 1.50 |\n",
            "`c` failed in jit: a value is read\n",
            "Ahead of burn on 0 of 3 rows; not on `a`, `b`, `c`. With jit, on 1.\n",
        ] {
            assert!(text.contains(expected), "{expected:?} in\n{text}");
        }
    }
}
