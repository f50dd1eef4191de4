//! What an attention means, in `f64` from the formulas, and how far from it `f32` may be.
//!
//! Beside each value stands a bound on the rounding error of a device that sums in any order: tolerances follow from
//! the numbers at hand, and none is chosen.

use kiln_ir::attention::Part;
use kiln_ir::kernel::Attention;

use crate::oracle::{points, value};

/// Half a unit in the last place of an `f32` near 1.
const UNIT: f64 = 1.0 / (1 << 24) as f64;

/// What `exp` may be off, relatively: llvmpipe's has 32 such units.
const EXP: f64 = 4e-6;

/// The maximum of a row that is walked along rises this often at most, by chance; each time, sums so far are scaled
/// with an `exp`. Records of a random sequence of `n` are `ln n` in the mean.
const RISES: f64 = 9.0;

/// A value, and how far from it is near enough.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Near {
    pub(crate) value: f64,
    pub(crate) error: f64,
}

impl Near {
    fn add(&mut self, value: f64, error: f64) {
        self.value += value;
        self.error += error;
    }
}

type Matrix = Vec<Vec<f64>>;

/// A part in row-major order.
pub(crate) fn part(k: &Attention, part: Part, args: &[Vec<f64>]) -> Vec<Near> {
    points(&k.extents.batch).iter().flat_map(|b| Pairs::new(k, b, args).part(part)).collect()
}

/// Operands of one batch, its scores, and the error of each.
struct Pairs {
    d: usize,
    e: usize,
    q: Matrix,
    k: Matrix,
    v: Matrix,
    backward: Option<(Matrix, Matrix, Matrix)>,
    scale: f64,
    scores: Vec<Vec<Near>>,
}

impl Pairs {
    fn new(kernel: &Attention, b: &[usize], args: &[Vec<f64>]) -> Pairs {
        let x = &kernel.extents;
        let matrix = |operand: usize, rows: usize, columns: usize| -> Matrix {
            let at = |i: usize, j: usize| value(&kernel.operands[operand], &[b, &[i, j]].concat(), args);
            (0..rows).map(|i| (0..columns).map(|j| at(i, j)).collect()).collect()
        };
        let (q, k, bias) = (matrix(0, x.t, x.d), matrix(1, x.s, x.d), matrix(3, x.t, x.s));
        let scale = 1.0 / (x.d.max(1) as f64).sqrt();
        let score = |i: usize, j: usize| {
            if kernel.causal && j > i {
                return Near { value: f64::NEG_INFINITY, error: 0.0 };
            }
            let (sum, size) = product(&q[i], &k[j]);
            let value = sum * scale + bias[i][j];
            let bound = (x.d + 4) as f64 * UNIT * (size * scale + bias[i][j].abs());
            Near { value, error: if value.is_finite() { bound } else { 0.0 } }
        };
        let scores = (0..x.t).map(|i| (0..x.s).map(|j| score(i, j)).collect()).collect();
        let backward = (kernel.operands.len() > 4).then(|| (matrix(4, x.t, 1), matrix(5, x.t, 1), matrix(6, x.t, x.e)));
        Pairs { d: x.d, e: x.e, v: matrix(2, x.s, x.e), q, k, backward, scale, scores }
    }

    fn part(&self, part: Part) -> Vec<Near> {
        match part {
            Part::Out => self.scores.iter().flat_map(|row| self.out(row)).collect(),
            Part::LogSum => self.scores.iter().map(|row| log_sum(row)).collect(),
            Part::GradQ => sums(&self.slopes(), &self.k, self.d),
            Part::GradK => sums(&transposed(self.slopes(), self.k.len()), &self.q, self.d),
            Part::GradV => sums(&transposed(self.shares(), self.k.len()), &self.backward.as_ref().unwrap().2, self.e),
        }
    }

