//! Programs that come again are recognised, and those that only look alike are not.

use kiln_cpu::CpuBackend;
use kiln_graph::{Device, Tensor};

const X: [f32; 2] = [0.5, -1.0];
const Y: [f32; 2] = [2.0, 0.25];

/// Something that is computed from two tensors.
type Thing = dyn Fn(&Tensor, &Tensor) -> Vec<Tensor>;

/// Does each thing some times in turn; gives the number of plans after each round.
fn plans(rounds: usize, things: &[&Thing]) -> Vec<usize> {
    let device = Device::new(CpuBackend::with_threads(1));
    let leaf = |values: &[f32]| Tensor::new(values, &[2], &device).unwrap();
    let (x, y) = (leaf(&X), leaf(&Y));
    let mut first: Vec<Vec<Vec<f64>>> = Vec::new();
    let mut counts = Vec::new();
    for _ in 0..rounds {
        let values = things.iter().map(|thing| thing(&x, &y).iter().map(|t| t.to_vec_f64().unwrap()).collect());
        first.extend(values.collect::<Vec<Vec<_>>>());
        counts.push(device.compilations().0);
    }
    for round in first.chunks(things.len()) {
        assert_eq!(round, &first[..things.len()]);
    }
    counts
}

#[test]
fn the_order_in_which_a_program_is_recorded_is_no_part_of_it() {
    let one = |x: &Tensor, y: &Tensor| {
        let (a, b) = (x.exp(), y.tanh());
        vec![a - b]
    };
    let other = |x: &Tensor, y: &Tensor| {
        let (b, a) = (y.tanh(), x.exp());
        vec![a - b]
    };
    assert_eq!(plans(3, &[&one, &other]), [1, 1, 1]);
    let device = Device::new(CpuBackend::new());
    let [x, y] = [X, Y].map(|values| Tensor::new(&values, &[2], &device).unwrap());
    let expected: Vec<f32> = X.iter().zip(Y).map(|(x, y)| x.exp() - y.tanh()).collect();
    for t in [&one(&x, &y)[0], &other(&x, &y)[0]] {
        t.to_vec::<f32>().unwrap().iter().zip(&expected).for_each(|(a, b)| assert!((a - b).abs() < 1e-6));
    }
}

#[test]
fn who_reads_what_is_part_of_a_program() {
    // Of the same ops: one value read twice, equal ones, those of two tensors, and the same the other way round.
    let shared = |x: &Tensor, _: &Tensor| {
        let e = x.exp();
        vec![&e - &(&e * &e)]
    };
    let equal = |x: &Tensor, _: &Tensor| {
        let e = x.exp();
        vec![&e - &(x.exp() * &e)]
    };
    let two = |x: &Tensor, y: &Tensor| {
        let e = x.exp();
        vec![&e - &(&e * &y.exp())]
    };
    let turned = |x: &Tensor, y: &Tensor| {
        let e = x.exp();
        vec![&e - &(y.exp() * &e)]
    };
    assert_eq!(plans(3, &[&equal, &shared, &two, &turned]), [4, 4, 4]);
    assert_eq!(plans(3, &[&turned, &two, &shared, &equal]), [4, 4, 4]);
}

#[test]
fn a_handle_on_the_way_asks_for_another_result() {
    let alone = |x: &Tensor, _: &Tensor| vec![x.exp().tanh().sum_all()];
    let held = |x: &Tensor, _: &Tensor| {
        let e = x.exp();
        vec![e.tanh().sum_all(), e]
    };
    let view = |x: &Tensor, _: &Tensor| {
        let e = x.exp();
        let view = e.reshape(&[2, 1]);
        vec![e.tanh().sum_all(), view]
    };
    // What is read second is there already, where a handle asked for it. Where a view did, what it views is.
    assert_eq!(plans(3, &[&alone, &held, &view]), [3, 3, 3]);
}

#[test]
fn what_is_computed_already_is_where_a_program_begins() {
    let whole = |x: &Tensor, y: &Tensor| vec![(x.exp() + y).sum_all()];
    let rest = |x: &Tensor, y: &Tensor| {
        let e = x.exp();
        e.to_vec_f64().unwrap();
        vec![(e + y).sum_all()]
    };
    // The second takes a plan for each part.
    assert_eq!(plans(3, &[&whole, &rest]), [3, 3, 3]);
}
