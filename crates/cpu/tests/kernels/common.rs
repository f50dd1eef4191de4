//! The oracle of the kernel tests: every body evaluated point by point in `f64`, as it reads.
//!
//! It shares the op table with the backend, and nothing else.

use std::collections::BTreeMap;

use kiln_cpu::CpuBackend;
use kiln_ir::kernel::{Access, Arg, Body, Dot, Instr, Loop, Scan, Scatter, Sort, Store};
use kiln_ir::random::threefry2x32;
use kiln_ir::sort::Part;
use kiln_ir::{Backend, Bound, DType, Index, Kernel, ReduceOp, Slot, Step};

/// A stream of random numbers.
pub(crate) struct Rng(u32, u32);

impl Rng {
    pub(crate) fn new(seed: u32) -> Rng {
        Rng(seed, 0)
    }

    pub(crate) fn word(&mut self) -> u32 {
        self.1 += 1;
        threefry2x32([self.0, 7], [self.1, 0])[0]
    }

    pub(crate) fn below(&mut self, n: usize) -> usize {
        ((self.word() as u64 * n as u64) >> 32) as usize
    }

    pub(crate) fn uniform(&mut self, lo: f64, hi: f64) -> f64 {
        lo + (hi - lo) * self.word() as f64 / u32::MAX as f64
    }

    pub(crate) fn chance(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }

    pub(crate) fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())]
    }

    /// Values that a dtype can hold.
    pub(crate) fn values(&mut self, dtype: DType, n: usize) -> Vec<f64> {
        let one = |rng: &mut Rng| match dtype {
            DType::Bool => rng.below(2) as f64,
            DType::U8 => rng.below(256) as f64,
            DType::U32 => rng.below(1000) as f64,
            DType::I32 => rng.below(2000) as f64 - 1000.0,
            _ => dtype.round(rng.uniform(-2.0, 2.0)),
        };
        (0..n).map(|_| one(self)).collect()
    }
}

pub(crate) fn encode(dtype: DType, values: &[f64]) -> Vec<u8> {
    let bytes = |&v: &f64| -> Vec<u8> {
        match dtype {
            DType::F32 => (v as f32).to_le_bytes().to_vec(),
            DType::F16 => half::f16::from_f64(v).to_le_bytes().to_vec(),
            DType::BF16 => half::bf16::from_f64(v).to_le_bytes().to_vec(),
            DType::F64 => v.to_le_bytes().to_vec(),
            DType::I32 => (v as i32).to_le_bytes().to_vec(),
            DType::U32 => (v as u32).to_le_bytes().to_vec(),
            DType::U8 | DType::Bool => vec![v as u8],
        }
    };
    values.iter().flat_map(bytes).collect()
}

pub(crate) fn decode(dtype: DType, bytes: &[u8]) -> Vec<f64> {
    let four = |b: &[u8]| <[u8; 4]>::try_from(b).unwrap();
    let one = |b: &[u8]| match dtype {
        DType::F32 => f32::from_le_bytes(four(b)) as f64,
        DType::F16 => half::f16::from_le_bytes(b.try_into().unwrap()).to_f64(),
        DType::BF16 => half::bf16::from_le_bytes(b.try_into().unwrap()).to_f64(),
        DType::F64 => f64::from_le_bytes(b.try_into().unwrap()),
        DType::I32 => i32::from_le_bytes(four(b)) as f64,
        DType::U32 => u32::from_le_bytes(four(b)) as f64,
        DType::U8 | DType::Bool => b[0] as f64,
    };
    bytes.chunks_exact(dtype.size_bytes()).map(one).collect()
}

