//! Rows of a few elements along lines: pools that overlap, sums over windows that meet, convolutions channel by channel.

use kiln_ir::kernel::{Access, Arg, Body, Instr, Loop, Store};
use kiln_ir::{Bound, DType, Index, Kernel, PointOp, ReduceOp};

use crate::common::{Rng, check, flat, load, masked, read, strided, write};

/// Windows along both axes of an image.
#[derive(Clone, Copy, Debug)]
struct Windows {
    c: usize,
    image: [usize; 2],
    size: usize,
    step: usize,
    pad: usize,
}

impl Windows {
    fn out(self) -> [usize; 2] {
        self.image.map(|dim| (dim + 2 * self.pad - self.size) / self.step + 1)
    }

    fn results(self) -> usize {
        self.c * self.out().iter().product::<usize>()
    }

    /// What a window sees of an image, over `[c, y, x, i, j]`.
    fn seen(self, dims: &[usize]) -> (Index, Vec<Bound>) {
        let [h, w] = self.image;
        let along = |axis: usize| {
            Index::var(axis).scale(self.step as i64).add(&Index::var(axis + 2), dims).offset(-(self.pad as i64))
        };
        let (y, x) = (along(1), along(2));
        let index = Index::var(0).scale((h * w) as i64).add(&y.clone().scale(w as i64), dims).add(&x, dims);
        let bound = |index, size: usize| Bound { index, lo: 0, hi: size as i64 };
        (index, if self.pad > 0 { vec![bound(y, h), bound(x, w)] } else { vec![] })
    }

    /// A reduction of each window, halved or not, of an image around which there are zeros or what is less than any number.
    fn pool(self, op: ReduceOp, halved: bool, least: bool) -> Kernel {
        let Windows { c, image: [h, w], size, .. } = self;
        let [oh, ow] = self.out();
        let (index, valid) = self.seen(&[c, oh, ow, size, size]);
        let mut body = Body::default();
        let mut x = body.push(masked(0, index, valid.clone()), DType::F32);
        if least {
            let inside = body.push(Instr::Inside(valid), DType::Bool);
            let [zero, least] = [-0.0, f64::NEG_INFINITY].map(|x| body.push(Instr::Const(DType::F32, x), DType::F32));
            let around = body.push(Instr::Op(PointOp::Select, [inside, zero, least]), DType::F32);
            x = body.push(Instr::Op(PointOp::Add, [x, around, around]), DType::F32);
        }
        let result = if op == ReduceOp::ArgMax { DType::I32 } else { DType::F32 };
        let mut value = body.push(Instr::Reduce(op, x), result);
        if halved {
            let half = body.push(Instr::Const(DType::F32, 0.5), DType::F32);
            value = body.push(Instr::Op(PointOp::Mul, [value, half, half]), DType::F32);
        }
        body.stores.push(Store { arg: 1, index: flat(&[c, oh, ow]), value });
        let args = vec![read(DType::F32, c * h * w), write(result, c * oh * ow)];
        Kernel::Loop(Loop { outer: vec![c, oh, ow], row: vec![size; 2], args, body })
    }

    /// The greatest of each window and its place; or the greatest and the sum, both plus a tensor in whose place the first
    /// of them is stored.
    fn two_pools(self, in_place: bool) -> Kernel {
        let Windows { c, image: [h, w], size, .. } = self;
        let [oh, ow] = self.out();
        let (index, valid) = self.seen(&[c, oh, ow, size, size]);
        let mut body = Body::default();
        let x = body.push(masked(0, index, valid), DType::F32);
        let (second, dtype) = if in_place { (ReduceOp::Sum, DType::F32) } else { (ReduceOp::ArgMax, DType::I32) };
        let mut values =
            [(ReduceOp::Max, DType::F32), (second, dtype)].map(|(op, t)| body.push(Instr::Reduce(op, x), t));
        if in_place {
            let y = body.push(load(1, flat(&[c, oh, ow])), DType::F32);
            values = values.map(|value| body.push(Instr::Op(PointOp::Add, [value, y, y]), DType::F32));
        }
        let stores = (1..).zip(values).map(|(arg, value)| Store { arg, index: flat(&[c, oh, ow]), value });
        body.stores = stores.collect();
        let n = c * oh * ow;
        let access = if in_place { Access::ReadWrite } else { Access::Write };
        let args = vec![read(DType::F32, c * h * w), Arg { access, ..write(DType::F32, n) }, write(dtype, n)];
        Kernel::Loop(Loop { outer: vec![c, oh, ow], row: vec![size; 2], args, body })
    }

