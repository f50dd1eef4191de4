//! Random programs from a seed: values of all shapes, views, reductions, products, lookups.
//!
//! Exact programs use small whole numbers and exact ops, so every backend must agree to the bit.
//! Smooth programs use transcendental functions and nothing discontinuous.

use kiln_graph::{Device, Tensor};
use kiln_ir::DType;

use crate::stream::Stream;

/// Which generator.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Kind {
    Exact,
    Smooth,
}

const DIMS: [usize; 6] = [1, 2, 3, 4, 5, 7];

/// The outputs of the program that a seed determines; some values on the way stay held with them.
pub(crate) fn program(kind: Kind, seed: u32, device: &Device) -> Vec<Tensor> {
    let mut s = Stream(seed, kind as u32 * 1_000_000);
    let mut pool: Vec<Tensor> = (0..2 + s.below(2)).map(|_| leaf(kind, &mut s, device)).collect();
    for _ in 0..3 + s.below(12) {
        let x = s.pick(&pool).clone();
        let y = match s.below(11) {
            0..=2 => pointwise(kind, &mut s, &x, &pool),
            3..=6 => view(&mut s, &x),
            7 => reduction(kind, &mut s, &x),
            8 => product(kind, &mut s, &x),
            9 if kind == Kind::Smooth => attention(&mut s, &x),
            _ => lookup(&mut s, &x),
        };
        if y.numel() <= 4096 && y.rank() <= 5 {
            pool.push(bounded(kind, y));
        }
    }
    let n = 1 + s.below(3);
    let last = pool.len() - 1;
    let mut outputs = vec![pool[last].clone()];
    outputs.extend((0..n).map(|_| s.pick(&pool).clone()));
    outputs
}

fn leaf(kind: Kind, s: &mut Stream, device: &Device) -> Tensor {
    let rank = s.below(4);
    // Now and then an axis is empty.
    let dims: Vec<usize> = (0..rank).map(|_| if s.below(40) == 0 { 0 } else { *s.pick(&DIMS) }).collect();
    let n = dims.iter().product();
    let values: Vec<f64> = match kind {
        Kind::Exact => (0..n).map(|_| s.below(9) as f64 - 4.0).collect(),
        Kind::Smooth => s.values(n, -2.0, 2.0),
    };
    Tensor::from_f64(&values, &dims, DType::F32, device).unwrap()
}

/// Keeps values small, so that exact programs stay exact and smooth ones do not overflow.
fn bounded(kind: Kind, x: Tensor) -> Tensor {
    match kind {
        _ if x.dtype() != DType::F32 => x,
        Kind::Exact => x.minimum(64.0).maximum(-64.0),
        Kind::Smooth => x.tanh() * 2.0,
    }
}

fn pointwise(kind: Kind, s: &mut Stream, x: &Tensor, pool: &[Tensor]) -> Tensor {
    let x = &x.cast(DType::F32);
    let fits = |t: &&Tensor| t.shape().broadcast(x.shape()).is_some();
    let others: Vec<&Tensor> = pool.iter().filter(fits).collect();
    let y = &if others.is_empty() { x.clone() } else { (*s.pick(&others)).clone() }.cast(DType::F32);
    match (kind, s.below(8)) {
        (_, 0) => x + y,
        (_, 1) => x - y,
        (_, 2) => x * y,
        (Kind::Exact, 3) => x.lt(y).select(x, &-y),
        (Kind::Exact, 4) => x.relu().maximum(y),
        (Kind::Exact, 5) => x.eq(y).cast(DType::I32),
        (Kind::Exact, 6) => (x * 0.5).floor() + y,
        (Kind::Exact, _) => x.abs().cast(DType::I32).minimum(y.cast(DType::I32)),
        (Kind::Smooth, 3) => x.exp(),
        (Kind::Smooth, 4) => x.sigmoid() * y,
        (Kind::Smooth, 5) => (x.square() + 1.0).log(),
        (Kind::Smooth, 6) => x.erf() / (y.square() + 1.0),
        (Kind::Smooth, _) => (x.square() + 0.5).rsqrt() + y.sin(),
    }
}

fn view(s: &mut Stream, x: &Tensor) -> Tensor {
    if x.rank() == 0 {
        return x.expand(&[*s.pick(&DIMS)]);
    }
    let axis = s.below(x.rank());
    let dim = x.dims()[axis];
    let signed = axis as isize;
    match s.below(9) {
        0 => x.flip(signed),
        1 => x.pad(signed, s.below(3), s.below(3)),
        2 => {
            let start = s.below(dim + 1);
            let end = start + s.below(dim + 1 - start);
            x.slice_step(signed, start..end, 1 + s.below(2))
        }
        3 => {
            let other = s.below(x.rank());
            x.transpose(signed, other as isize)
        }
        4 => x.reshape(&[x.numel()]),
        5 if dim > 0 && dim.is_multiple_of(2) => {
            x.reshape(&[&x.dims()[..axis], &[2, dim / 2], &x.dims()[axis + 1..]].concat())
        }
        6 if dim > 1 => x.unfold(signed, 2, 1 + s.below(2), 1),
        7 => x.unsqueeze(axis).expand(&[&x.dims()[..axis], &[2], &x.dims()[axis..]].concat()),
        _ => x.flatten(axis),
    }
}