/// Runs a kernel on these contents of its arguments and gives what they then hold, as bytes.
pub(crate) fn run_bytes(cpu: &CpuBackend, kernel: &Kernel, args: &[Vec<f64>], scalars: &[u32]) -> Vec<Vec<u8>> {
    let exe = cpu.compile(std::slice::from_ref(kernel)).remove(0).unwrap();
    let described = kernel.args();
    let buffers: Vec<_> = described
        .iter()
        .zip(args)
        .map(|(arg, values)| {
            let buffer = cpu.alloc(cpu.caps().bytes(arg.dtype, arg.numel)).unwrap();
            if arg.access != Access::Write {
                cpu.write(&buffer, 0, &encode(arg.dtype, values)).unwrap();
            }
            buffer
        })
        .collect();
    let binds = described.iter().enumerate().map(|(i, a)| (Slot::Arg(i as u32), a.access)).collect();
    let words = (0..scalars.len() as u32).collect();
    let tape = cpu.record(&[Step { exe, binds, scalars: words }], &[]).unwrap();
    cpu.replay(&tape, &buffers, scalars).unwrap().wait().unwrap();
    let read = |(arg, buffer)| {
        let arg: &Arg = arg;
        cpu.read(buffer, 0..(arg.numel * arg.dtype.size_bytes()) as u64).wait().unwrap()
    };
    described.iter().zip(&buffers).map(read).collect()
}

/// Runs a kernel on one, two and three threads, and checks it against the oracle.
#[track_caller]
pub(crate) fn check(name: &str, kernel: &Kernel, args: &[Vec<f64>], scalars: &[u32], tolerance: f64) {
    thread_local! {
        static ON: Vec<CpuBackend> =
            vec![CpuBackend::poisoned(), CpuBackend::with_threads(1), CpuBackend::with_threads(2), CpuBackend::with_threads(3)];
    }
    let got = ON.with(|on| {
        let runs: Vec<_> = on.iter().map(|cpu| run_bytes(cpu, kernel, args, scalars)).collect();
        assert!(runs.iter().all(|r| *r == runs[0]), "{name}: threads change the result");
        runs.into_iter().next().unwrap()
    });
    let want = oracle(kernel, args, scalars);
    for (i, arg) in kernel.args().iter().enumerate().filter(|a| a.1.access != Access::Read) {
        for (at, (&got, &want)) in decode(arg.dtype, &got[i]).iter().zip(&want[i]).enumerate() {
            let same = got == want || (got.is_nan() && want.is_nan());
            let near = (got - want).abs() <= tolerance * want.abs().max(1.0);
            assert!(same || near, "{name}: argument {i}, element {at}: {got} ≠ {want}\n{kernel:#?}");
        }
    }
}

/// What the arguments of a kernel hold after it.
pub(crate) fn oracle(kernel: &Kernel, args: &[Vec<f64>], scalars: &[u32]) -> Vec<Vec<f64>> {
    match kernel {
        Kernel::Loop(k) => oracle_loop(k, args, scalars),
        Kernel::Dot(k) => oracle_dot(k, args, scalars),
        Kernel::Scatter(k) => oracle_scatter(k, args),
        Kernel::Attention(k) => crate::attention::oracle(k, args, scalars),
        Kernel::Scan(k) => oracle_scan(k, args),
        Kernel::Sort(k) => oracle_sort(k, args),
        Kernel::Group(loops) => loops.iter().fold(args.to_vec(), |args, k| oracle_loop(k, &args, scalars)),
    }
}

/// The points of a space, row-major.
pub(crate) fn points(dims: &[usize]) -> Vec<Vec<usize>> {
    dims.iter().fold(vec![vec![]], |all, &dim| {
        all.iter().flat_map(|p| (0..dim).map(|c| [&p[..], &[c]].concat()).collect::<Vec<_>>()).collect()
    })
}

