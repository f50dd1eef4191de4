//! Laws over the op table and the movement ops, judged by the reference alone.

use std::collections::HashSet;

use kiln_ir::attention::{Attend, Part};
use kiln_ir::ops::{Gradient, OPS, Row, Typing, erf};
use kiln_ir::random::threefry2x32;
use kiln_ir::scan::{self, Scan};
use kiln_ir::scatter;
use kiln_ir::sort::{self, Sort};
use kiln_ir::{Axes, Contraction, DType, Expr, Graph, Movement, Node, Op, ReduceOp, Shape, reference};

/// `n` numbers in `lo..hi`, the same on every run.
fn numbers(seed: u32, n: usize, (lo, hi): (f64, f64)) -> Vec<f64> {
    (0..n).map(|i| lo + (hi - lo) * threefry2x32([seed, 0], [i as u32, 0])[0] as f64 / 2f64.powi(32)).collect()
}

/// Value of `row` at `args`, in `f64`.
fn value(row: &Row, args: [f64; 3]) -> f64 {
    (row.reference)(DType::F64, args)
}

#[test]
fn rows_are_named_documented_and_in_order() {
    let names: HashSet<_> = OPS.iter().map(|r| r.name).collect();
    assert_eq!(names.len(), OPS.len(), "names are unique");
    for (i, row) in OPS.iter().enumerate() {
        assert_eq!(row.op as usize, i, "{} is at its own position", row.name);
        assert!(row.doc.trim().len() > 4 && (1..=3).contains(&row.arity), "{}", row.name);
    }
}

#[test]
fn gradients_equal_central_differences() {
    let mut checked = 0;
    for row in OPS {
        let Gradient::Formulas(formulas) = row.gradient else { continue };
        checked += 1;
        let columns: Vec<_> = (0..3).map(|i| numbers(i, 64, row.probe)).collect();
        let points = (0..64).map(|p| -> [f64; 3] { std::array::from_fn(|i| columns[i][p]) });
        for (p, mut x) in points.enumerate() {
            if row.typing == Typing::Select {
                x[0] = (p % 2) as f64;
            }
            let y = value(row, x);
            let e = |i| kiln_ir::expr::E::input(i);
            let grads = formulas(&e(0), &[e(1), e(2), e(3)], &e(4));
            assert_eq!(grads.len(), row.arity, "{}: one formula per operand", row.name);
            for (i, grad) in grads.iter().enumerate() {
                let Some(grad) = grad else { continue };
                let expr: Expr = grad.build();
                let mask = if row.typing == Typing::Select { DType::Bool } else { DType::F64 };
                let types = expr.types(&[DType::F64, mask, DType::F64, DType::F64, DType::F64]).unwrap();
                let g = 1.5;
                let found = expr.eval(&types, &[g, x[0], x[1], x[2], y], false);
                let h = 1e-5 * x[i].abs().max(1.0);
                let at = |v: f64| {
                    let mut x = x;
                    x[i] = v;
                    value(row, x)
                };
                let expected = g * (at(x[i] + h) - at(x[i] - h)) / (2.0 * h);
                let error = (found - expected).abs() / expected.abs().max(1.0);
                assert!(error < 1e-5, "{} operand {i} at {x:?}: {found} ≠ {expected}", row.name);
            }
        }
    }
    assert!(checked >= 20, "only {checked} rows have a gradient");
}

#[test]
fn extrema_halve_the_gradient_at_a_tie() {
    for name in ["min", "max"] {
        let row = OPS.iter().find(|r| r.name == name).unwrap();
        let Gradient::Formulas(formulas) = row.gradient else { panic!("{name} has a gradient") };
        let e = |i| kiln_ir::expr::E::input(i);
        for grad in formulas(&e(0), &[e(1), e(2), e(3)], &e(4)) {
            let expr = grad.unwrap().build();
            let types = expr.types(&[DType::F64; 5]).unwrap();
            assert_eq!(expr.eval(&types, &[3.0, 2.0, 2.0, 0.0, 2.0], false), 1.5, "{name}");
        }
    }
}

