//! Attention and its gradients against their formulas, in `f64`.

use kiln_ir::attention::{Extents, Part};
use kiln_ir::kernel::{Arg, Attention, Body, Instr};
use kiln_ir::{Backend, DType, Index, Kernel, PointOp, Reject};

use crate::common::{Rng, check, eval_row, flat, load, points, read, row_major, strided, write};

fn numel(dims: &[usize]) -> usize {
    dims.iter().product()
}

/// The dims of `q, k, v, bias, logsum, delta, g`.
fn operand_dims(x: &Extents) -> [Vec<usize>; 7] {
    let last = [[x.t, x.d], [x.s, x.d], [x.s, x.e], [x.t, x.s], [x.t, 1], [x.t, 1], [x.t, x.e]];
    last.map(|last| [&x.batch[..], &last].concat())
}

/// The parts of one element of the batch, in the order `Out, LogSum, GradQ, GradK, GradV`.
fn parts(x: &Extents, causal: bool, operands: &[&[f64]]) -> [Vec<f64>; 5] {
    let &Extents { t, s, d, e, .. } = x;
    let &[q, k, v, bias, ref backward @ ..] = operands else { panic!("four operands at least") };
    let scale = 1.0 / (d.max(1) as f64).sqrt();
    let dot = |a: &[f64], i: usize, b: &[f64], j: usize, n: usize| -> f64 {
        a[i * n..][..n].iter().zip(&b[j * n..][..n]).map(|(a, b)| a * b).sum()
    };
    let score = |i: usize, j: usize| match causal && j > i {
        true => f64::NEG_INFINITY,
        false => dot(q, i, k, j, d) * scale + bias[i * s + j],
    };
    let mut out = [t * e, t, t * d, s * d, s * e].map(|n| vec![0.0; n]);
    for i in 0..t {
        let scores: Vec<f64> = (0..s).map(|j| score(i, j)).collect();
        let max = scores.iter().fold(f64::from(f32::MIN), |a, &b| a.max(b));
        let sum: f64 = scores.iter().map(|x| (x - max).exp()).sum();
        out[1][i] = if sum == 0.0 { f64::from(f32::MAX) } else { sum.ln() + max };
        for j in 0..s {
            let p = if sum == 0.0 { 0.0 } else { (scores[j] - max).exp() / sum };
            (0..e).for_each(|c| out[0][i * e + c] += p * v[j * e + c]);
            let &[logsum, delta, g] = backward else { continue };
            let p = (scores[j] - logsum[i]).exp();
            let ds = p * (dot(g, i, v, j, e) - delta[i]) * scale;
            (0..d).for_each(|c| out[2][i * d + c] += ds * k[j * d + c]);
            (0..d).for_each(|c| out[3][j * d + c] += ds * q[i * d + c]);
            (0..e).for_each(|c| out[4][j * e + c] += p * g[i * e + c]);
        }
    }
    out
}

/// What the arguments of an attention hold after it.
pub(crate) fn oracle(k: &Attention, args: &[Vec<f64>], scalars: &[u32]) -> Vec<Vec<f64>> {
    let dims = operand_dims(&k.extents);
    let value = |(body, dims): (&Body, &Vec<usize>)| match numel(dims) {
        0 => Vec::new(),
        _ => eval_row(body, &points(dims), args, scalars, &[]).pop().unwrap(),
    };
    let operands: Vec<Vec<f64>> = k.operands.iter().zip(&dims).map(value).collect();
    let n_batch = numel(&k.extents.batch);
    let mut out = args.to_vec();
    for b in 0..n_batch {
        let of = |o: &Vec<f64>| b * o.len() / n_batch..(b + 1) * o.len() / n_batch;
        let some: Vec<&[f64]> = operands.iter().map(|o| &o[of(o)]).collect();
        let parts = parts(&k.extents, k.causal, &some);
        for &(part, arg) in &k.stores {
            let (arg, part) = (arg as usize, &parts[part as usize]);
            let dtype = k.args[arg].dtype;
            for (i, value) in part.iter().enumerate() {
                out[arg][b * part.len() + i] = dtype.round(*value);
            }
        }
    }
    out
}