fn oracle_loop(k: &Loop, args: &[Vec<f64>], scalars: &[u32]) -> Vec<Vec<f64>> {
    let mut out = args.to_vec();
    // What each element that is reduced over rows is reduced from.
    let mut columns: BTreeMap<(u32, usize), (ReduceOp, DType, Vec<f64>)> = BTreeMap::new();
    for outer in points(&k.outer) {
        let row: Vec<Vec<usize>> = points(&k.row).iter().map(|r| [&outer[..], r].concat()).collect();
        // A value for each point of the row; of an empty row, for one point that does not exist.
        let values = eval_row(&k.body, &row, args, scalars, &[]);
        for Store { arg, index, value } in &k.body.stores {
            let dtype = k.args[*arg as usize].dtype;
            let once = vec![[&outer[..], &vec![0; k.row.len()]].concat()];
            let uses_row = index.uses(&|a| a >= outer.len());
            let at = if row.is_empty() && !uses_row { &once } else { &row };
            for (i, point) in at.iter().enumerate() {
                let (value, at) = (*value as usize, index.eval(point) as usize);
                match k.body.instrs[value] {
                    Instr::ColumnReduce(op, _) => {
                        let column = columns.entry((*arg, at)).or_insert((op, k.body.types[value], Vec::new()));
                        column.2.push(values[value][i]);
                    }
                    _ => out[*arg as usize][at] = dtype.round(values[value][i]),
                }
            }
        }
    }
    for ((arg, at), (op, dtype, from)) in columns {
        out[arg as usize][at] = k.args[arg as usize].dtype.round(reduce(op, dtype, &from));
    }
    out
}

/// The values of every step at every point of a row.
pub(crate) fn eval_row(
    body: &Body,
    row: &[Vec<usize>],
    args: &[Vec<f64>],
    scalars: &[u32],
    acc: &[f64],
) -> Vec<Vec<f64>> {
    let mut values: Vec<Vec<f64>> = Vec::new();
    for (instr, &dtype) in body.instrs.iter().zip(&body.types) {
        let n = row.len().max(1);
        let value = match instr {
            Instr::Reduce(op, v) => {
                let from = &values[*v as usize][..row.len()];
                vec![dtype.round(reduce(*op, body.types[*v as usize], from)); n]
            }
            _ if row.is_empty() => vec![eval_constant(instr, &values, &body.types, scalars); n],
            _ => (0..n).map(|i| eval_point(instr, i, &row[i], &values, &body.types, args, scalars, acc)).collect(),
        };
        values.push(value.into_iter().map(|v| dtype.round(v)).collect());
    }
    values
}

/// As [`eval_point`] where there is no point: rows of none have only results.
fn eval_constant(instr: &Instr, values: &[Vec<f64>], types: &[DType], scalars: &[u32]) -> f64 {
    match instr {
        Instr::Load { .. } | Instr::Coord(_) | Instr::Inside(_) | Instr::Acc => 0.0,
        _ => eval_point(instr, 0, &[], values, types, &[], scalars, &[]),
    }
}

#[allow(clippy::too_many_arguments, reason = "an interpreter's state")]
fn eval_point(
    instr: &Instr,
    i: usize,
    at: &[usize],
    values: &[Vec<f64>],
    types: &[DType],
    args: &[Vec<f64>],
    scalars: &[u32],
    acc: &[f64],
) -> f64 {
    let value = |v: u32| values[v as usize][i];
    match instr {
        Instr::Load { arg, index, valid, gather } => {
            let mut at = at.to_vec();
            at.extend(gather.map(|(v, n)| (value(v).max(0.0) as usize).min(n - 1)));
            let exists = valid.iter().all(|b| b.holds(&at));
            if exists { args[*arg as usize][index.eval(&at) as usize] } else { 0.0 }
        }
        Instr::Const(dtype, v) => dtype.round(*v),
        Instr::Scalar(dtype, n) => match dtype {
            DType::F32 => f32::from_bits(scalars[*n as usize]) as f64,
            DType::I32 => scalars[*n as usize] as i32 as f64,
            DType::Bool => (scalars[*n as usize] != 0) as u8 as f64,
            _ => scalars[*n as usize] as f64,
        },
        Instr::Coord(index) => index.eval(at) as f64,
        Instr::Inside(bounds) => bounds.iter().all(|b| b.holds(at)) as u8 as f64,
        Instr::Op(op, v) => {
            let operand = types[v[op.row().arity - 1] as usize];
            (op.row().reference)(operand, v.map(value))
        }
        Instr::Cast(to, v) => to.round(value(*v)),
        // What this row adds to it.
        Instr::ColumnReduce(_, v) => value(*v),
        Instr::Reduce(..) => unreachable!("done for a row"),
        Instr::Acc => acc[i],
    }
}