#[test]
fn erf_matches_published_values() {
    // Abramowitz and Stegun 1964, Table 7.1.
    for (x, y) in [(0.0, 0.0), (0.5, 0.5204998778), (1.0, 0.8427007929), (2.0, 0.9953222650), (3.0, 0.9999779095)] {
        assert!((erf(x) - y).abs() < 1e-10 && (erf(-x) + y).abs() < 1e-10, "erf({x}) = {}", erf(x));
    }
    assert!((erf(2.4999999) - erf(2.5)).abs() < 1e-9, "the two expansions meet");
}

#[test]
fn integers_wrap_and_never_trap() {
    let row = |name: &str| OPS.iter().find(|r| r.name == name).unwrap().reference;
    let (min, max) = (i32::MIN as f64, i32::MAX as f64);
    assert_eq!(row("add")(DType::I32, [max, 1.0, 0.0]), min);
    assert_eq!(row("mul")(DType::U32, [4294967295.0, 4294967295.0, 0.0]), 1.0);
    assert_eq!(row("div")(DType::I32, [7.0, 0.0, 0.0]), 0.0);
    assert_eq!(row("div")(DType::I32, [min, -1.0, 0.0]), min);
    assert_eq!(row("rem")(DType::I32, [-7.0, 3.0, 0.0]), -1.0);
    assert_eq!(row("not")(DType::Bool, [0.0; 3]), 1.0);
}

/// A view of a tensor that holds 0, 1, 2, …
fn view(dims: &[usize], movement: Movement) -> (Shape, Vec<f64>) {
    let mut g = Graph::default();
    let x = g.source(Op::Leaf(0), Shape::new(dims), DType::F32);
    let y = g.apply(Op::View(movement), &[x]);
    g.outputs = vec![y];
    let leaf = (0..dims.iter().product()).map(|i: usize| i as f64).collect();
    (g.nodes[y as usize].shape, reference::eval(&g, &[leaf], &[]).remove(0))
}

#[test]
fn movements_show_the_elements_they_promise() {
    let check = |dims: &[usize], m: Movement, shape: &[usize], values: &[f64]| {
        let (s, v) = view(dims, m.clone());
        assert_eq!((&s[..], v.as_slice()), (shape, values), "{m:?}");
    };
    check(&[2, 3], Movement::Permute(Axes::new(&[1, 0])), &[3, 2], &[0., 3., 1., 4., 2., 5.]);
    check(&[2, 1], Movement::Expand(Shape::new(&[2, 2, 2])), &[2, 2, 2], &[0., 0., 1., 1., 0., 0., 1., 1.]);
    check(&[5], Movement::Slice { axis: 0, start: 1, len: 2, step: 3 }, &[2], &[1., 4.]);
    check(&[3], Movement::Flip(0), &[3], &[2., 1., 0.]);
    check(&[2], Movement::Pad { axis: 0, lo: 1, hi: 2, interior: 1 }, &[6], &[0., 0., 0., 1., 0., 0.]);
    let window = Movement::Window { axis: 0, size: 2, stride: 2, dilation: 2 };
    check(&[6], window, &[2, 2], &[0., 2., 2., 4.]);
    check(&[0, 3], Movement::Reshape(Shape::new(&[3, 0])), &[3, 0], &[]);
}

/// `⟨u, A v⟩ = ⟨Aᵀ u, v⟩` for a window and its adjoint, on every small geometry.
#[test]
fn unwindow_is_the_adjoint_of_window() {
    for (len, size, stride, dilation) in [(7, 3, 1, 1), (8, 3, 2, 1), (9, 2, 3, 2), (5, 5, 1, 1), (6, 1, 2, 1)] {
        let mut g = Graph::default();
        let v = g.source(Op::Leaf(0), Shape::new(&[len]), DType::F64);
        let windows = g.apply(Op::View(Movement::Window { axis: 0, size, stride, dilation }), &[v]);
        let shape = g.nodes[windows as usize].shape;
        let u = g.source(Op::Leaf(1), shape, DType::F64);
        let spread = g.apply(Op::View(Movement::Unwindow { axis: 0, len, stride, dilation }), &[u]);
        let adjoint = g.apply(Op::Reduce(ReduceOp::Sum, Axes::new(&[1])), &[spread]);
        g.outputs = vec![windows, adjoint];
        let (v, u) = (numbers(7, len, (-1.0, 1.0)), numbers(8, shape.numel(), (-1.0, 1.0)));
        let out = reference::eval(&g, &[v.clone(), u.clone()], &[]);
        let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(x, y)| x * y).sum::<f64>();
        assert!((dot(&out[0], &u) - dot(&out[1], &v)).abs() < 1e-12, "{len} {size} {stride} {dilation}");
    }
}

