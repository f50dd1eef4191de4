//! Windows of images as operands on either side, and products so large that they run in waves.

use kiln_cpu::CpuBackend;
use kiln_ir::kernel::{Body, Dot, Instr, Store};
use kiln_ir::{Bound, DType, Index, Kernel};

use crate::common::{Rng, check, decode, flat, load, masked, read, row_major, run_bytes, strided, write};

/// A convolution `[n, c, h, w] * [o, c, ky, kx]`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Conv {
    pub(crate) n: usize,
    pub(crate) c: usize,
    pub(crate) o: usize,
    pub(crate) image: [usize; 2],
    pub(crate) window: [usize; 2],
    pub(crate) stride: usize,
    pub(crate) dilation: usize,
    pub(crate) pad: usize,
}

impl Conv {
    pub(crate) fn out(&self) -> [usize; 2] {
        [0, 1].map(|a| (self.image[a] + 2 * self.pad - self.dilation * (self.window[a] - 1) - 1) / self.stride + 1)
    }

    /// The image's element that a window sees, over axes with these numbers for `n, y, x, c, ky, kx`; 0 beyond edges.
    fn seen(&self, arg: u32, dims: &[usize], [n, y, x, c, ky, kx]: [usize; 6]) -> Instr {
        let [h, w] = self.image;
        let sum = |terms: &[(usize, usize)]| {
            let mut strides = vec![0; dims.len()];
            terms.iter().for_each(|&(axis, by)| strides[axis] += by as i64);
            strided(dims, &strides)
        };
        let at =
            |out: usize, window: usize| sum(&[(out, self.stride), (window, self.dilation)]).offset(-(self.pad as i64));
        let (row, column) = (at(y, ky), at(x, kx));
        let image = sum(&[(n, self.c * h * w), (c, h * w)]);
        let index = image.add(&row.clone().scale(w as i64), dims).add(&column, dims);
        let bounds = [(row, h), (column, w)].map(|(index, dim)| Bound { index, lo: 0, hi: dim as i64 });
        masked(arg, index, bounds.to_vec())
    }

    /// Elements of the weights, the images and the results.
    pub(crate) fn numels(&self) -> [usize; 3] {
        let pixels = self.n * numel(&self.out());
        [self.o * self.c * numel(&self.window), self.n * self.c * numel(&self.image), self.o * pixels]
    }

    fn places(&self) -> [usize; 3] {
        let [y, x] = self.out();
        [self.n, y, x]
    }

    fn weights(&self) -> [usize; 3] {
        let [ky, kx] = self.window;
        [self.c, ky, kx]
    }

    /// What lies as `[n, o, y, x]`, over `[o, n, y, x]`.
    fn nchw(&self) -> Index {
        let [n, y, x] = self.places();
        strided(&[self.o, n, y, x], &[(y * x) as i64, (self.o * y * x) as i64, x as i64, 1])
    }

    /// Of weights and images, the window on the right, over `[k, n]`.
    pub(crate) fn forward(&self) -> Kernel {
        let ([w, image, result], [c, ky, kx]) = (self.numels(), self.weights());
        let dims = [self.weights(), self.places()].concat();
        Kernel::Dot(Dot {
            batch: vec![],
            m: vec![self.o],
            n: self.places().to_vec(),
            k: self.weights().to_vec(),
            args: vec![read(DType::F32, w), read(DType::F32, image), write(DType::F32, result)],
            lhs: body(load(0, flat(&[self.o, c, ky, kx]))),
            rhs: body(self.seen(1, &dims, [3, 4, 5, 0, 1, 2])),
            epilogue: stored(self.nchw()),
        })
    }

    /// Of images and weights, the window on the left, over `[m, k]`, and a result with channels last.
    fn turned(&self) -> Kernel {
        let ([w, image, result], [n, y, x], [c, ky, kx]) = (self.numels(), self.places(), self.weights());
        let dims = [self.places(), self.weights()].concat();
        let order = row_major(&[self.o, c, ky, kx]);
        Kernel::Dot(Dot {
            batch: vec![],
            m: self.places().to_vec(),
            n: vec![self.o],
            k: self.weights().to_vec(),
            args: vec![read(DType::F32, image), read(DType::F32, w), write(DType::F32, result)],
            lhs: body(self.seen(0, &dims, [0, 1, 2, 3, 4, 5])),
            rhs: body(load(1, strided(&[c, ky, kx, self.o], &[order[1], order[2], order[3], order[0]]))),
            epilogue: stored(flat(&[n, y, x, self.o])),
        })
    }

