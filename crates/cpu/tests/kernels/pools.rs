//! Pools: reductions over short windows, and their gradients.

use kiln_ir::kernel::{Body, Instr, Loop, Store};
use kiln_ir::{Bound, DType, Index, Kernel, PointOp, ReduceOp};

use crate::common::{Rng, check, flat, load, masked, read, strided, write};

/// Images in a batch, channels, results along both axes of an image, and a window's size, step and padding.
#[derive(Clone, Copy, Debug)]
struct Pool {
    n: usize,
    c: usize,
    out: [usize; 2],
    window: usize,
    step: usize,
    pad: usize,
}

impl Pool {
    /// Windows side by side.
    fn of(n: usize, c: usize, out: [usize; 2], window: usize) -> Pool {
        Pool { n, c, out, window, step: window, pad: 0 }
    }

    /// The size of an image.
    fn image(self) -> [usize; 2] {
        self.out.map(|out| (out - 1) * self.step + self.window - 2 * self.pad)
    }

    /// A reduction of `relu(x + bias)`, where images lie channel by channel and results image by image.
    fn forward(self, op: ReduceOp, dtype: DType) -> Kernel {
        let Pool { n, c, out: [oh, ow], window, step, pad } = self;
        let [h, w] = self.image();
        let dims = [n, c, oh, ow, window, window];
        let along = |axis: usize| Index::var(axis).scale(step as i64).add(&Index::var(axis + 2), &dims);
        let [y, x] = [2, 3].map(|axis| along(axis).offset(-(pad as i64)));
        let image = strided(&dims, &[(h * w) as i64, (n * h * w) as i64, 0, 0, 0, 0]);
        let index = image.add(&y.clone().scale(w as i64), &dims).add(&x, &dims);
        let bound = |index, size: usize| Bound { index, lo: 0, hi: size as i64 };
        let valid = if pad > 0 { vec![bound(y, h), bound(x, w)] } else { vec![] };
        let mut body = Body::default();
        let x = body.push(masked(0, index, valid), dtype.compute());
        let bias = body.push(load(1, Index::var(1)), dtype.compute());
        let sum = body.push(Instr::Op(PointOp::Add, [x, bias, bias]), dtype.compute());
        let relu = body.push(Instr::Op(PointOp::Relu, [sum; 3]), dtype.compute());
        let result = if op == ReduceOp::ArgMax { DType::I32 } else { dtype };
        let value = body.push(Instr::Reduce(op, relu), result.compute());
        body.stores.push(Store { arg: 2, index: flat(&[n, c, oh, ow]), value });
        let args = vec![read(dtype, n * c * h * w), read(dtype, c), write(result, n * c * oh * ow)];
        Kernel::Loop(Loop { outer: vec![n, c, oh, ow], row: vec![window; 2], args, body })
    }

    /// The gradient of a greatest value in windows side by side and of the `relu` before it, and its sum by channel.
    fn gradient(self) -> Kernel {
        let Pool { n, c, out: [oh, ow], window, .. } = self;
        let [h, w] = self.image();
        let dims = [c, n, h, w];
        let k = window as i64;
        let place = Index::var(2).modulo(k, &dims).scale(k).add(&Index::var(3).modulo(k, &dims), &dims);
        let pooled = strided(&dims, &[(oh * ow) as i64, (c * oh * ow) as i64, 0, 0])
            .add(&Index::var(2).div(k, &dims).scale(ow as i64), &dims)
            .add(&Index::var(3).div(k, &dims), &dims);
        let mut body = Body::default();
        let op = |body: &mut Body, op, v, dtype| body.push(Instr::Op(op, v), dtype);
        let x = body.push(load(0, flat(&dims)), DType::F32);
        let at = body.push(Instr::Coord(place), DType::I32);
        let found = body.push(load(1, pooled.clone()), DType::I32);
        let here = op(&mut body, PointOp::Eq, [at, found, found], DType::Bool);
        let grad = body.push(load(2, pooled), DType::F32);
        let zero = body.push(Instr::Const(DType::F32, 0.0), DType::F32);
        let routed = op(&mut body, PointOp::Select, [here, grad, zero], DType::F32);
        let above = op(&mut body, PointOp::Lt, [zero, x, x], DType::Bool);
        let value = op(&mut body, PointOp::Select, [above, routed, zero], DType::F32);
        let sum = body.push(Instr::Reduce(ReduceOp::Sum, value), DType::F32);
        body.stores.push(Store { arg: 3, index: flat(&dims), value });
        body.stores.push(Store { arg: 4, index: Index::var(0), value: sum });
        let (all, few) = (n * c * h * w, n * c * oh * ow);
        let args = vec![
            read(DType::F32, all),
            read(DType::I32, few),
            read(DType::F32, few),
            write(DType::F32, all),
            write(DType::F32, c),
        ];
        Kernel::Loop(Loop { outer: vec![c], row: vec![n, h, w], args, body })
    }
}