#[test]
fn a_convolution_is_a_window_and_a_contraction() {
    // x [c = 1, 4] * w [c = 1, k = 3, out = 1]: PyTorch's conv1d correlates, it does not flip.
    let mut g = Graph::default();
    let x = g.source(Op::Leaf(0), Shape::new(&[1, 4]), DType::F32);
    let w = g.source(Op::Leaf(1), Shape::new(&[1, 3, 1]), DType::F32);
    let windows = g.apply(Op::View(Movement::Window { axis: 1, size: 3, stride: 1, dilation: 1 }), &[x]);
    let windows = g.apply(Op::View(Movement::Permute(Axes::new(&[1, 0, 2]))), &[windows]);
    let y = g.apply(Op::Dot(Contraction { batch: 0, m: 1, n: 1, k: 2 }), &[windows, w]);
    g.outputs = vec![y];
    let out = reference::eval(&g, &[vec![1., 2., 3., 4.], vec![10., 1., 0.]], &[]);
    assert_eq!(out[0], [12., 23.]);
}

#[test]
fn reductions_hold_at_the_edges() {
    let run = |op, dims: &[usize], values: Vec<f64>| {
        let mut g = Graph::default();
        let x = g.source(Op::Leaf(0), Shape::new(dims), DType::F32);
        let y = g.apply(Op::Reduce(op, Axes::new(&[dims.len() - 1])), &[x]);
        g.outputs = vec![y];
        reference::eval(&g, &[values], &[]).remove(0)
    };
    assert_eq!(run(ReduceOp::Sum, &[2, 0], vec![]), [0.0, 0.0]);
    assert_eq!(run(ReduceOp::Max, &[1, 0], vec![]), [f64::NEG_INFINITY]);
    assert_eq!(run(ReduceOp::ArgMax, &[4], vec![1., 3., 3., 2.]), [1.0], "the first of equals");
    assert!(run(ReduceOp::Max, &[3], vec![1., f64::NAN, 2.])[0].is_nan());
    assert!(run(ReduceOp::Min, &[3], vec![f64::NAN, 1., 2.])[0].is_nan());
}

#[test]
fn scatter_is_the_adjoint_of_gather_and_both_clamp() {
    let mut g = Graph::default();
    let table = g.source(Op::Leaf(0), Shape::new(&[3, 2]), DType::F32);
    let index = g.source(Op::Leaf(1), Shape::new(&[4]), DType::I32);
    let rows = g.apply(Op::Gather(0), &[table, index]);
    let sums = g.apply(Op::Scatter { axis: 0, size: 3 }, &[index, rows]);
    g.outputs = vec![rows, sums];
    let out = reference::eval(&g, &[vec![1., 2., 3., 4., 5., 6.], vec![2., -5., 9., 0.]], &[]);
    assert_eq!(out[0], [5., 6., 1., 2., 5., 6., 1., 2.]);
    assert_eq!(out[1], [2., 4., 0., 0., 10., 12.]);
}

#[test]
fn mistakes_name_the_rule() {
    let s = Shape::new;
    let dot = Op::Dot(Contraction { batch: 0, m: 1, n: 1, k: 1 });
    let infer = |op: &Op, a: Shape, b: Shape| kiln_ir::infer(op, &[(&a, DType::F32), (&b, DType::F32)]).unwrap_err();
    assert_eq!(infer(&dot, s(&[4, 3]), s(&[5, 2])), "inner dims differ: [4, 3] and [5, 2]");
    let add = Op::Map(Expr::of(kiln_ir::PointOp::Add).into());
    assert_eq!(infer(&add, s(&[4]), s(&[3])), "shapes do not broadcast");
    let mixed = kiln_ir::infer(&add, &[(&s(&[1]), DType::F32), (&s(&[1]), DType::I32)]).unwrap_err();
    assert_eq!(mixed, "takes numbers of one dtype");
}