    /// By the weights, of results and images: the window's places are summed over.
    pub(crate) fn gradient(&self) -> Kernel {
        let ([w, image, result], [c, ky, kx]) = (self.numels(), self.weights());
        let dims = [self.places(), self.weights()].concat();
        Kernel::Dot(Dot {
            batch: vec![],
            m: vec![self.o],
            n: self.weights().to_vec(),
            k: self.places().to_vec(),
            args: vec![read(DType::F32, result), read(DType::F32, image), write(DType::F32, w)],
            lhs: body(load(0, self.nchw())),
            rhs: body(self.seen(1, &dims, [0, 1, 2, 3, 4, 5])),
            epilogue: stored(flat(&[self.o, c, ky, kx])),
        })
    }
}

fn body(instr: Instr) -> Body {
    let mut body = Body::default();
    body.push(instr, DType::F32);
    body
}

/// The sum itself, at an address over `batch ++ m ++ n`.
fn stored(index: Index) -> Body {
    let mut epilogue = body(Instr::Acc);
    epilogue.stores.push(Store { arg: 2, index, value: 0 });
    epilogue
}

fn numel(dims: &[usize]) -> usize {
    dims.iter().product()
}

#[test]
fn images_from_either_side_and_their_weights() {
    let conv = |n, c, o, image, window, stride, dilation, pad| Conv { n, c, o, image, window, stride, dilation, pad };
    let mut rng = Rng::new(21);
    for conv in [
        conv(2, 3, 5, [7, 9], [3, 3], 1, 1, 1),
        conv(1, 1, 13, [28, 28], [3, 3], 1, 1, 1),
        conv(3, 4, 16, [10, 6], [3, 2], 2, 1, 1),
        conv(2, 2, 3, [9, 11], [3, 3], 1, 2, 2),
        conv(2, 5, 7, [4, 4], [1, 1], 1, 1, 0),
        conv(1, 3, 2, [5, 5], [2, 5], 3, 1, 4),
        conv(4, 16, 24, [12, 12], [3, 3], 1, 1, 1),
        conv(3, 20, 30, [13, 9], [3, 3], 1, 1, 1),
        conv(9, 35, 50, [4, 4], [3, 3], 1, 1, 1),
        conv(2, 16, 40, [30, 33], [3, 3], 1, 1, 0),
        conv(2, 17, 32, [5, 70], [3, 3], 1, 1, 2),
        conv(7, 40, 30, [7, 7], [3, 3], 1, 1, 1),
    ] {
        let Conv { n, c, .. } = conv;
        let name = format!(
            "{}×{}×{:?} by {:?}, {}, {}, {}",
            n, c, conv.image, conv.window, conv.stride, conv.dilation, conv.pad
        );
        let mut values = |len: usize| rng.values(DType::F32, len);
        let [w, img, g] = conv.numels().map(&mut values);
        let kernels = [
            ("forward", conv.forward(), &w, &img),
            ("turned", conv.turned(), &img, &w),
            ("gradient", conv.gradient(), &g, &img),
        ];
        for (what, kernel, lhs, rhs) in kernels {
            let tolerance = if what == "gradient" { 1e-3 } else { 1e-4 };
            let out = vec![0.0; kernel.args()[2].numel];
            check(&format!("{what} {name}"), &kernel, &[lhs.clone(), rhs.clone(), out], &[], tolerance);
        }
    }
}