/// How the bias comes.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Bias {
    Zero,
    /// The same for each element of the batch.
    Shared,
    /// One for each score; some are -∞, and some rows only that.
    Full,
    /// `(row - column) · slope`, as ALiBi has it.
    Slope,
}

struct Case {
    extents: Extents,
    causal: bool,
    dtype: DType,
    bias: Bias,
    /// True iff operands lie with their last axes exchanged.
    turned: bool,
    /// Which element of which operand is NaN.
    nan: Option<(usize, usize)>,
}

/// Unit roundoff of `f32`.
const U: f64 = 1.0 / (1 << 24) as f64;

impl Case {
    fn new(batch: &[usize], [t, s, d, e]: [usize; 4]) -> Case {
        let extents = Extents { batch: batch.to_vec(), t, s, d, e };
        Case { extents, causal: false, dtype: DType::F32, bias: Bias::Zero, turned: false, nan: None }
    }

    /// The arguments, operands and contents for `q, k, v, bias`.
    fn operands(&self, rng: &mut Rng) -> (Vec<Arg>, Vec<Body>, Vec<Vec<f64>>) {
        let dims = operand_dims(&self.extents);
        let rank = dims[0].len();
        let (mut args, mut bodies, mut values) = (Vec::new(), Vec::new(), Vec::new());
        for dims in &dims[..3] {
            self.push(dims, rng.values(self.dtype, numel(dims)), (&mut args, &mut bodies, &mut values));
        }
        let mut body = Body::default();
        match self.bias {
            Bias::Zero => {
                body.push(Instr::Const(self.dtype, 0.0), self.dtype.compute());
            }
            Bias::Slope => {
                let [row, column] = [rank - 2, rank - 1].map(Index::var);
                let distance = body.push(Instr::Coord(column.add(&row.scale(-1), &dims[3])), DType::I32);
                let distance = body.push(Instr::Cast(DType::F32, distance), DType::F32);
                let slope = body.push(Instr::Const(DType::F32, 0.125), DType::F32);
                body.push(Instr::Op(PointOp::Mul, [distance, slope, slope]), DType::F32);
            }
            Bias::Shared | Bias::Full => {
                let n = if self.bias == Bias::Full { 0 } else { rank - 2 };
                let own = row_major(&dims[3][n..]);
                let strides: Vec<i64> = vec![0; n].into_iter().chain(own).collect();
                body.push(load(args.len() as u32, strided(&dims[3], &strides)), self.dtype.compute());
                let mut bias = rng.values(self.dtype, numel(&dims[3][n..]));
                for row in bias.chunks_mut(self.extents.s.max(1)) {
                    let hidden = if rng.chance(20) { 100 } else { 30 };
                    row.iter_mut().filter(|_| rng.chance(hidden)).for_each(|x| *x = f64::NEG_INFINITY);
                }
                args.push(read(self.dtype, bias.len()));
                values.push(bias);
            }
        }
        bodies.push(body);
        if let Some((operand, element)) = self.nan {
            values[operand][element] = f64::NAN;
        }
        (args, bodies, values)
    }

    /// Adds an operand that is loaded.
    fn push(
        &self,
        dims: &[usize],
        values: Vec<f64>,
        (args, bodies, all): (&mut Vec<Arg>, &mut Vec<Body>, &mut Vec<Vec<f64>>),
    ) {
        let n = dims.len();
        let mut strides = row_major(dims);
        if self.turned {
            (strides[n - 2], strides[n - 1]) = (1, dims[n - 2].max(1) as i64);
        }
        let mut body = Body::default();
        body.push(load(args.len() as u32, strided(dims, &strides)), self.dtype.compute());
        args.push(read(self.dtype, values.len()));
        bodies.push(body);
        all.push(values);
    }