/// A movement that fits `x`, chosen by `pick`, which gives a number below its argument.
fn any_movement(x: &Shape, mut pick: impl FnMut(usize) -> usize) -> Movement {
    let axis = pick(x.rank().max(1)).min(x.rank().saturating_sub(1));
    match pick(7) {
        _ if x.rank() == 0 => Movement::Expand(Shape::new(&[2])),
        0 => {
            let mut perm: Vec<usize> = (0..x.rank()).collect();
            perm.rotate_left(1 + axis);
            Movement::Permute(Axes::new(&perm))
        }
        1 => Movement::Flip(axis),
        2 => Movement::Pad { axis, lo: pick(3), hi: pick(3), interior: pick(2) },
        3 if x[axis] > 1 => {
            let (start, step) = (pick(x[axis]), 1 + pick(2));
            Movement::Slice { axis, start, len: pick((x[axis] - start).div_ceil(step) + 1), step }
        }
        4 if x[axis] > 2 && x.rank() < 5 => {
            Movement::Window { axis, size: 2, stride: 1 + pick(2), dilation: 1 + pick(2) }
        }
        5 if x.rank() < 5 => Movement::Expand(Shape::new(&[&[2], &x[..]].concat())),
        // Merge everything, then split off the smallest factor.
        _ => {
            let n = x.numel();
            match (2..=n).find(|f| n.is_multiple_of(*f)) {
                Some(f) => Movement::Reshape(Shape::new(&[n / f, f])),
                None => Movement::Reshape(Shape::new(&[n])),
            }
        }
    }
}

#[test]
fn any_tower_of_views_is_one_map() {
    let mut towers = 0;
    for seed in 0..4000 {
        let mut counter = 0;
        let mut pick = |n: usize| {
            counter += 1;
            threefry2x32([seed, 77], [counter, 0])[0] as usize % n
        };
        let start = Shape::new(&[[4, 3], [2, 6], [5, 1], [0, 3]][pick(4)]);
        let mut g = Graph::default();
        let mut node = g.source(Op::Leaf(0), start, DType::F64);
        let mut map: Option<kiln_ir::IndexMap> = None;
        for _ in 0..1 + pick(5) {
            let shape = g.nodes[node as usize].shape;
            let movement = any_movement(&shape, &mut pick);
            if movement.shape(&shape).map_or(true, |s| s.numel() > 2000) {
                continue;
            }
            let step = movement.map(&shape);
            map = Some(map.map_or(step.clone(), |so_far| step.then(&so_far)));
            node = g.apply(Op::View(movement), &[node]);
        }
        let Some(map) = map else { continue };
        towers += 1;
        g.outputs = vec![node];
        // Elements count from 1, so that 0 can only be a fill.
        let leaf: Vec<f64> = (1..=start.numel()).map(|i| i as f64).collect();
        let expected = reference::eval(&g, std::slice::from_ref(&leaf), &[]).remove(0);
        let shape = g.nodes[node as usize].shape;
        let flat = map.flatten(&start);
        for (i, want) in expected.iter().enumerate() {
            let at: Vec<usize> = shape.iter().zip(shape.strides()).map(|(&d, s)| i / s % d).collect();
            let inside = map.valid.iter().all(|b| b.holds(&at));
            let found = if inside { leaf[flat.eval(&at) as usize] } else { 0.0 };
            assert_eq!(found, *want, "seed {seed} at {at:?} of\n{g}");
        }
    }
    assert!(towers > 3000, "only {towers} towers were built");
}

