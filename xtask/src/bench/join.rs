//! From lines to rows: the middle of three turns, the best of the peer's ways, and their ratio. Pure.

use serde_json::Value;

use super::run::Turn;

/// What a side achieved.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Side {
    pub(super) median_ms: f64,
    pub(super) rate: f64,
    pub(super) unit: String,
    /// How it ran.
    pub(super) way: String,
    /// The most megabytes that its process held, where that is known.
    pub(super) peak_mb: Option<u64>,
}

/// A row of the report.
#[derive(Debug, PartialEq)]
pub(super) struct Row {
    pub(super) name: String,
    pub(super) ours: Result<Side, String>,
    /// With steps that are recorded once; `None` where that makes no difference.
    pub(super) jit: Option<Result<Side, String>>,
    /// `None` without a peer.
    pub(super) theirs: Option<Result<Side, String>>,
    /// Of each Rust peer; `None` if it lacks the row.
    pub(super) others: Vec<Option<Result<Side, String>>>,
}

/// What the machine can do at most, where that was measured.
#[derive(Default)]
pub(super) struct Limits {
    pub(super) copy_gb_s: Option<f64>,
    pub(super) fma_gflop_s: Option<f64>,
}

impl Row {
    /// All turns of a row, joined.
    pub(super) fn of(name: &str, turns: Vec<Turn>) -> Row {
        let ours = middle("implicit", turns.iter().map(|turn| &turn.ours).collect());
        let lines_of_jit: Vec<&Value> = turns.iter().filter_map(|turn| turn.jit.as_ref()).collect();
        let jit = (!lines_of_jit.is_empty()).then(|| middle("jit", lines_of_jit));
        let ways: Vec<&str> = turns.first().map_or(Vec::new(), |turn| turn.theirs.iter().map(|t| t.0).collect());
        let of_way = |(n, way): (usize, &&str)| middle(way, turns.iter().map(|turn| &turn.theirs[n].1).collect());
        let theirs = best(ways.iter().enumerate().map(of_way).collect());
        let n_others = turns.first().map_or(0, |turn| turn.others.len());
        let of_other = |n: usize| {
            let lines: Vec<&Value> = turns.iter().filter_map(|turn| turn.others[n].as_ref()).collect();
            (!lines.is_empty()).then(|| middle("", lines))
        };
        let others = (0..n_others).map(of_other).collect();
        Row { name: name.to_owned(), ours, jit, theirs, others }
    }

    /// Their time over ours: above 1, Kiln is faster.
    pub(super) fn ratio(&self) -> Option<f64> {
        over(Some(&self.ours), self.theirs.as_ref())
    }

    /// The same of a Rust peer.
    pub(super) fn other_ratio(&self, n: usize) -> Option<f64> {
        over(Some(&self.ours), self.others[n].as_ref())
    }

    /// The same of a Rust peer, over our time with steps that are recorded once.
    pub(super) fn jit_ratio(&self, n: usize) -> Option<f64> {
        over(self.jit.as_ref(), self.others[n].as_ref())
    }

    /// Our rate as a part of what the machine can do, for rates that have a limit.
    pub(super) fn of_limit(&self, limits: &Limits) -> Option<f64> {
        let ours = self.ours.as_ref().ok()?;
        let limit = match ours.unit.as_str() {
            "GB/s" => limits.copy_gb_s,
            "GFLOP/s" => limits.fma_gflop_s,
            _ => None,
        };
        limit.map(|limit| ours.rate / limit)
    }
}

/// Their time over ours, where both have one.
fn over(ours: Option<&Result<Side, String>>, theirs: Option<&Result<Side, String>>) -> Option<f64> {
    match (ours, theirs) {
        (Some(Ok(ours)), Some(Ok(theirs))) => Some(theirs.median_ms / ours.median_ms),
        _ => None,
    }
}

/// The line with the middle time; an error if any turn had one, since then the row is not to be trusted.
fn middle(way: &str, lines: Vec<&Value>) -> Result<Side, String> {
    let mut sides = lines.into_iter().map(|line| side(way, line)).collect::<Result<Vec<Side>, String>>()?;
    sides.sort_by(|a, b| a.median_ms.total_cmp(&b.median_ms));
    let at = sides.len() / 2;
    sides.into_iter().nth(at).ok_or_else(|| "did not run".to_owned())
}

fn side(way: &str, line: &Value) -> Result<Side, String> {
    if let Some(error) = line["error"].as_str() {
        return Err(error.to_owned());
    }
    let number = |field: &str| line[field].as_f64().ok_or_else(|| format!("its line has no {field}"));
    let unit = line["unit"].as_str().unwrap_or_default().to_owned();
    let (median_ms, rate, peak_mb) = (number("median_ms")?, number("rate")?, line["peak_mb"].as_u64());
    Ok(Side { median_ms, rate, unit, way: way.to_owned(), peak_mb })
}

/// The fastest way that works; the first error if none does; `None` if there is no way.
fn best(ways: Vec<Result<Side, String>>) -> Option<Result<Side, String>> {
    let mut fastest: Option<Side> = None;
    let mut error = None;
    for way in ways {
        match way {
            Ok(side) if fastest.as_ref().is_none_or(|best| side.median_ms < best.median_ms) => fastest = Some(side),
            Ok(_) => {}
            Err(why) => error = error.or(Some(why)),
        }
    }
    fastest.map(Ok).or(error.map(Err))
}

/// The geometric mean; `None` of nothing.
pub(super) fn geometric_mean(ratios: &[f64]) -> Option<f64> {
    let sum: f64 = ratios.iter().map(|ratio| ratio.ln()).sum();
    (!ratios.is_empty()).then(|| (sum / ratios.len() as f64).exp())
}

