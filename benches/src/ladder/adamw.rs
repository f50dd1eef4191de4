//! A step of AdamW over `f32`, from one pass over memory for each op to Kiln: what fusion is worth.
//!
//! All rungs are compiled for the widest vectors, and compute the same ops in the same order; they differ in how far an
//! intermediate value travels: to memory, to the nearest cache, or not out of a register.

use kiln::Result;
use kiln::prelude::*;
use pulp::Arch;

/// The factors of a step, `p ← keep · p − step · m / (√v · correction + eps)`; see [`kiln::nn::AdamW`].
#[derive(Clone, Copy)]
pub struct Factors {
    beta1: f32,
    rest1: f32,
    beta2: f32,
    rest2: f32,
    step: f32,
    correction: f32,
    eps: f32,
    keep: f32,
}

impl Factors {
    /// Those of the first step, with the defaults of [`kiln::nn::AdamW`].
    pub fn first(lr: f64) -> Factors {
        let (beta1, beta2, weight_decay) = (0.9, 0.999_f64, 0.01);
        Factors {
            beta1: beta1 as f32,
            rest1: (1.0 - beta1) as f32,
            beta2: beta2 as f32,
            rest2: (1.0 - beta2) as f32,
            step: (lr / (1.0 - beta1)) as f32,
            correction: (1.0 - beta2).sqrt().recip() as f32,
            eps: 1e-8,
            keep: (1.0 - lr * weight_decay) as f32,
        }
    }
}

/// What a step changes.
#[derive(Clone, PartialEq, Debug)]
pub struct State {
    /// The parameter.
    pub param: Vec<f32>,
    /// The mean of its gradients.
    pub first: Vec<f32>,
    /// The mean of their squares.
    pub second: Vec<f32>,
}

impl State {
    /// A parameter before its first step.
    pub fn new(param: Vec<f32>) -> State {
        let zeros = vec![0.0; param.len()];
        State { param, first: zeros.clone(), second: zeros }
    }
}

/// A rung: one step, given the gradient.
pub type AdamWStep = fn(&Factors, &[f32], &mut State);

/// Every rung below Kiln, the slowest first.
pub const RUNGS: &[(&str, AdamWStep)] =
    &[("1_whole_arrays", whole_arrays), ("2_tiles", tiles), ("3_fused_by_hand", fused_by_hand)];

/// Op by op, as a framework without fusion computes: 14 passes, and two arrays for what is on the way.
pub fn whole_arrays(factors: &Factors, grad: &[f32], state: &mut State) {
    let mut temporaries = [vec![0.0; grad.len()], vec![0.0; grad.len()]];
    let [t, u] = &mut temporaries;
    let State { param, first, second } = state;
    Arch::new().dispatch(|| op_by_op(factors, grad, [param, first, second, t, u]));
}

/// Numbers of a tile, as in Kiln: six arrays of 4 KiB fit a first-level cache of 32 KiB.
const TILE: usize = 1024;

/// The same ops, all of them over a small part of the arrays before the next: memory is read and written once.
pub fn tiles(factors: &Factors, grad: &[f32], state: &mut State) {
    let (mut t, mut u) = ([0.0; TILE], [0.0; TILE]);
    let State { param, first, second } = state;
    Arch::new().dispatch(|| {
        let moments = first.chunks_mut(TILE).zip(second.chunks_mut(TILE));
        for ((grad, param), (first, second)) in grad.chunks(TILE).zip(param.chunks_mut(TILE)).zip(moments) {
            let n = grad.len();
            op_by_op(factors, grad, [param, first, second, &mut t[..n], &mut u[..n]]);
        }
    });
}

/// All ops in one loop that somebody wrote for just this formula. Kiln has such loops for no formula: its plans are the
/// tiles above, with pairs of ops in one pass.
pub fn fused_by_hand(factors: &Factors, grad: &[f32], state: &mut State) {
    let &Factors { beta1, rest1, beta2, rest2, step, correction, eps, keep } = factors;
    let State { param, first, second } = state;
    Arch::new().dispatch(|| {
        for ((&g, p), (m, v)) in grad.iter().zip(param.iter_mut()).zip(first.iter_mut().zip(second.iter_mut())) {
            *m = *m * beta1 + g * rest1;
            *v = *v * beta2 + g * g * rest2;
            *p = *p * keep - *m * step / (v.sqrt() * correction + eps);
        }
    });
}