#[test]
fn attention_is_what_its_formula_says() {
    let (b, t, s, d, e) = (2, 3, 4, 2, 3);
    let (q, k, v) =
        (numbers(1, b * t * d, (-1.0, 1.0)), numbers(2, b * s * d, (-1.0, 1.0)), numbers(3, b * s * e, (-1.0, 1.0)));
    let mut bias = numbers(4, b * t * s, (-1.0, 1.0));
    // One row of the second batch sees nothing.
    bias[t * s..t * s + s].fill(f64::NEG_INFINITY);
    for causal in [false, true] {
        let mut g = Graph::default();
        let mut leaf = |n, dims: &[usize]| g.source(Op::Leaf(n), Shape::new(dims), DType::F32);
        let inputs = [leaf(0, &[b, t, d]), leaf(1, &[b, s, d]), leaf(2, &[b, s, e]), leaf(3, &[b, t, s])];
        let part = |part| Op::Attention(Attend { part, causal });
        g.outputs = [Part::Out, Part::LogSum].map(|p| g.apply(part(p), &inputs)).to_vec();
        let found = reference::eval(&g, &[q.clone(), k.clone(), v.clone(), bias.clone()], &[]);
        for row in 0..b * t {
            let (batch, i) = (row / t, row % t);
            let score = |j: usize| -> f64 {
                let product: f64 = (0..d).map(|c| q[row * d + c] * k[(batch * s + j) * d + c]).sum();
                let hidden = causal && j > i;
                if hidden { f64::NEG_INFINITY } else { product / (d as f64).sqrt() + bias[row * s + j] }
            };
            let sum: f64 = (0..s).map(|j| score(j).exp()).sum();
            let logsum = if sum > 0.0 { sum.ln() } else { f64::from(f32::MAX) };
            assert!((found[1][row] - logsum).abs() <= 1e-12 * logsum.abs().max(1.0));
            for c in 0..e {
                let weighted: f64 = (0..s).map(|j| score(j).exp() * v[(batch * s + j) * e + c]).sum();
                let expected = if sum > 0.0 { weighted / sum } else { 0.0 };
                assert!((found[0][row * e + c] - expected).abs() < 1e-12, "row {row}, column {c}");
            }
        }
    }
}

#[test]
fn a_nan_score_makes_its_row_nan() {
    let (t, s, d, e) = (4, 5, 2, 3);
    let clean = [
        numbers(1, t * d, (-1.0, 1.0)),
        numbers(2, s * d, (-1.0, 1.0)),
        numbers(3, s * e, (-1.0, 1.0)),
        vec![0.0; t * s],
    ];
    let eval = |leaves: &[Vec<f64>], causal: bool| {
        let mut g = Graph::default();
        let mut leaf = |n, dims: &[usize]| g.source(Op::Leaf(n), Shape::new(dims), DType::F32);
        let inputs = [leaf(0, &[t, d]), leaf(1, &[s, d]), leaf(2, &[s, e]), leaf(3, &[t, s])];
        let part = |part| Op::Attention(Attend { part, causal });
        g.outputs = [Part::Out, Part::LogSum].map(|p| g.apply(part(p), &inputs)).to_vec();
        reference::eval(&g, leaves, &[])
    };
    for (operand, row) in [(0, 2), (1, 1), (1, 3)] {
        for causal in [false, true] {
            let mut leaves = clean.clone();
            if operand == 0 {
                // A row that sees nothing is 0 still.
                leaves[3][..s].fill(f64::NEG_INFINITY);
            }
            let expected = eval(&leaves, causal);
            leaves[operand][row * d] = f64::NAN;
            let found = eval(&leaves, causal);
            for i in 0..t {
                let nan = if operand == 0 { i == row } else { !causal || row <= i };
                let same = |found: f64, expected: f64| if nan { found.is_nan() } else { found == expected };
                assert!(same(found[1][i], expected[1][i]), "log-sum of row {i}: {}", found[1][i]);
                for c in i * e..(i + 1) * e {
                    assert!(same(found[0][c], expected[0][c]), "element {c}: {}", found[0][c]);
                }
            }
        }
    }
}

#[test]
fn a_scan_is_its_composition_of_windows() {
    for (op, reverse) in ReduceOp::ALL[..4].iter().flat_map(|&op| [(op, false), (op, true)]) {
        for dims in [[1, 1, 1], [2, 0, 3], [2, 2, 3], [1, 3, 1], [3, 17, 2], [1, 127, 1], [1, 129, 2]] {
            for dtype in [DType::F64, DType::I32, DType::U32] {
                let mut g = Graph::default();
                let x = g.source(Op::Leaf(0), Shape::new(&dims), dtype);
                let scan = Scan { op, axis: 1, reverse };
                let meaning = scan::compose(&mut g, scan, x);
                g.outputs = vec![g.nodes.len() as u32, meaning];
                g.apply(Op::Scan(scan), &[x]);
                // Whole and small, so that sums and products are exact, or so large that integers wrap.
                let scale = if dtype == DType::F64 { 2.0 } else { 2e9 };
                let x = numbers(5, dims.iter().product(), (-scale, scale));
                let x: Vec<f64> = x.iter().map(|v| dtype.round(v.round())).collect();
                let found = reference::eval(&g, &[x], &[]);
                assert_eq!(found[0], found[1], "{op:?} {dtype} {dims:?}, reverse {reverse}");
            }
        }
    }
}