fn reduction(kind: Kind, s: &mut Stream, x: &Tensor) -> Tensor {
    if x.rank() == 0 {
        return x.clone();
    }
    let x = &x.cast(DType::F32);
    let axis = s.below(x.rank()) as isize;
    let empty = x.dims()[axis as usize] == 0;
    match (kind, s.below(12)) {
        (_, 0) => x.sum(&[axis]),
        (_, 1) => x - x.sum_keepdim(&[axis]),
        (_, 2) if x.rank() > 1 => x.sum(&[0, -1]),
        (_, 3) if !empty => x.amax(&[axis]),
        (Kind::Exact, 4) if !empty => x.argmax(axis),
        (Kind::Exact, 5) if !empty => x - x.amin(&[axis]).unsqueeze(axis as usize),
        (Kind::Smooth, 4) if !empty => x.softmax(axis),
        (Kind::Smooth, 5) if !empty => x.normalize_over(&[axis], 0.1)[0].clone(),
        (_, 6) => x.cumsum(axis),
        (_, 7) => x.cummax(axis).0,
        (Kind::Exact, 8) => x.sort(axis, s.below(2) == 0).0,
        (Kind::Exact, 9) => x.argsort(axis, s.below(2) == 0),
        (Kind::Exact, 10) => x.topk(s.below(x.dims()[axis as usize] + 1), axis, s.below(2) == 0).0,
        _ => x.sum_all(),
    }
}

fn product(kind: Kind, s: &mut Stream, x: &Tensor) -> Tensor {
    let x = &x.cast(DType::F32);
    let (rank, other) = (x.rank(), leaf(kind, s, x.device()));
    if rank == 0 {
        return x * &other;
    }
    let k = x.dims()[rank - 1];
    let row = other.sum_all().reshape(&[1, 1]).expand(&[k, 1 + s.below(4)]);
    match s.below(4) {
        0 => x.matmul(&row),
        1 if rank > 1 => x.matmul(&x.t()),
        2 => {
            let bias = row.slice(0, 0..k.min(1)).sum(&[0]);
            x.linear(&row.t(), (s.below(2) == 0).then_some(&bias))
        }
        _ => (x + 1.0).matmul(&(row * 0.5)),
    }
}

/// Attention, or one of its gradients.
fn attention(s: &mut Stream, x: &Tensor) -> Tensor {
    if x.rank() < 2 || x.numel() == 0 {
        return x.clone();
    }
    let (q, device) = (x.cast(DType::F32), x.device());
    let &[.., t, d] = q.dims() else { unreachable!("checked above") };
    let n = *s.pick(&DIMS);
    let values = |s: &mut Stream| Tensor::from_f64(&s.values(n * d, -1.0, 1.0), &[n, d], DType::F32, device).unwrap();
    let (k, v) = (values(s), values(s));
    let seen = Tensor::iota(&[t, n], 1, device).eq(s.below(n + 1) as f64).logical_not();
    let mask = (s.below(2) == 0).then_some(&seen);
    let out = q.scaled_dot_product_attention(&k, &v, mask, s.below(2) == 0);
    match s.below(2) {
        0 => out,
        _ => {
            let wrt = *s.pick(&[&q, &k, &v]);
            let grad = out.tanh().sum_all().grad(&[wrt]).remove(0).unwrap();
            if std::ptr::eq(wrt, &q) { grad } else { grad + &v }
        }
    }
}

fn lookup(s: &mut Stream, x: &Tensor) -> Tensor {
    if x.rank() == 0 {
        return x.clone();
    }
    let axis = s.below(x.rank());
    let n = 1 + s.below(4);
    let index: Vec<i32> = (0..n).map(|_| s.below(9) as i32 - 1).collect();
    let index = Tensor::new(&index, &[n], x.device()).unwrap();
    match x.dims()[axis] {
        0 => x.clone(),
        d if s.below(2) == 0 => {
            let values = x.cast(DType::F32).slice(axis as isize, 0..d.min(n));
            index.slice(0, 0..d.min(n)).scatter_add(axis, 3, &values)
        }
        _ => x.index_select(axis as isize, &index),
    }
}