fn reduce(op: ReduceOp, dtype: DType, row: &[f64]) -> f64 {
    let keep = |best: f64, v: f64, better: bool| if best.is_nan() || !(better || v.is_nan()) { best } else { v };
    let start = op.identity(dtype);
    match op {
        ReduceOp::Sum if dtype == DType::I32 => row.iter().sum::<f64>() as i64 as i32 as f64,
        ReduceOp::Sum if dtype == DType::U32 => row.iter().sum::<f64>() as i64 as u32 as f64,
        ReduceOp::Sum => row.iter().sum(),
        ReduceOp::Prod if dtype == DType::I32 => row.iter().fold(1i32, |a, &b| a.wrapping_mul(b as i32)) as f64,
        ReduceOp::Prod if dtype == DType::U32 => row.iter().fold(1u32, |a, &b| a.wrapping_mul(b as u32)) as f64,
        ReduceOp::Prod => row.iter().product(),
        ReduceOp::Max => row.iter().fold(start, |best, &v| keep(best, v, v > best)),
        ReduceOp::Min => row.iter().fold(start, |best, &v| keep(best, v, v < best)),
        ReduceOp::ArgMax => {
            let better = |v: f64, best: f64| !best.is_nan() && (v.is_nan() || v > best);
            (1..row.len()).fold(0, |at, i| if better(row[i], row[at]) { i } else { at }) as f64
        }
    }
}

fn oracle_dot(k: &Dot, args: &[Vec<f64>], scalars: &[u32]) -> Vec<Vec<f64>> {
    let operand = |body: &Body, dims: &[usize]| -> Vec<f64> {
        let values = eval_row(body, &points(dims), args, scalars, &[]);
        values.last().unwrap().clone()
    };
    let lhs = operand(&k.lhs, &[&k.batch[..], &k.m, &k.k].concat());
    let rhs = operand(&k.rhs, &[&k.batch[..], &k.k, &k.n].concat());
    let numel = |dims: &[usize]| dims.iter().product::<usize>();
    let (b, m, n, depth) = (numel(&k.batch), numel(&k.m), numel(&k.n), numel(&k.k));
    let mut sums = Vec::with_capacity(b * m * n);
    for i in 0..b * m * n {
        let (b, m, j) = (i / (m * n), i / n % m, i % n);
        let term = |p: usize| lhs[(b * k.m.iter().product::<usize>() + m) * depth + p] * rhs[(b * depth + p) * n + j];
        sums.push((0..depth).map(term).sum());
    }
    let mut out = args.to_vec();
    let all = points(&[&k.batch[..], &k.m, &k.n].concat());
    let values = eval_row(&k.epilogue, &all, args, scalars, &sums);
    for Store { arg, index, value } in &k.epilogue.stores {
        let dtype = k.args[*arg as usize].dtype;
        for (i, point) in all.iter().enumerate() {
            out[*arg as usize][index.eval(point) as usize] = dtype.round(values[*value as usize][i]);
        }
    }
    out
}

fn oracle_scatter(k: &Scatter, args: &[Vec<f64>]) -> Vec<Vec<f64>> {
    let numel = |dims: &[usize]| dims.iter().product::<usize>();
    let (outer, n, inner) = (numel(&k.outer), numel(&k.index), numel(&k.inner));
    let mut result = vec![0.0; outer * k.size * inner];
    for o in 0..outer {
        for i in 0..n {
            let at = (args[0][i].max(0.0) as usize).min(k.size - 1);
            for j in 0..inner {
                result[(o * k.size + at) * inner + j] += args[1][(o * n + i) * inner + j];
            }
        }
    }
    let round = |v: f64| match k.args[2].dtype {
        DType::I32 => v as i64 as i32 as f64,
        DType::U32 => v as i64 as u32 as f64,
        dtype => dtype.round(v),
    };
    vec![args[0].clone(), args[1].clone(), result.into_iter().map(round).collect()]
}