    /// Checks the parts, each kernel's at once.
    fn check(&self, rng: &mut Rng, wanted: &[&[Part]]) {
        let (args, bodies, values) = self.operands(rng);
        let both = [Part::Out, Part::LogSum];
        let forward = self.kernel(args.clone(), bodies.clone(), &both);
        let Kernel::Attention(k) = &forward else { unreachable!("an attention") };
        let padded = |n: usize| values.iter().cloned().chain((0..n).map(|i| vec![0.0; k.args[args.len() + i].numel]));
        let made: Vec<Vec<f64>> = oracle(k, &padded(2).collect::<Vec<_>>(), &[]).split_off(args.len());
        for parts in wanted {
            let (mut args, mut bodies, mut values) = (args.clone(), bodies.clone(), values.clone());
            if parts[0].is_backward() {
                self.push_cotangent(rng, &made, &mut args, &mut bodies, &mut values);
            }
            let kernel = self.kernel(args, bodies, parts);
            values.extend(kernel.args()[values.len()..].iter().map(|a| vec![0.0; a.numel]));
            let x = &self.extents;
            let name = format!("{:?} causal {} {} {:?} {parts:?}", x, self.causal, self.dtype, self.bias);
            check(&name, &kernel, &values, &[], self.tolerance(parts[0].is_backward()));
        }
    }

    /// Adds `logsum`, `delta` and `g`, as a forward pass made them.
    fn push_cotangent(
        &self,
        rng: &mut Rng,
        made: &[Vec<f64>],
        args: &mut Vec<Arg>,
        bodies: &mut Vec<Body>,
        values: &mut Vec<Vec<f64>>,
    ) {
        let (dims, e) = (operand_dims(&self.extents), self.extents.e.max(1));
        let g = rng.values(self.dtype, numel(&dims[6]));
        let sum = |(g, out): (&[f64], &[f64])| g.iter().zip(out).map(|(a, b)| a * b).sum::<f64>();
        let mut delta: Vec<f64> = g.chunks(e).zip(made[0].chunks(e)).map(sum).collect();
        delta.resize(numel(&dims[4]), 0.0);
        for (dims, row) in [(&dims[4], made[1].clone()), (&dims[5], delta)] {
            let mut body = Body::default();
            body.push(load(args.len() as u32, flat(dims)), DType::F32);
            args.push(read(DType::F32, row.len()));
            bodies.push(body);
            values.push(row.into_iter().map(|x| DType::F32.round(x)).collect());
        }
        self.push(&dims[6], g, (args, bodies, values));
    }

    fn kernel(&self, mut args: Vec<Arg>, operands: Vec<Body>, parts: &[Part]) -> Kernel {
        let dims = operand_dims(&self.extents);
        let mut stores = Vec::new();
        for &part in parts {
            let (dims, dtype) = match part {
                Part::Out => (&dims[6], self.dtype),
                Part::LogSum => (&dims[4], DType::F32),
                Part::GradQ => (&dims[0], self.dtype),
                Part::GradK => (&dims[1], self.dtype),
                Part::GradV => (&dims[2], self.dtype),
            };
            stores.push((part, args.len() as u32));
            args.push(write(dtype, numel(dims)));
        }
        Kernel::Attention(Attention { extents: self.extents.clone(), causal: self.causal, args, operands, stores })
    }

    /// Operands are within ±2. A score is a sum of `d` products of mean size 1, over `√d`: its error, and so the relative
    /// one of `p`, is about `d·u`. Sums over `s` and `t` add `√s·u` and `√t·u`, the functions a few. The output is a mean
    /// of values up to 2. Cotangents are means, or sums of `t / s` and more means, of `dp - delta`, up to `4√e`,
    /// times operands up to 2. Twice that leaves room for the tails.
    fn tolerance(&self, backward: bool) -> f64 {
        let [t, s, d, e] = [self.extents.t, self.extents.s, self.extents.d, self.extents.e].map(|n| n as f64);
        let relative = (d + t.sqrt() + s.sqrt() + 8.0) * U;
        let size = if backward { 8.0 * (e.sqrt() + 1.0) * (1.0 + t / s.max(1.0)) / d.max(1.0).sqrt() } else { 2.0 };
        let stored = match self.dtype {
            DType::F16 => 1.0 / 1024.0,
            DType::BF16 => 1.0 / 128.0,
            _ => 0.0,
        };
        2.0 * relative * size + stored
    }
}

