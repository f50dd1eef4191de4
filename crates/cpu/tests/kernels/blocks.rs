//! Blocks after a task's first one: where their loads and stores begin follows from that, or does not.

use kiln_ir::kernel::{Arg, Body, Instr, Loop, Store, Value};
use kiln_ir::{Bound, DType, Index, Kernel, PointOp, ReduceOp};

use crate::common::{Rng, check, flat, load, masked, read, strided, write};

/// Rows along two axes that are walked one after the other.
const ROWS: [usize; 2] = [7, 9];

/// An argument's elements, over rows and points: how many there are, and how they are read.
fn loads(points: usize) -> Vec<(&'static str, usize, Instr)> {
    let dims = [ROWS[0], ROWS[1], points];
    let (n, wide): (usize, usize) = (dims.iter().product(), points + 24);
    let p = points as i64;
    let of_strides = |strides: [i64; 3], from: i64| load(0, strided(&dims, &strides).offset(from));
    let row = strided(&dims, &[9, 1, 0]);
    let fifth = row.modulo(5, &dims).scale(p).add(&Index::var(2), &dims);
    let some = Bound { index: row, lo: 3, hi: 50 };
    vec![
        ("as they lie", n, of_strides([9 * p, p, 1], 0)),
        ("a part of longer rows", 63 * wide, of_strides([9 * wide as i64, wide as i64, 1], 5)),
        ("the same for all rows", points, of_strides([0, 0, 1], 0)),
        ("the same for some rows", 7 * points, of_strides([p, 0, 1], 0)),
        ("rows the other way round", n, of_strides([-9 * p, -p, 1], 62 * p)),
        ("rows in another order", n, of_strides([p, 7 * p, 1], 0)),
        ("five rows again and again", 5 * points, load(0, fifth)),
        ("of some rows only", n, masked(0, flat(&dims), vec![some])),
        ("one a row", 63, of_strides([9, 1, 0], 0)),
        ("windows one element apart", 63 + points, of_strides([9, 1, 1], 0)),
    ]
}

/// A body over rows and points that has loaded `x` and, as it lies, `v`; with both.
fn loaded(points: usize, x: Instr) -> (Body, [Value; 2]) {
    let mut body = Body::default();
    let both = [x, load(1, flat(&[ROWS[0], ROWS[1], points]))].map(|instr| body.push(instr, DType::F32));
    (body, both)
}

fn op(body: &mut Body, op: PointOp, x: Value, y: Value) -> Value {
    body.push(Instr::Op(op, [x, y, y]), DType::F32)
}

fn args(points: usize, numel: usize) -> Vec<Arg> {
    let n = ROWS[0] * ROWS[1] * points;
    vec![read(DType::F32, numel), read(DType::F32, n), write(DType::F32, n)]
}

/// `y = x · Σx + v` over rows; those of `y` lie so far apart along both axes.
fn scaled(points: usize, (numel, x): (usize, Instr), apart: [usize; 2]) -> Kernel {
    let (mut body, [x, v]) = loaded(points, x);
    let sum = body.push(Instr::Reduce(ReduceOp::Sum, x), DType::F32);
    let product = op(&mut body, PointOp::Mul, x, sum);
    let y = op(&mut body, PointOp::Add, product, v);
    let [slow, fast] = apart.map(|rows| (rows * points) as i64);
    let index = strided(&[ROWS[0], ROWS[1], points], &[slow, fast, 1]);
    body.stores.push(Store { arg: 2, index, value: y });
    Kernel::Loop(Loop { outer: ROWS.to_vec(), row: vec![points], args: args(points, numel), body })
}

/// `y = 3x - v` over all points.
fn chain(points: usize, (numel, x): (usize, Instr)) -> Kernel {
    let (mut body, [x, v]) = loaded(points, x);
    let three = body.push(Instr::Const(DType::F32, 3.0), DType::F32);
    let product = op(&mut body, PointOp::Mul, x, three);
    let y = op(&mut body, PointOp::Sub, product, v);
    let dims = [ROWS[0], ROWS[1], points];
    body.stores.push(Store { arg: 2, index: flat(&dims), value: y });
    Kernel::Loop(Loop { outer: dims.to_vec(), row: vec![], args: args(points, numel), body })
}

fn values(rng: &mut Rng, kernel: &Kernel) -> Vec<Vec<f64>> {
    kernel.args().iter().map(|arg| (0..arg.numel).map(|_| rng.below(7) as f64 - 3.0).collect()).collect()
}

#[test]
fn blocks_after_the_first_read_and_write_their_own() {
    let mut rng = Rng::new(71);
    // Rows that fill a tile, of which several fill one, and that are no whole cache lines.
    for points in [1024, 640, 208, 999] {
        for (name, numel, x) in loads(points) {
            for apart in [[9, 1], [1, 7]] {
                let kernel = scaled(points, (numel, x.clone()), apart);
                let name = format!("{name}, {points} points, rows of the result {apart:?} apart");
                check(&name, &kernel, &values(&mut rng, &kernel), &[], 0.0);
            }
            let kernel = chain(points, (numel, x));
            check(&format!("{name}, {points} points, all at once"), &kernel, &values(&mut rng, &kernel), &[], 0.0);
        }
    }
}
