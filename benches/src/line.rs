//! What the program prints: one JSON object a line, with the peer's names.

use serde::Serialize;

use crate::place::Kind;
use crate::profile::Profile;
use crate::row::Mode;
use crate::timing::Timing;
use crate::{Case, Row};

/// A row that ran.
#[derive(Serialize)]
pub struct Line {
    name: &'static str,
    device: String,
    mode: &'static str,
    iters: usize,
    first_s: f64,
    median_ms: f64,
    p10_ms: f64,
    p99_ms: f64,
    rate: f64,
    unit: &'static str,
    kernels: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    dispatches: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    gpu_ms: Option<f64>,
}

impl Line {
    /// The line of a row.
    pub fn new((row, mode): (&Row, Mode), kind: Kind, case: &Case, timing: &Timing, profile: Option<&Profile>) -> Line {
        Line {
            name: row.name,
            device: kind.to_string(),
            mode: mode.name(),
            iters: timing.seconds.len() * timing.batch,
            first_s: rounded(timing.first_s, 6),
            median_ms: rounded(timing.median() * 1e3, 4),
            p10_ms: rounded(timing.percentile(10) * 1e3, 4),
            p99_ms: rounded(timing.percentile(99) * 1e3, 4),
            rate: rounded(case.work / timing.median(), 2),
            unit: case.unit,
            kernels: timing.n_kernels,
            dispatches: profile.map(Profile::dispatches),
            gpu_ms: profile.map(|p| rounded(p.gpu_ms(), 4)),
        }
    }
}

/// A row that failed.
#[derive(Serialize)]
pub struct Failure {
    name: &'static str,
    device: String,
    mode: &'static str,
    error: String,
}

impl Failure {
    /// Why a row has no figures.
    pub fn new((row, mode): (&Row, Mode), kind: Kind, error: String) -> Failure {
        Failure { name: row.name, device: kind.to_string(), mode: mode.name(), error }
    }
}

/// Prints a line; whoever reads along sees it at once.
pub fn print(line: &impl Serialize) {
    println!("{}", serde_json::to_string(line).expect("a line has nothing that JSON lacks"));
}

fn rounded(value: f64, digits: i32) -> f64 {
    let scale = 10f64.powi(digits);
    (value * scale).round() / scale
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_have_the_names_and_digits_of_the_peer() {
        let row = Row::new("x", |_| unreachable!("not run"));
        let case = Case::new(2.0, "GB/s", || Ok(()));
        let timing = Timing { first_s: 0.12345, seconds: vec![0.001, 0.00123456, 0.002], batch: 2, n_kernels: 3 };
        let line = serde_json::to_string(&Line::new((&row, Mode::Implicit), Kind::Cpu, &case, &timing, None)).unwrap();
        assert_eq!(
            line,
            "{\"name\":\"x\",\"device\":\"cpu\",\"mode\":\"implicit\",\"iters\":6,\"first_s\":0.12345,\
             \"median_ms\":1.2346,\"p10_ms\":1.0,\"p99_ms\":2.0,\"rate\":1620.01,\"unit\":\"GB/s\",\"kernels\":3}"
        );
        let failure = serde_json::to_string(&Failure::new((&row, Mode::Jit), Kind::Gpu(0), "why".into())).unwrap();
        assert_eq!(failure, r#"{"name":"x","device":"gpu","mode":"jit","error":"why"}"#);
    }
}