const FORWARD: &[&[Part]] = &[&[Part::Out], &[Part::LogSum], &[Part::Out, Part::LogSum]];
const BACKWARD: &[&[Part]] = &[
    &[Part::GradQ],
    &[Part::GradK],
    &[Part::GradV],
    &[Part::GradQ, Part::GradK],
    &[Part::GradV, Part::GradQ],
    &[Part::GradK, Part::GradV],
    &[Part::GradQ, Part::GradK, Part::GradV],
];
const ALL: &[&[Part]] = &[&[Part::LogSum, Part::Out], &[Part::GradQ, Part::GradK, Part::GradV]];

#[test]
fn every_subset_of_parts() {
    let mut rng = Rng::new(21);
    for causal in [false, true] {
        for bias in [Bias::Zero, Bias::Full] {
            let case = Case { causal, bias, ..Case::new(&[2], [70, 90, 20, 12]) };
            case.check(&mut rng, FORWARD);
            case.check(&mut rng, BACKWARD);
        }
    }
}

#[test]
fn every_size() {
    let mut rng = Rng::new(22);
    let sizes = [1, 3, 17, 64, 65, 127, 129];
    let widths = [1, 3, 8, 16, 17, 32, 64, 65, 100];
    for (i, &t) in sizes.iter().enumerate() {
        for &s in &sizes {
            let (d, e) = (rng.pick(&widths), rng.pick(&widths));
            for causal in [false, true] {
                let batch: &[usize] = [&[][..], &[3], &[2, 2]][rng.below(3)];
                let bias = rng.pick(&[Bias::Zero, Bias::Shared, Bias::Full, Bias::Slope]);
                let turned = (i + rng.below(2)) % 2 == 1;
                Case { causal, bias, turned, ..Case::new(batch, [t, s, d, e]) }.check(&mut rng, ALL);
            }
        }
    }
}

/// All that a NaN score has a part in, and nothing else: rows before a key that is NaN do not see it.
#[test]
fn a_nan_score_makes_its_row_nan() {
    let mut rng = Rng::new(29);
    let d = 20;
    for nan in [(0, 40 * d), (0, 65 * d + 7), (1, 37 * d + 3), (1, 80 * d)] {
        let case = Case { nan: Some(nan), ..Case::new(&[2], [70, 90, d, 12]) };
        case.check(&mut rng, FORWARD);
        case.check(&mut rng, BACKWARD);
        Case { causal: true, ..case }.check(&mut rng, FORWARD);
    }
}

#[test]
fn narrow_floats_are_computed_wide() {
    let mut rng = Rng::new(23);
    for dtype in [DType::F16, DType::BF16] {
        for (sizes, causal) in [([65, 65, 32, 32], true), ([33, 130, 17, 40], false)] {
            for bias in [Bias::Zero, Bias::Full] {
                for turned in [false, true] {
                    Case { dtype, causal, bias, turned, ..Case::new(&[3], sizes) }.check(&mut rng, ALL);
                }
            }
        }
    }
}

#[test]
fn nothing_to_see_and_nothing_to_say() {
    let mut rng = Rng::new(24);
    for sizes in [[0, 5, 4, 4], [5, 0, 4, 4], [5, 6, 0, 4], [5, 6, 4, 0], [5, 6, 0, 0], [0, 0, 0, 0]] {
        for batch in [&[][..], &[2], &[0], &[3, 0]] {
            for causal in [false, true] {
                for bias in [Bias::Zero, Bias::Full] {
                    let case = Case { causal, bias, ..Case::new(batch, sizes) };
                    case.check(&mut rng, FORWARD);
                    case.check(&mut rng, BACKWARD);
                }
            }
        }
    }
}