    /// Each channel's windows times weights of its own.
    fn convolution(self) -> Kernel {
        let Windows { c, image: [h, w], size, .. } = self;
        let [oh, ow] = self.out();
        let dims = [c, oh, ow, size, size];
        let (index, valid) = self.seen(&dims);
        let mut body = Body::default();
        let weight = strided(&dims, &[(size * size) as i64, 0, 0, size as i64, 1]);
        let weight = body.push(load(1, weight), DType::F32);
        let x = body.push(masked(0, index, valid), DType::F32);
        let product = body.push(Instr::Op(PointOp::Mul, [weight, x, x]), DType::F32);
        let value = body.push(Instr::Reduce(ReduceOp::Sum, product), DType::F32);
        body.stores.push(Store { arg: 2, index: flat(&[c, oh, ow]), value });
        let args = vec![read(DType::F32, c * h * w), read(DType::F32, c * size * size), write(DType::F32, c * oh * ow)];
        Kernel::Loop(Loop { outer: vec![c, oh, ow], row: vec![size; 2], args, body })
    }

    /// The sum of what windows that see a point of an image have, times weights: the gradient of a convolution. Where no
    /// window is, the weight is not there either, or the product is not.
    fn convolution_back(self, weight_is_there: bool) -> Kernel {
        let Windows { c, image: [h, w], size, .. } = self;
        let [oh, ow] = self.out();
        let dims = [c, h, w, size, size];
        let (index, bounds) = self.seeing(&dims);
        let mut body = Body::default();
        let x = body.push(masked(0, index, bounds.clone()), DType::F32);
        let weight = strided(&dims, &[(size * size) as i64, 0, 0, size as i64, 1]);
        let valid = if weight_is_there { vec![] } else { bounds.clone() };
        let weight = body.push(masked(1, weight, valid), DType::F32);
        let mut value = body.push(Instr::Op(PointOp::Mul, [x, weight, weight]), DType::F32);
        if weight_is_there {
            let inside = body.push(Instr::Inside(bounds), DType::Bool);
            let zero = body.push(Instr::Const(DType::F32, 0.0), DType::F32);
            value = body.push(Instr::Op(PointOp::Select, [inside, value, zero]), DType::F32);
        }
        let value = body.push(Instr::Reduce(ReduceOp::Sum, value), DType::F32);
        body.stores.push(Store { arg: 2, index: flat(&[c, h, w]), value });
        let args = vec![read(DType::F32, c * oh * ow), read(DType::F32, c * size * size), write(DType::F32, c * h * w)];
        Kernel::Loop(Loop { outer: vec![c, h, w], row: vec![size; 2], args, body })
    }

    /// Sums over two images of what windows see times what they have: the gradient of a convolution by its weights.
    /// They are stored, or subtracted from the weights.
    fn weights(self, subtracted: bool) -> Kernel {
        let Windows { c, image: [h, w], size, step, pad } = self;
        let [oh, ow] = self.out();
        let dims = [c, size, size, 2, oh, ow];
        let along =
            |axis: usize| Index::var(axis + 3).scale(step as i64).add(&Index::var(axis), &dims).offset(-(pad as i64));
        let (y, x) = (along(1), along(2));
        let image = strided(&dims, &[(h * w) as i64, 0, 0, (c * h * w) as i64, 0, 0]);
        let index = image.add(&y.clone().scale(w as i64), &dims).add(&x, &dims);
        let bound = |index, size: usize| Bound { index, lo: 0, hi: size as i64 };
        let mut body = Body::default();
        let valid = if pad > 0 { vec![bound(y, h), bound(x, w)] } else { vec![] };
        let x = body.push(masked(0, index, valid), DType::F32);
        let n = (oh * ow) as i64;
        let g = body.push(load(1, strided(&dims, &[n, 0, 0, c as i64 * n, ow as i64, 1])), DType::F32);
        let product = body.push(Instr::Op(PointOp::Mul, [x, g, g]), DType::F32);
        let mut value = body.push(Instr::Reduce(ReduceOp::Sum, product), DType::F32);
        if subtracted {
            let before = body.push(load(2, flat(&[c, size, size])), DType::F32);
            value = body.push(Instr::Op(PointOp::Sub, [before, value, value]), DType::F32);
        }
        body.stores.push(Store { arg: 2, index: flat(&[c, size, size]), value });
        let n = 2 * c;
        let access = if subtracted { Access::ReadWrite } else { Access::Write };
        let weights = Arg { access, ..write(DType::F32, c * size * size) };
        let args = vec![read(DType::F32, n * h * w), read(DType::F32, n * oh * ow), weights];
        Kernel::Loop(Loop { outer: vec![c, size, size], row: vec![2, oh, ow], args, body })
    }