/// A message with each absolute path cut down to its last part: results name no folder of a machine.
pub(super) fn scrubbed(text: &str) -> String {
    let opens = |c: char| c.is_whitespace() || matches!(c, '"' | '\'' | '`' | '(' | '[' | '=');
    let ends = |c: char| c.is_whitespace() || matches!(c, '"' | '\'' | '`' | ')' | ']' | ',' | ':');
    let (mut out, mut rest, mut before) = (String::new(), text, ' ');
    while let Some(first) = rest.chars().next() {
        let word = &rest[..rest.find(ends).unwrap_or(rest.len())];
        if first == '/' && opens(before) && word.matches('/').count() > 1 {
            out.push_str(word.rsplit('/').next().unwrap_or_default());
            rest = &rest[word.len()..];
            before = '/';
        } else {
            out.push(first);
            rest = &rest[first.len_utf8()..];
            before = first;
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn line(median_ms: f64) -> Value {
        json!({"name": "x", "median_ms": median_ms, "rate": 100.0 / median_ms, "unit": "GB/s"})
    }

    fn turns(ours: [f64; 3], eager: [f64; 3], jemalloc: [f64; 3]) -> Vec<Turn> {
        let turn = |n: usize| Turn {
            ours: line(ours[n]),
            jit: None,
            theirs: vec![("eager", line(eager[n])), ("jemalloc", line(jemalloc[n]))],
            others: Vec::new(),
        };
        (0..3).map(turn).collect()
    }

    #[test]
    fn a_row_is_the_middle_of_ours_and_the_best_middle_of_theirs() {
        let row = Row::of("x", turns([2.0, 9.0, 4.0], [8.0, 8.0, 80.0], [7.0, 1.0, 6.0]));
        let ours = row.ours.as_ref().unwrap();
        assert_eq!((ours.median_ms, ours.rate), (4.0, 25.0));
        let theirs = row.theirs.as_ref().unwrap().as_ref().unwrap();
        assert_eq!((theirs.median_ms, theirs.way.as_str()), (6.0, "jemalloc"));
        assert_eq!(row.ratio(), Some(1.5));
        let limits = Limits { copy_gb_s: Some(50.0), fma_gflop_s: None };
        assert_eq!(row.of_limit(&limits), Some(0.5));
        assert_eq!(row.of_limit(&Limits::default()), None);
    }

    #[test]
    fn a_failure_on_either_side_leaves_no_ratio() {
        let mut ours = turns([1.0; 3], [1.0; 3], [1.0; 3]);
        ours[1].ours = json!({"name": "x", "error": "out of memory"});
        let row = Row::of("x", ours);
        assert_eq!((row.ours.clone().unwrap_err().as_str(), row.ratio()), ("out of memory", None));

        let mut theirs = turns([1.0; 3], [1.0; 3], [2.0; 3]);
        theirs[0].theirs[0].1 = json!({"name": "x", "error": "no"});
        assert_eq!(Row::of("x", theirs).ratio(), Some(2.0), "another way works");

        let alone = Row::of("x", vec![Turn { ours: line(1.0), jit: None, theirs: Vec::new(), others: Vec::new() }]);
        assert_eq!((alone.theirs.is_none(), alone.ratio()), (true, None));
    }

    #[test]
    fn rust_peers_are_compared_where_they_have_the_row() {
        let mut three = turns([2.0; 3], [1.0; 3], [1.0; 3]);
        for (turn, ms) in three.iter_mut().zip([9.0, 5.0, 6.0]) {
            turn.others = vec![None, Some(line(ms)), Some(json!({"name": "x", "error": "no"}))];
        }
        let row = Row::of("x", three);
        assert_eq!(row.others[0], None);
        assert_eq!(row.others[2], Some(Err("no".into())));
        assert_eq!([0, 1, 2].map(|n| row.other_ratio(n)), [None, Some(3.0), None]);
    }

    #[test]
    fn steps_that_are_recorded_once_have_a_time_of_their_own() {
        let mut three = turns([2.0; 3], [1.0; 3], [1.0; 3]);
        for (turn, ms) in three.iter_mut().zip([0.5, 3.0, 1.0]) {
            (turn.jit, turn.others) = (Some(line(ms)), vec![Some(line(1.5)), None]);
        }
        let row = Row::of("x", three);
        assert_eq!(row.jit.as_ref().unwrap().as_ref().unwrap().median_ms, 1.0);
        assert_eq!([row.other_ratio(0), row.jit_ratio(0), row.jit_ratio(1)], [Some(0.75), Some(1.5), None]);
    }

    #[test]
    fn the_mean_of_ratios_is_geometric() {
        assert_eq!(geometric_mean(&[]), None);
        assert!((geometric_mean(&[0.5, 2.0]).unwrap() - 1.0).abs() < 1e-12);
        assert!((geometric_mean(&[4.0, 9.0]).unwrap() - 6.0).abs() < 1e-12);
    }

    #[test]
    fn absolute_paths_lose_their_folders() {
        let folder = ["", "usr", "lib"].join("/");
        assert_eq!(scrubbed(&format!("at {folder}/a.py: 3 GB/s")), "at a.py: 3 GB/s");
        assert_eq!(scrubbed(&format!("File \"{folder}/b.so\", x")), "File \"b.so\", x");
        assert_eq!(scrubbed("crates/cpu/src/dot.rs:3 a / b 1/2/3"), "crates/cpu/src/dot.rs:3 a / b 1/2/3");
    }
}