/// Small whole numbers, many of them equal, and here and there one that is none.
fn ties(rng: &mut Rng, n: usize) -> Vec<f64> {
    (0..n).map(|_| if rng.chance(3) { f64::NAN } else { rng.below(5) as f64 - 2.0 }).collect()
}

fn check_forward(rng: &mut Rng, pool: Pool, dtype: DType) {
    let [h, w] = pool.image();
    let x = ties(rng, pool.n * pool.c * h * w);
    let bias: Vec<f64> = (0..pool.c).map(|_| rng.below(3) as f64 - 1.0).collect();
    let results = vec![0.0; pool.n * pool.c * pool.out[0] * pool.out[1]];
    for op in [ReduceOp::Max, ReduceOp::ArgMax, ReduceOp::Sum] {
        let args = [x.clone(), bias.clone(), results.clone()];
        check(&format!("{op:?} of {dtype}, {pool:?}"), &pool.forward(op, dtype), &args, &[], 0.0);
    }
}

#[test]
fn windows_side_by_side() {
    let mut rng = Rng::new(61);
    for size in [1, 2, 3, 5, 7, 13, 14, 28] {
        for window in [2, 3] {
            check_forward(&mut rng, Pool::of(3, 5, [size, size], window), DType::F32);
        }
        check_forward(&mut rng, Pool::of(2, 3, [5, size], 2), DType::F16);
        check_forward(&mut rng, Pool::of(1, 1, [size, 7], 2), DType::F64);
    }
    // Lines of more than a tile.
    check_forward(&mut rng, Pool::of(1, 2, [3, 700], 2), DType::F32);
}

#[test]
fn windows_that_overlap_or_reach_out() {
    let mut rng = Rng::new(62);
    for size in [1, 2, 3, 5, 7, 13, 14, 28] {
        for (window, step, pad) in [(3, 2, 0), (3, 2, 1), (2, 3, 0), (3, 1, 1)] {
            let out = [size.max(2), size.max(3)];
            check_forward(&mut rng, Pool { n: 2, c: 3, out, window, step, pad }, DType::F32);
        }
    }
}

#[test]
fn gradients_go_where_the_greatest_was() {
    let mut rng = Rng::new(63);
    for size in [1, 2, 3, 5, 7, 13, 14, 28, 300] {
        for window in [2, 3] {
            let pool = Pool::of(if size > 28 { 1 } else { 4 }, 3, [size.min(28), size], window);
            let [h, w] = pool.image();
            let (all, few) = (pool.n * pool.c * h * w, pool.n * pool.c * pool.out[0] * size);
            let found: Vec<f64> = (0..few).map(|_| rng.below(window * window) as f64).collect();
            let grads: Vec<f64> = (0..few).map(|_| rng.below(9) as f64 - 4.0).collect();
            let args = [ties(&mut rng, all), found, grads, vec![0.0; all], vec![0.0; pool.c]];
            check(&format!("{pool:?}"), &pool.gradient(), &args, &[], 0.0);
        }
    }
}

#[test]
fn sums_over_windows_that_saw_an_element() {
    let mut rng = Rng::new(64);
    for size in [1usize, 2, 3, 5, 7, 8, 13, 14, 28] {
        for (window, step, inner) in [(3, 2, 16), (3, 2, 1), (3, 2, 5), (2, 2, 8), (4, 2, 3), (5, 3, 17), (3, 1, 4)] {
            // Windows [n, size, window, inner] of elements [n, along, inner]; some of the last are in none.
            let (n, along) = (3usize, ((size - 1) * step + window).next_multiple_of(step));
            let dims = [n, along, inner, window];
            let first = Index::var(1).add(&Index::var(3).scale(-1), &dims);
            let (number, rest) = (first.div(step as i64, &dims), first.modulo(step as i64, &dims));
            let all = n * size * window * inner;
            let strides = [(size * window * inner) as i64, 0, 1, inner as i64];
            let index = strided(&dims, &strides).add(&number.clone().scale((window * inner) as i64), &dims);
            let valid = vec![Bound { index: rest, lo: 0, hi: 1 }, Bound { index: number, lo: 0, hi: size as i64 }];
            let mut body = Body::default();
            let x = body.push(masked(0, index, valid), DType::F32);
            let value = body.push(Instr::Reduce(ReduceOp::Sum, x), DType::F32);
            body.stores.push(Store { arg: 1, index: flat(&dims[..3]), value });
            let results = n * along * inner;
            let args = vec![read(DType::F32, all), write(DType::F32, results)];
            let kernel = Kernel::Loop(Loop { outer: dims[..3].to_vec(), row: vec![window], args, body });
            let x: Vec<f64> = (0..all).map(|_| rng.below(9) as f64 - 4.0).collect();
            check(
                &format!("{size} windows of {window} by {step}, {inner}"),
                &kernel,
                &[x, vec![0.0; results]],
                &[],
                0.0,
            );
        }
    }
}