/// Enough of a batch that each of its elements is one task, and enough keys that they are divided.
#[test]
fn many_heads_and_long_ones() {
    let mut rng = Rng::new(25);
    for (batch, sizes) in [(&[40][..], [70, 70, 16, 16]), (&[1], [300, 700, 16, 32]), (&[], [700, 300, 32, 16])] {
        for causal in [false, true] {
            Case { causal, ..Case::new(batch, sizes) }.check(&mut rng, ALL);
        }
    }
}

/// Heads of one projection, `[b, t, 3, h, d]`, each a view of the same buffer; the keys are scaled on the way.
#[test]
fn operands_are_views_of_one_buffer() {
    let mut rng = Rng::new(26);
    let [b, t, h, d] = [2, 75, 3, 24];
    let mut case = Case { causal: true, ..Case::new(&[b, h], [t, t, d, d]) };
    let dims = [b, h, t, d];
    let view =
        |part: usize| strided(&dims, &[t * 3 * h * d, d, 3 * h * d, 1].map(|s| s as i64)).offset((part * h * d) as i64);
    let values = rng.values(DType::F32, b * t * 3 * h * d);
    let mut bodies: Vec<Body> = Vec::new();
    for part in 0..3 {
        let mut body = Body::default();
        let x = body.push(load(0, view(part)), DType::F32);
        if part == 1 {
            let half = body.push(Instr::Const(DType::F32, 0.5), DType::F32);
            body.push(Instr::Op(PointOp::Mul, [x, half, half]), DType::F32);
        }
        bodies.push(body);
    }
    let mut zero = Body::default();
    zero.push(Instr::Const(DType::F32, 0.0), DType::F32);
    bodies.push(zero);
    let args = vec![read(DType::F32, values.len())];
    let kernel = case.kernel(args.clone(), bodies.clone(), ALL[0]);
    let rows = b * h * t;
    check("views", &kernel, &[values.clone(), vec![0.0; rows], vec![0.0; rows * d]], &[], case.tolerance(false));

    let Kernel::Attention(k) = &case.kernel(args.clone(), bodies.clone(), FORWARD[2]) else { unreachable!("as made") };
    let made = oracle(k, &[values.clone(), vec![0.0; rows * d], vec![0.0; rows]], &[]).split_off(1);
    let (mut args, mut all) = (args, vec![values]);
    case.turned = true;
    case.push_cotangent(&mut rng, &made, &mut args, &mut bodies, &mut all);
    let kernel = case.kernel(args, bodies, ALL[1]);
    all.extend([(); 3].map(|()| vec![0.0; rows * d]));
    check("views", &kernel, &all, &[], case.tolerance(true));
}

#[test]
fn operands_are_converted_on_the_way() {
    let mut rng = Rng::new(28);
    let case = Case { causal: true, ..Case::new(&[2], [70, 70, 24, 24]) };
    let (mut args, mut bodies, mut values) = case.operands(&mut rng);
    args[1].dtype = DType::F64;
    bodies[1].types[0] = DType::F64;
    bodies[1].push(Instr::Cast(DType::F32, 0), DType::F32);
    let q = bodies[0].push(Instr::Cast(DType::BF16, 0), DType::F32);
    bodies[0].push(Instr::Op(PointOp::Neg, [q; 3]), DType::F32);
    let kernel = case.kernel(args, bodies, FORWARD[2]);
    values.extend(kernel.args()[3..].iter().map(|a| vec![0.0; a.numel]));
    check("converted", &kernel, &values, &[], case.tolerance(false));
}

#[test]
fn doubles_are_refused_by_name() {
    let mut rng = Rng::new(27);
    let case = Case { dtype: DType::F64, ..Case::new(&[], [3, 3, 4, 4]) };
    let (args, bodies, _) = case.operands(&mut rng);
    let refused = kiln_cpu::CpuBackend::with_threads(1).supports(&case.kernel(args, bodies, FORWARD[0]));
    assert_eq!(refused, Err(Reject::DType(DType::F64)));
}