    /// What windows that see a point are, over `[c, y, x, i, j]`.
    fn seeing(self, dims: &[usize]) -> (Index, Vec<Bound>) {
        let [oh, ow] = self.out();
        let (step, reach) = (self.step as i64, |n: usize| self.step as i64 * (n as i64 - 1) + 1);
        let [y, x] = [1, 2].map(|axis| Index::var(axis).add(&Index::var(axis + 2).scale(-1), dims));
        let index = Index::var(0)
            .scale((oh * ow) as i64)
            .add(&y.div(step, dims).scale(ow as i64), dims)
            .add(&x.div(step, dims), dims);
        let bound = |index: &Index, hi: i64| Bound { index: index.clone(), lo: 0, hi };
        let mut bounds = vec![bound(&y, reach(oh)), bound(&x, reach(ow))];
        if step > 1 {
            bounds.extend([bound(&y.modulo(step, dims), 1), bound(&x.modulo(step, dims), 1)]);
        }
        (index, bounds)
    }

    /// The sum of what windows have for a point of an image that they see: each one's, or that of the window whose
    /// `chosen` place it is; with the windows' elements divided or not, and columns of results that lie one by one or not.
    fn spread(self, chosen: bool, divided: bool, turned: bool) -> Kernel {
        let Windows { c, image: [h, w], size, .. } = self;
        let [oh, ow] = self.out();
        let dims = [c, h, w, size, size];
        let (index, bounds) = self.seeing(&dims);
        let mut body = Body::default();
        let mut value = body.push(masked(0, index.clone(), bounds.clone()), DType::F32);
        let zero = body.push(Instr::Const(DType::F32, 0.0), DType::F32);
        if divided {
            // As emission has it: what is divided is chosen, by all bounds and by some of them again.
            let two = body.push(Instr::Const(DType::F32, 2.0), DType::F32);
            value = body.push(Instr::Op(PointOp::Div, [value, two, two]), DType::F32);
            for bounds in [&bounds[..], &bounds[1..2]] {
                let inside = body.push(Instr::Inside(bounds.to_vec()), DType::Bool);
                value = body.push(Instr::Op(PointOp::Select, [inside, value, zero]), DType::F32);
            }
        } else if chosen {
            let place = Index::var(3).scale(size as i64).add(&Index::var(4), &dims);
            let place = body.push(Instr::Coord(place), DType::I32);
            let found = body.push(masked(1, index, bounds), DType::I32);
            let here = body.push(Instr::Op(PointOp::Eq, [place, found, found]), DType::Bool);
            value = body.push(Instr::Op(PointOp::Select, [here, value, zero]), DType::F32);
        }
        let sum = body.push(Instr::Reduce(ReduceOp::Sum, value), DType::F32);
        let index = if turned { strided(&dims, &[(h * w) as i64, 1, h as i64, 0, 0]) } else { flat(&[c, h, w]) };
        body.stores.push(Store { arg: 2, index, value: sum });
        let (n, results) = (c * oh * ow, c * h * w);
        let args = vec![read(DType::F32, n), read(DType::I32, n), write(DType::F32, results)];
        Kernel::Loop(Loop { outer: vec![c, h, w], row: vec![size; 2], args, body })
    }
}

/// Small whole numbers, whose sums are exact.
fn whole(rng: &mut Rng, n: usize) -> Vec<f64> {
    (0..n).map(|_| rng.below(9) as f64 - 4.0).collect()
}

/// Lines shorter and longer than vectors, steps that meet all taps or some, sizes that steps do not divide.
fn all() -> Vec<Windows> {
    let sizes = [[5, 9], [8, 14], [7, 33], [11, 70]];
    let walks = [(3, 1, 1), (3, 2, 1), (3, 2, 0), (3, 3, 1), (5, 2, 2), (2, 1, 0), (4, 3, 2)];
    let all = sizes
        .iter()
        .flat_map(|&image| walks.iter().map(move |&(size, step, pad)| Windows { c: 3, image, size, step, pad }));
    all.collect()
}