/// An axis in two bounds at once: no copy with zeros around serves, and the operand is evaluated point by point.
#[test]
fn bounds_that_share_an_axis() {
    let mut rng = Rng::new(22);
    let (m, k, n) = (9, 20, 33);
    let dims = [k, n];
    let diagonal = Index::var(0).add(&Index::var(1), &dims);
    let valid = vec![Bound { index: diagonal.clone(), lo: 3, hi: 40 }, Bound { index: Index::var(1), lo: 1, hi: 30 }];
    let kernel = Kernel::Dot(Dot {
        batch: vec![],
        m: vec![m],
        n: vec![n],
        k: vec![k],
        args: vec![read(DType::F32, m * k), read(DType::F32, k + n), write(DType::F32, m * n)],
        lhs: body(load(0, flat(&[m, k]))),
        rhs: body(masked(1, diagonal, valid)),
        epilogue: stored(flat(&[m, n])),
    });
    let values = [rng.values(DType::F32, m * k), rng.values(DType::F32, k + n), vec![0.0; m * n]];
    check("diagonal", &kernel, &values, &[], 1e-4);
}

/// Small whole numbers, whose sums are exact in any order, so that a plain loop is the oracle.
#[test]
fn products_in_waves_and_in_groups() {
    let cpu = CpuBackend::with_threads(2);
    for (batch, m, n, k) in [(1, 300, 310, 8192), (2, 40, 700, 3000), (1, 70, 90, 20_000), (3, 700, 40, 900)] {
        let value = |seed: usize| move |i: usize| ((i * 7919 + seed) % 7) as f64 - 3.0;
        let x: Vec<f64> = (0..batch * m * k).map(value(1)).collect();
        let y: Vec<f64> = (0..batch * n * k).map(value(5)).collect();
        let o = [batch, m, n];
        let kernel = Kernel::Dot(Dot {
            batch: vec![batch],
            m: vec![m],
            n: vec![n],
            k: vec![k],
            args: vec![read(DType::F32, x.len()), read(DType::F32, y.len()), write(DType::F32, numel(&o))],
            lhs: body(load(0, flat(&[batch, m, k]))),
            rhs: body(load(1, strided(&[batch, k, n], &[(n * k) as i64, 1, k as i64]))),
            epilogue: stored(flat(&o)),
        });
        let got = decode(DType::F32, &run_bytes(&cpu, &kernel, &[x.clone(), y.clone(), vec![0.0; numel(&o)]], &[])[2]);
        let (x, y): (Vec<f32>, Vec<f32>) =
            (x.iter().map(|&v| v as f32).collect(), y.iter().map(|&v| v as f32).collect());
        for (at, got) in got.iter().enumerate() {
            let (b, i, j) = (at / (m * n), at / n % m, at % n);
            let (row, column) = (&x[(b * m + i) * k..][..k], &y[(b * n + j) * k..][..k]);
            let want: f32 = row.iter().zip(column).map(|(x, y)| x * y).sum();
            assert_eq!(*got, want as f64, "{batch}·{m}×{n}×{k} at {at}");
        }
    }
}

#[test]
fn weights_turned_around() {
    let mut rng = Rng::new(71);
    for (o, c, [ky, kx]) in
        [(5, 7, [3, 3]), (40, 33, [3, 3]), (3, 4, [2, 2]), (9, 12, [1, 3]), (2, 64, [5, 5]), (1, 1, [3, 3])]
    {
        let (n, deep) = (21, o * ky * kx);
        let (window, image) = ((ky * kx) as i64, (c * ky * kx) as i64);
        let turned = strided(&[c, o, ky, kx], &[window, image, -(kx as i64), -1]).offset(window - 1);
        let kernel = Kernel::Dot(Dot {
            batch: vec![],
            m: vec![c],
            n: vec![n],
            k: vec![o, ky, kx],
            args: vec![read(DType::F32, o * c * ky * kx), read(DType::F32, deep * n), write(DType::F32, c * n)],
            lhs: body(load(0, turned)),
            rhs: body(load(1, flat(&[o, ky, kx, n]))),
            epilogue: stored(flat(&[c, n])),
        });
        // Small whole numbers, whose sums are exact.
        let whole = |rng: &mut Rng, n: usize| -> Vec<f64> { (0..n).map(|_| rng.below(7) as f64 - 3.0).collect() };
        let args = [whole(&mut rng, o * c * ky * kx), whole(&mut rng, deep * n), vec![0.0; c * n]];
        check(&format!("{o} · {c} · {ky} × {kx}"), &kernel, &args, &[], 0.0);
    }
}