/// One pass for each op, over arrays of equal length.
#[inline(always)]
fn op_by_op(factors: &Factors, grad: &[f32], [param, first, second, t, u]: [&mut [f32]; 5]) {
    let &Factors { beta1, rest1, beta2, rest2, step, correction, eps, keep } = factors;
    with(t, grad, |_, g| g * rest1);
    each(first, |m| m * beta1);
    with(first, t, |m, t| m + t);

    with(t, grad, |_, g| g * g);
    each(t, |t| t * rest2);
    each(second, |v| v * beta2);
    with(second, t, |v, t| v + t);

    with(t, second, |_, v| v.sqrt());
    each(t, |t| t * correction);
    each(t, |t| t + eps);
    with(u, first, |_, m| m * step);
    with(u, t, |u, t| u / t);
    each(param, |p| p * keep);
    with(param, u, |p, u| p - u);
}

#[inline(always)]
fn each(out: &mut [f32], f: impl Fn(f32) -> f32) {
    for x in out {
        *x = f(*x);
    }
}

#[inline(always)]
fn with(out: &mut [f32], y: &[f32], f: impl Fn(f32, f32) -> f32) {
    for (x, &y) in out.iter_mut().zip(y) {
        *x = f(*x, y);
    }
}

/// The top rung: a model of one parameter, and the optimizer that a user of Kiln takes.
pub struct Kiln {
    model: Model,
    opt: Optimizer<AdamW>,
    grad: Tensor,
}

/// One parameter.
#[derive(Module)]
struct Model {
    param: Param,
}

impl Kiln {
    /// Before the first step.
    ///
    /// # Errors
    /// If the device fails.
    pub fn new(lr: f64, param: &[f32], grad: &[f32], device: &Device) -> Result<Kiln> {
        let dims = [param.len()];
        let model = Model { param: Param::new(Tensor::new(param, &dims, device)?) };
        let opt = AdamW::new(lr).build(&model);
        Ok(Kiln { model, opt, grad: Tensor::new(grad, &dims, device)? })
    }

    /// One step.
    ///
    /// # Errors
    /// If the device fails.
    pub fn step(&mut self) -> Result<()> {
        let grads = Grads::from_fn(&self.model, |_, _| Some(self.grad.clone()));
        self.opt.step(&mut self.model, grads)
    }

    /// The parameter now.
    ///
    /// # Errors
    /// If the device fails.
    pub fn param(&self) -> Result<Vec<f32>> {
        self.model.param.tensor().to_vec()
    }
}

/// The parameter after a step, in `f64`.
pub fn oracle(factors: &Factors, grad: &[f32], state: &State) -> Vec<f64> {
    let wide = f64::from;
    let moments = state.first.iter().zip(&state.second);
    let next = |((&g, &p), (&m, &v)): ((&f32, &f32), (&f32, &f32))| {
        let m = wide(m) * wide(factors.beta1) + wide(g) * wide(factors.rest1);
        let v = wide(v) * wide(factors.beta2) + wide(g).powi(2) * wide(factors.rest2);
        wide(p) * wide(factors.keep)
            - m * wide(factors.step) / (v.sqrt() * wide(factors.correction) + wide(factors.eps))
    };
    grad.iter().zip(&state.param).zip(moments).map(next).collect()
}

#[cfg(test)]
mod tests {
    use super::super::{assert_close, numbers};
    use super::*;

    /// Less than a vector, whole tiles, and tiles with something left over.
    const SIZES: [usize; 4] = [1, 7, 2 * TILE, 3 * TILE + 5];

    #[test]
    fn rungs_are_close_to_the_oracle() {
        for n in SIZES {
            let (factors, grad) = (Factors::first(0.1), numbers(n, 2));
            let mut before = State::new(numbers(n, 1));
            // Moments as they are some steps later, too.
            for moments in [vec![0.0; n], numbers(n, 3)] {
                before.second = moments.iter().map(|m| m * m).collect();
                before.first = moments;
                let oracle = oracle(&factors, &grad, &before);
                for (name, rung) in RUNGS {
                    let mut state = before.clone();
                    rung(&factors, &grad, &mut state);
                    assert_close(&format!("{name} {n}"), &state.param, &oracle, 1e-5);
                    assert!(state.first != before.first && state.second != before.second);
                }
            }
        }
    }

    #[test]
    fn kiln_is_close_to_the_oracle() {
        for n in SIZES {
            let (grad, state) = (numbers(n, 2), State::new(numbers(n, 1)));
            let mut kiln = Kiln::new(0.1, &state.param, &grad, &Device::cpu()).unwrap();
            kiln.step().unwrap();
            let oracle = oracle(&Factors::first(0.1), &grad, &state);
            assert_close(&format!("kiln {n}"), &kiln.param().unwrap(), &oracle, 1e-5);
        }
    }
}