#[test]
fn a_scan_runs_from_either_end_and_keeps_a_nan() {
    let run = |op, reverse, values: &[f64]| {
        let mut g = Graph::default();
        let x = g.source(Op::Leaf(0), Shape::new(&[values.len()]), DType::F32);
        let y = g.apply(Op::Scan(Scan { op, axis: 0, reverse }), &[x]);
        g.outputs = vec![y];
        reference::eval(&g, &[values.to_vec()], &[]).remove(0)
    };
    assert_eq!(run(ReduceOp::Sum, false, &[1.0, 2.0, 3.0]), [1.0, 3.0, 6.0]);
    assert_eq!(run(ReduceOp::Sum, true, &[1.0, 2.0, 3.0]), [6.0, 5.0, 3.0]);
    assert_eq!(run(ReduceOp::Prod, false, &[2.0, 0.0, 3.0]), [2.0, 0.0, 0.0]);
    assert_eq!(run(ReduceOp::Max, false, &[1.0, 3.0, 2.0]), [1.0, 3.0, 3.0]);
    let nan = run(ReduceOp::Min, false, &[1.0, f64::NAN, 0.0]);
    assert!(nan[0] == 1.0 && nan[1].is_nan() && nan[2].is_nan());
}

#[test]
fn a_sort_is_its_composition_of_merges() {
    for dims in [[1, 1, 1], [2, 0, 3], [2, 2, 3], [1, 3, 1], [3, 17, 2], [1, 127, 1], [1, 129, 2]] {
        for (dtype, descending) in DType::ALL.into_iter().flat_map(|t| [(t, false), (t, true)]) {
            let mut g = Graph::default();
            let x = g.source(Op::Leaf(0), Shape::new(&dims), dtype);
            // All, or most.
            let keep = dims[1] - usize::from(descending && dims[1] > 0);
            let sort = Sort { part: sort::Part::Values, axis: 1, descending, keep };
            let meaning = sort::compose(&mut g, sort, x);
            let values = g.apply(Op::Sort(sort), &[x]);
            let indices = g.apply(Op::Sort(Sort { part: sort::Part::Indices, ..sort }), &[x]);
            g.outputs = vec![meaning[0], meaning[1], values, indices];
            let x = numbers(6, dims.iter().product(), (-9.0, 9.0));
            // Some are equal, and some are NaN.
            let special = |v: f64| if dtype.is_float() && v > 7.0 { f64::NAN } else { dtype.round(v) };
            let x: Vec<f64> = x.iter().map(|v| special(v.round())).collect();
            let found = reference::eval(&g, std::slice::from_ref(&x), &[]);
            let same = |a: &[f64], b: &[f64]| a.iter().zip(b).all(|(a, b)| a == b || a.is_nan() && b.is_nan());
            assert!(same(&found[0], &found[2]), "{dtype} {dims:?}, descending {descending}: values");
            assert!(same(&found[1], &found[3]), "{dtype} {dims:?}, descending {descending}: indices");
        }
    }
}

#[test]
fn a_scatter_is_its_composition_of_sorted_slices() {
    let sorted = |g: &mut Graph, sort: Sort, x| {
        [sort::Part::Values, sort::Part::Indices].map(|part| g.apply(Op::Sort(Sort { part, ..sort }), &[x]))
    };
    for (values, index, axis, size) in [
        (&[1][..], &[1][..], 0, 1),
        (&[70], &[70], 0, 9),
        (&[9, 3], &[9], 0, 40),
        (&[2, 3, 11, 5], &[3, 11], 1, 7),
        (&[2, 65], &[65], 1, 1),
        (&[2, 0, 3], &[0], 1, 4),
        (&[0, 6], &[6], 1, 4),
    ] {
        for (dtype, index_dtype) in [(DType::F32, DType::I32), (DType::I32, DType::U32), (DType::F16, DType::I32)] {
            let mut g = Graph::default();
            let places = g.source(Op::Leaf(0), Shape::new(index), index_dtype);
            let x = g.source(Op::Leaf(1), Shape::new(values), dtype);
            let composed = scatter::compose(&mut g, axis, size, [places, x], &sorted);
            let whole = g.apply(Op::Scatter { axis, size }, &[places, x]);
            g.outputs = vec![composed, whole];
            // Some places lie outside; sums of small whole numbers are exact.
            let least = if index_dtype == DType::U32 { 0.0 } else { -2.0 };
            let numel = |dims: &[usize]| dims.iter().product();
            let at: Vec<f64> = numbers(8, numel(index), (least, size as f64 + 2.0)).iter().map(|v| v.floor()).collect();
            let mut x: Vec<f64> = numbers(9, numel(values), (-9.0, 9.0)).iter().map(|v| v.round()).collect();
            if dtype.is_float() && x.len() > 20 {
                (x[7], x[20]) = (f64::NAN, f64::INFINITY);
            }
            let found = reference::eval(&g, &[at, x], &[]);
            let same = |(a, b): (&f64, &f64)| a == b || a.is_nan() && b.is_nan();
            let equal = found[0].len() == found[1].len() && found[0].iter().zip(&found[1]).all(same);
            assert!(equal, "{dtype}{values:?} at {index:?} into {size}: {found:?}");
        }
    }
}