    fn out(&self, row: &[Near]) -> Vec<Near> {
        let top = row.iter().fold(f64::from(f32::MIN), |top, s| top.max(s.value));
        let p: Vec<f64> = row.iter().map(|s| (s.value - top).exp()).collect();
        let sum: f64 = p.iter().sum();
        let worst = row.iter().fold(0f64, |worst, s| worst.max(s.error));
        let column = |c: usize| {
            let mut near = Near::default();
            for (j, p) in p.iter().enumerate().filter(|_| sum != 0.0) {
                let term = p / sum * self.v[j][c];
                // Once in the share, once in the sum that it is divided by.
                let relative = 2.0 * (EXP + worst + UNIT * spread(row[j].value, top)) + (row.len() + 4) as f64 * UNIT;
                near.add(term, term.abs() * relative);
            }
            near
        };
        (0..self.e).map(column).collect()
    }

    /// `exp(score - logsum)`.
    fn shares(&self) -> Vec<Vec<Near>> {
        let (logsum, _, _) = self.backward.as_ref().unwrap();
        let share = |s: &Near, log: f64| {
            let p = (s.value - log).exp();
            Near { value: p, error: p * (EXP + s.error + UNIT * spread(s.value, log)) }
        };
        self.scores.iter().zip(logsum).map(|(row, log)| row.iter().map(|s| share(s, log[0])).collect()).collect()
    }

    /// `p · (g·vᵀ - delta) / √d`.
    fn slopes(&self) -> Vec<Vec<Near>> {
        let (_, delta, g) = self.backward.as_ref().unwrap();
        let mut all = self.shares();
        for (i, row) in all.iter_mut().enumerate() {
            for (j, p) in row.iter_mut().enumerate() {
                let (sum, size) = product(&g[i], &self.v[j]);
                let slope = sum - delta[i][0];
                let error = (g[i].len() + 4) as f64 * UNIT * (size + delta[i][0].abs());
                let value = p.value * slope * self.scale;
                *p = Near { value, error: (p.error * slope.abs() + p.value * error) * self.scale };
            }
        }
        all
    }
}

/// Error of a difference before it goes into an `exp`; of no account where that gives 0.
fn spread(a: f64, b: f64) -> f64 {
    if a.is_finite() && b.abs() < 1e30 { a.abs() + b.abs() } else { 0.0 }
}

fn log_sum(row: &[Near]) -> Near {
    let top = row.iter().fold(f64::from(f32::MIN), |top, s| top.max(s.value));
    let sum: f64 = row.iter().map(|s| (s.value - top).exp()).sum();
    if sum == 0.0 {
        return Near { value: f64::from(f32::MAX), error: 0.0 };
    }
    let worst = row.iter().fold(0f64, |worst, s| worst.max(s.error));
    let value = sum.ln() + top;
    let relative = RISES * EXP + worst + (row.len() + 4) as f64 * UNIT;
    // `log` is as far off as `exp`.
    Near { value, error: relative + EXP * sum.ln().abs() + 2.0 * UNIT * (top.abs() + value.abs()) }
}

/// The product of two rows, and that of their magnitudes.
fn product(a: &[f64], b: &[f64]) -> (f64, f64) {
    a.iter().zip(b).fold((0.0, 0.0), |(sum, size), (a, b)| (sum + a * b, size + (a * b).abs()))
}

fn transposed(rows: Vec<Vec<Near>>, n: usize) -> Vec<Vec<Near>> {
    (0..n).map(|j| rows.iter().map(|row| row[j]).collect()).collect()
}

/// Weighted rows, summed.
fn sums(weights: &[Vec<Near>], rows: &Matrix, width: usize) -> Vec<Near> {
    let mut all = Vec::new();
    for weights in weights {
        let mut near = vec![Near::default(); width];
        for (w, row) in weights.iter().zip(rows) {
            for (near, x) in near.iter_mut().zip(row) {
                let rounding = (weights.len() + 2) as f64 * UNIT * (w.value * x).abs();
                near.add(w.value * x, w.error * x.abs() + rounding);
            }
        }
        all.extend(near);
    }
    all
}