fn oracle_scan(k: &Scan, args: &[Vec<f64>]) -> Vec<Vec<f64>> {
    let (x, dtype) = (&args[0], k.args[0].dtype);
    let mut result = vec![0.0; x.len()];
    for row in 0..k.outer * k.inner {
        let mut so_far = Vec::new();
        for step in 0..k.len {
            let step = if k.reverse { k.len - 1 - step } else { step };
            let at = (row / k.inner * k.len + step) * k.inner + row % k.inner;
            so_far.push(x[at]);
            // The reduction of what there is so far is all that there is to know.
            so_far = vec![reduce(k.op, dtype, &so_far)];
            result[at] = dtype.round(so_far[0]);
        }
    }
    vec![x.clone(), result]
}

fn oracle_sort(k: &Sort, args: &[Vec<f64>]) -> Vec<Vec<f64>> {
    let mut out = args.to_vec();
    for row in 0..k.outer * k.inner {
        let at = |n: usize| (row / k.inner * k.len + n) * k.inner + row % k.inner;
        // One after the other is put before the first that comes after it.
        let mut sorted: Vec<usize> = Vec::new();
        for n in 0..k.len {
            let after = |&other: &usize| {
                let (x, y) = (args[0][at(n)], args[0][at(other)]);
                let (x, y) = if k.descending { (y, x) } else { (x, y) };
                x < y || y.is_nan() && !x.is_nan()
            };
            let place = sorted.iter().position(after).unwrap_or(sorted.len());
            sorted.insert(place, n);
        }
        for (n, from) in sorted.into_iter().take(k.keep).enumerate() {
            let to = (row / k.inner * k.keep + n) * k.inner + row % k.inner;
            for &(part, arg) in &k.stores {
                out[arg as usize][to] = if part == Part::Values { args[0][at(from)] } else { from as f64 };
            }
        }
    }
    out
}

/// The row-major element number in a space with these dims.
pub(crate) fn flat(dims: &[usize]) -> Index {
    strided(dims, &row_major(dims))
}

pub(crate) fn row_major(dims: &[usize]) -> Vec<i64> {
    (0..dims.len()).map(|a| dims[a + 1..].iter().product::<usize>().max(1) as i64).collect()
}

/// `Σ stride · coordinate`.
pub(crate) fn strided(dims: &[usize], strides: &[i64]) -> Index {
    let term = |(a, &s): (usize, &i64)| Index::var(a).scale(s);
    strides.iter().enumerate().map(term).fold(Index::constant(0), |sum, t| sum.add(&t, dims))
}

pub(crate) fn load(arg: u32, index: Index) -> Instr {
    Instr::Load { arg, index, valid: Vec::new(), gather: None }
}

pub(crate) fn masked(arg: u32, index: Index, valid: Vec<Bound>) -> Instr {
    Instr::Load { arg, index, valid, gather: None }
}

pub(crate) fn read(dtype: DType, numel: usize) -> Arg {
    Arg { dtype, numel, access: Access::Read }
}

pub(crate) fn write(dtype: DType, numel: usize) -> Arg {
    Arg { dtype, numel, access: Access::Write }
}

/// A reduction of argument 0, dense over `outer ++ row`, into argument 1, dense over `outer`.
pub(crate) fn reduction(op: ReduceOp, dtype: DType, outer: &[usize], row: &[usize], index: Index) -> Kernel {
    let numel = |dims: &[usize]| dims.iter().product::<usize>();
    let result = if op == ReduceOp::ArgMax { DType::I32 } else { dtype };
    let mut body = Body::default();
    let x = body.push(load(0, index), dtype.compute());
    let y = body.push(Instr::Reduce(op, x), result.compute());
    body.stores.push(Store { arg: 1, index: flat(outer), value: y });
    let args = vec![read(dtype, numel(outer) * numel(row)), write(result, numel(outer))];
    Kernel::Loop(Loop { outer: outer.to_vec(), row: row.to_vec(), args, body })
}