#[test]
fn a_sort_of_tiles_is_the_whole_sort() {
    for (dims, tile) in
        [([1, 1, 1], 4), ([2, 3, 1], 4), ([2, 17, 3], 4), ([1, 64, 2], 8), ([3, 100, 1], 16), ([0, 9, 1], 4)]
    {
        for (dtype, descending) in DType::ALL.into_iter().flat_map(|t| [(t, false), (t, true)]) {
            for keep in [0, 1, 2, dims[1] / 2, dims[1] - dims[1] / 9, dims[1]].into_iter().filter(|&k| k <= dims[1]) {
                let mut g = Graph::default();
                let x = g.source(Op::Leaf(0), Shape::new(&dims), dtype);
                let sort = Sort { part: sort::Part::Values, axis: 1, descending, keep };
                let tiled = sort::in_tiles(&mut g, sort, x, tile);
                let longest = |n: &Node| match n.op {
                    Op::Sort(s) => g.nodes[n.inputs[0] as usize].shape[s.axis],
                    _ => 0,
                };
                assert!(g.nodes.iter().all(|n| longest(n) <= tile));
                let values = g.apply(Op::Sort(sort), &[x]);
                let indices = g.apply(Op::Sort(Sort { part: sort::Part::Indices, ..sort }), &[x]);
                g.outputs = vec![tiled[0], tiled[1], values, indices];
                let x = numbers(7, dims.iter().product(), (-9.0, 9.0));
                // Some are equal, some are NaN, and some are what rows are filled up with.
                let special = |v: f64| match v.round() as i32 {
                    8.. if dtype.is_float() => f64::NAN,
                    6 if dtype.is_float() => f64::NEG_INFINITY,
                    6 => dtype.round(1e30),
                    5 => dtype.round(-1e30),
                    v => dtype.round(v as f64),
                };
                let x: Vec<f64> = x.iter().map(|&v| special(v)).collect();
                let found = reference::eval(&g, std::slice::from_ref(&x), &[]);
                let same = |a: &[f64], b: &[f64]| a.iter().zip(b).all(|(a, b)| a == b || a.is_nan() && b.is_nan());
                let name = format!("{keep} of {dtype} {dims:?}, descending {descending}, tiles of {tile}");
                assert!(found[0].len() == found[2].len() && same(&found[0], &found[2]), "{name}: values");
                assert!(same(&found[1], &found[3]), "{name}: indices");
            }
        }
    }
}

#[test]
fn a_sort_is_stable_in_both_directions() {
    let run = |part, descending| {
        let mut g = Graph::default();
        let x = g.source(Op::Leaf(0), Shape::new(&[6]), DType::F32);
        let y = g.apply(Op::Sort(Sort { part, axis: 0, descending, keep: 6 }), &[x]);
        g.outputs = vec![y];
        reference::eval(&g, &[vec![2.0, f64::NAN, 0.0, 2.0, -0.0, f64::INFINITY]], &[]).remove(0)
    };
    assert_eq!(run(sort::Part::Indices, false), [2.0, 4.0, 0.0, 3.0, 5.0, 1.0]);
    assert_eq!(run(sort::Part::Indices, true), [1.0, 5.0, 0.0, 3.0, 2.0, 4.0]);
    assert_eq!(run(sort::Part::Values, true)[1..], [f64::INFINITY, 2.0, 2.0, 0.0, 0.0]);
}