#[test]
fn pools_that_overlap() {
    let mut rng = Rng::new(61);
    for windows in all() {
        let image = whole(&mut rng, windows.c * windows.image.iter().product::<usize>());
        for (op, halved, least) in [
            (ReduceOp::Sum, false, false),
            (ReduceOp::Sum, true, false),
            (ReduceOp::Max, false, false),
            (ReduceOp::Max, true, false),
            (ReduceOp::ArgMax, false, false),
            (ReduceOp::Max, false, true),
            (ReduceOp::Max, true, true),
            (ReduceOp::ArgMax, false, true),
        ] {
            let kernel = windows.pool(op, halved, least);
            let args = [image.clone(), vec![0.0; windows.results()]];
            check(
                &format!("{op:?} of {windows:?}, around it {}", if least { "-inf" } else { "0" }),
                &kernel,
                &args,
                &[],
                0.0,
            );
        }
    }
}

#[test]
fn two_pools_of_one_image() {
    let mut rng = Rng::new(66);
    for windows in all() {
        let n = windows.results();
        let image = whole(&mut rng, windows.c * windows.image.iter().product::<usize>());
        for in_place in [false, true] {
            let args = [image.clone(), whole(&mut rng, n), vec![0.0; n]];
            check(&format!("in place {in_place}, {windows:?}"), &windows.two_pools(in_place), &args, &[], 0.0);
        }
    }
}

#[test]
fn sums_over_windows_that_meet() {
    let mut rng = Rng::new(62);
    for windows in all() {
        let n = windows.results();
        let numel = windows.c * windows.image.iter().product::<usize>();
        let places = (0..n).map(|i| (i * 7 % (windows.size * windows.size)) as f64).collect::<Vec<_>>();
        let args = [whole(&mut rng, n), places, vec![0.0; numel]];
        for [chosen, divided, turned] in
            [[false; 3], [true, false, false], [false, true, false], [false, false, true], [true, false, true]]
        {
            let kernel = windows.spread(chosen, divided, turned);
            check(
                &format!("chosen {chosen}, divided {divided}, turned {turned}, {windows:?}"),
                &kernel,
                &args,
                &[],
                1e-6,
            );
        }
    }
}

#[test]
fn convolutions_channel_by_channel() {
    let mut rng = Rng::new(63);
    for windows in all() {
        let numel = windows.c * windows.image.iter().product::<usize>();
        let mut args = [
            whole(&mut rng, numel),
            whole(&mut rng, windows.c * windows.size * windows.size),
            vec![0.0; windows.results()],
        ];
        check(&format!("{windows:?}"), &windows.convolution(), &args, &[], 0.0);
        // Zeros around an image are multiplied like others.
        args[1][1] = f64::INFINITY;
        check(&format!("an infinite weight, {windows:?}"), &windows.convolution(), &args, &[], 0.0);
    }
}

#[test]
fn gradients_of_convolutions_channel_by_channel() {
    let mut rng = Rng::new(64);
    for windows in all() {
        let weights = windows.c * windows.size * windows.size;
        let numel = windows.c * windows.image.iter().product::<usize>();
        let mut args = [whole(&mut rng, windows.results()), whole(&mut rng, weights), vec![0.0; numel]];
        for weight_is_there in [true, false] {
            let kernel = windows.convolution_back(weight_is_there);
            check(&format!("{windows:?}"), &kernel, &args, &[], 0.0);
            // Where there is no window, nothing is multiplied.
            let before = std::mem::replace(&mut args[1][1], f64::INFINITY);
            check(&format!("an infinite weight, {windows:?}"), &kernel, &args, &[], 0.0);
            args[1][1] = before;
        }
    }
}

#[test]
fn gradients_of_weights_channel_by_channel() {
    let mut rng = Rng::new(65);
    for windows in all() {
        let windows = Windows { c: 17, ..windows };
        let numel = 2 * windows.c * windows.image.iter().product::<usize>();
        let weights = whole(&mut rng, windows.c * windows.size * windows.size);
        let mut args = [whole(&mut rng, numel), whole(&mut rng, 2 * windows.results()), weights];
        for subtracted in [false, true] {
            check(&format!("{windows:?}, subtracted {subtracted}"), &windows.weights(subtracted), &args, &[], 0.0);
        }
        // Zeros around an image are multiplied like others.
        args[1][0] = f64::INFINITY;
        check(&format!("an infinite slope, {windows:?}"), &windows.weights(false), &args, &[], 0.0);
    }
}
