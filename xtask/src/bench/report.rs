//! The Markdown table.

use super::join::{Limits, Row, geometric_mean};
use super::machine::Machine;

/// The whole report.
pub(super) fn markdown(machine: &Machine, command: &str, limits: &Limits, rows: &[Row]) -> String {
    let mut text = String::new();
    let mut line = |s: String| {
        text.push_str(&s);
        text.push('\n');
    };
    line(format!("- machine: {}", machine.processor));
    if let Some(adapter) = &machine.adapter {
        line(format!("- adapter: {adapter}"));
    }
    if let (Some(copy), Some(fma)) = (limits.copy_gb_s, limits.fma_gflop_s) {
        line(format!("- measured limits: copy {copy:.1} GB/s, multiply-add {fma:.0} GFLOP/s"));
    }
    line(format!("- date: {}", machine.date));
    line(format!("- versions: {}; {}", machine.kiln, machine.torch.as_deref().unwrap_or("no peer")));
    line(format!("- command: `{command}`; the middle of three turns; theirs is the best way to run it"));
    line(String::new());
    line("| workload | ours ms | theirs ms | ratio | rate | unit | of limit |".into());
    line("|---|--:|--:|--:|--:|---|--:|".into());
    rows.iter().for_each(|row| line(table_row(row, limits)));
    line(String::new());
    summary(rows).into_iter().for_each(line);
    text
}

fn table_row(row: &Row, limits: &Limits) -> String {
    let (ours, rate, unit) = match &row.ours {
        Ok(side) => (figure(side.median_ms), figure(side.rate), side.unit.as_str()),
        Err(_) => ("failed".to_owned(), String::new(), ""),
    };
    let theirs = match &row.theirs {
        None => String::new(),
        Some(Err(_)) => "failed".to_owned(),
        Some(Ok(side)) if side.way == "eager" => figure(side.median_ms),
        Some(Ok(side)) => format!("{} ({})", figure(side.median_ms), side.way),
    };
    let ratio = match row.ratio() {
        None => String::new(),
        Some(ratio) if ratio < 1.0 => format!("**{ratio:.2} lost**"),
        Some(ratio) => format!("{ratio:.2}"),
    };
    let of_limit = row.of_limit(limits).map_or(String::new(), |part| format!("{:.0} %", part * 100.0));
    format!("| `{}` | {ours} | {theirs} | {ratio} | {rate} | {unit} | {of_limit} |", row.name)
}

/// The mean, what was lost, what failed and what cannot be compared.
fn summary(rows: &[Row]) -> Vec<String> {
    let mut lines = Vec::new();
    let ratios: Vec<f64> = rows.iter().filter_map(Row::ratio).collect();
    if let Some(mean) = geometric_mean(&ratios) {
        lines.push(format!("Geometric mean of {} ratios: {mean:.2}.", ratios.len()));
        let lost: Vec<String> = rows
            .iter()
            .filter(|row| row.ratio().is_some_and(|r| r < 1.0))
            .map(|row| format!("`{}`", row.name))
            .collect();
        if !lost.is_empty() {
            lines.push(format!("Lost, {} of {}: {}.", lost.len(), ratios.len(), lost.join(", ")));
        }
    }
    for row in rows {
        if let Err(error) = &row.ours {
            lines.push(format!("`{}` failed: {error}", row.name));
        }
        match (&row.ours, &row.theirs) {
            (_, Some(Err(error))) => lines.push(format!("`{}` failed in the peer: {error}", row.name)),
            (Ok(ours), Some(Ok(theirs))) if ours.unit != theirs.unit => {
                lines.push(format!("`{}` counts {} here and {} there", row.name, ours.unit, theirs.unit));
            }
            _ => {}
        }
    }
    lines
}

/// A row in a few words, while the others run.
pub(super) fn brief(row: &Row) -> String {
    let side = |side: &Result<super::join::Side, String>| match side {
        Ok(side) => format!("{} ms", figure(side.median_ms)),
        Err(error) => format!("failed ({error})"),
    };
    let ratio = row.ratio().map_or(String::new(), |ratio| format!(", ratio {ratio:.2}"));
    let theirs = row.theirs.as_ref().map_or(String::new(), |theirs| format!(", theirs {}", side(theirs)));
    format!("ours {}{theirs}{ratio}", side(&row.ours))
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
    use super::super::join::Side;
    use super::*;

    fn side(median_ms: f64, way: &str) -> Side {
        Side { median_ms, rate: 20.0, unit: "GB/s".into(), way: way.into() }
    }

    #[test]
    fn the_table_shows_what_was_won_lost_and_failed() {
        let row = |name: &str, ours, theirs| Row { name: name.into(), ours, theirs };
        let rows = [
            row("won", Ok(side(2.0, "implicit")), Some(Ok(side(8.0, "jemalloc")))),
            row("lost", Ok(side(4.0, "implicit")), Some(Ok(side(1.0, "eager")))),
            row("broken", Err("dims differ".into()), Some(Ok(side(1.0, "eager")))),
            row("alone", Ok(side(0.0123, "implicit")), None),
        ];
        let machine = Machine {
            processor: "Some CPU".into(),
            adapter: None,
            date: "2026-01-31".into(),
            kiln: "Kiln abc".into(),
            torch: None,
        };
        let limits = Limits { copy_gb_s: Some(40.0), fma_gflop_s: Some(100.0) };
        let text = markdown(&machine, "cargo xtask bench", &limits, &rows);
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
}
