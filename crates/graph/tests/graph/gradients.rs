//! Every gradient equals central differences, in `f64`.

use kiln_graph::{Conv2dOptions, Pool2dOptions, Tensor};
use kiln_ir::ops::Gradient;
use kiln_ir::{DType, OPS};

use crate::common::CPU;
use crate::stream::Stream;

const STEP: f64 = 1e-5;

/// One case: the dims and range of each input, and the function.
type Case = (&'static str, &'static [(&'static [usize], f64, f64)], fn(&[Tensor]) -> Tensor);

fn leaf(values: &[f64], dims: &[usize]) -> Tensor {
    Tensor::from_f64(values, dims, DType::F64, &CPU).unwrap()
}

/// `Σ f(x) · w` with fixed weights, so that every element of the result counts differently.
fn objective(f: &dyn Fn(&[Tensor]) -> Tensor, x: &[Tensor]) -> Tensor {
    let y = f(x);
    let weights = leaf(&Stream(99, 0).values(y.numel(), 0.5, 1.5), y.dims());
    (y * weights).sum_all()
}

fn check(name: &str, inputs: &[(&[usize], f64, f64)], f: &dyn Fn(&[Tensor]) -> Tensor) {
    let mut stream = Stream(7, 0);
    let numel = |dims: &[usize]| dims.iter().product::<usize>();
    let data: Vec<Vec<f64>> = inputs.iter().map(|(dims, lo, hi)| stream.values(numel(dims), *lo, *hi)).collect();
    let tensors = |data: &[Vec<f64>]| -> Vec<Tensor> {
        data.iter().zip(inputs).map(|(values, (dims, ..))| leaf(values, dims)).collect()
    };
    let x = tensors(&data);
    let found = objective(f, &x).grad(&x.iter().collect::<Vec<_>>());
    for (n, grad) in found.iter().enumerate() {
        let grad = grad.as_ref().unwrap_or_else(|| panic!("{name}: input {n} has no gradient"));
        assert_eq!(grad.dims(), inputs[n].0, "{name}: dims of gradient {n}");
        let grad = grad.to_vec::<f64>().unwrap();
        for i in 0..data[n].len() {
            let at = |by: f64| {
                let mut moved = data.clone();
                moved[n][i] += by;
                objective(f, &tensors(&moved)).item().unwrap()
            };
            let expected = (at(STEP) - at(-STEP)) / (2.0 * STEP);
            let error = (grad[i] - expected).abs() / expected.abs().max(1.0);
            assert!(error < 2e-6, "{name}: input {n} element {i}: {} is not {expected}", grad[i]);
        }
    }
}

#[test]
fn of_every_row() {
    for row in OPS {
        let Gradient::Formulas(_) = row.gradient else { continue };
        // Away from kinks, and from poles that make differences useless.
        let (lo, hi) = (row.probe.0.max(-3.0), row.probe.1.min(3.0));
        let lo = if ["abs", "relu"].contains(&row.name) { 0.1 } else { lo };
        let lo = if ["log", "sqrt", "rsqrt"].contains(&row.name) { 0.3 } else { lo };
        let unary = |f: fn(&Tensor) -> Tensor| check(row.name, &[(&[5], lo, hi)], &|x| f(&x[0]));
        let binary = |f: fn(&Tensor, &Tensor) -> Tensor| {
            check(row.name, &[(&[2, 3], lo, hi), (&[3], lo, hi)], &|x| f(&x[0], &x[1]))
        };
        match row.name {
            "neg" => unary(|x| -x),
            "abs" => unary(Tensor::abs),
            "exp" => unary(Tensor::exp),
            "log" => unary(Tensor::log),
            "sin" => unary(Tensor::sin),
            "cos" => unary(Tensor::cos),
            "tanh" => unary(Tensor::tanh),
            "erf" => unary(Tensor::erf),
            "sqrt" => unary(Tensor::sqrt),
            "rsqrt" => unary(Tensor::rsqrt),
            "sigmoid" => unary(Tensor::sigmoid),
            "relu" => unary(Tensor::relu),
            "add" => binary(|x, y| x + y),
            "sub" => binary(|x, y| x - y),
            "mul" => binary(|x, y| x * y),
            "div" => binary(|x, y| x / y),
            "pow" => binary(|x, y| x.pow(y)),
            "min" => binary(|x, y| x.minimum(y)),
            "max" => binary(|x, y| x.maximum(y)),
            "select" => binary(|x, y| x.lt(y).select(&(x * 2.0), y)),
            other => panic!("{other} has a gradient that no test checks"),
        }
    }
}

const CASES: &[Case] = &[
    ("sum", &[(&[2, 3, 2], -1.0, 1.0)], |x| x[0].sum(&[1]).square()),
    ("sum over two axes", &[(&[2, 3, 2], -1.0, 1.0)], |x| x[0].sum(&[0, 2]).square()),
    ("mean", &[(&[3, 4], -1.0, 1.0)], |x| x[0].mean(&[-1]).exp()),
    ("var", &[(&[3, 4], -1.0, 1.0)], |x| x[0].var_keepdim(&[-1])),
    ("prod", &[(&[3, 4], 0.5, 1.5)], |x| x[0].prod(&[1])),
    ("prod with a zero", &[(&[4], 0.5, 1.5)], |x| {
        (&x[0] * Tensor::iota(&[4], 0, x[0].device()).cast(DType::F64)).prod(&[0])
    }),
    ("amax", &[(&[3, 4, 2], -1.0, 1.0)], |x| x[0].amax(&[0, 1])),
    ("amin", &[(&[3, 4], -1.0, 1.0)], |x| x[0].amin(&[1])),
    ("reshape", &[(&[4, 3], -1.0, 1.0)], |x| x[0].reshape(&[2, 6]).square()),
    ("permute", &[(&[2, 3, 4], -1.0, 1.0)], |x| x[0].permute(&[2, 0, 1]).square()),
    ("expand", &[(&[3, 1], -1.0, 1.0)], |x| x[0].expand(&[2, 3, 4]).square()),
    ("slice", &[(&[7, 2], -1.0, 1.0)], |x| x[0].slice_step(0, 1..6, 2).square()),
    ("empty slice", &[(&[3], -1.0, 1.0)], |x| Tensor::cat(&[&x[0].slice(0, 1..1), &x[0].square()], 0)),
    ("flip", &[(&[5], -1.0, 1.0)], |x| x[0].flip(0).square()),
    ("pad", &[(&[3, 2], -1.0, 1.0)], |x| x[0].pad(0, 1, 2).exp()),
    ("unfold", &[(&[8], -1.0, 1.0)], |x| x[0].unfold(0, 3, 2, 2).square()),
    ("cat", &[(&[2, 2], -1.0, 1.0), (&[3, 2], -1.0, 1.0)], |x| Tensor::cat(&[&x[0], &x[1]], 0).square()),
    ("stack", &[(&[2], -1.0, 1.0), (&[2], -1.0, 1.0)], |x| Tensor::stack(&[&x[0], &x[1]]).square()),
    ("matmul", &[(&[3, 4], -1.0, 1.0), (&[4, 2], -1.0, 1.0)], |x| x[0].matmul(&x[1]).square()),
    ("matmul of many rows", &[(&[2, 3, 4], -1.0, 1.0), (&[4, 2], -1.0, 1.0)], |x| x[0].matmul(&x[1]).square()),
    ("matmul of a batch", &[(&[2, 3, 4], -1.0, 1.0), (&[2, 4, 2], -1.0, 1.0)], |x| x[0].matmul(&x[1]).square()),
    ("matmul broadcast", &[(&[3, 4], -1.0, 1.0), (&[2, 1, 4, 2], -1.0, 1.0)], |x| x[0].matmul(&x[1]).square()),
    ("matmul broadcast both", &[(&[2, 1, 3, 4], -1.0, 1.0), (&[3, 4, 2], -1.0, 1.0)], |x| x[0].matmul(&x[1])),
    ("vector products", &[(&[4], -1.0, 1.0), (&[4, 3], -1.0, 1.0)], |x| x[0].matmul(&x[1]).square()),
    ("inner product", &[(&[4], -1.0, 1.0), (&[4], -1.0, 1.0)], |x| x[0].matmul(&x[1]).square()),
    ("linear", &[(&[2, 3, 4], -1.0, 1.0), (&[5, 4], -1.0, 1.0), (&[5], -1.0, 1.0)], |x| {
        x[0].linear(&x[1], Some(&x[2])).square()
    }),
    ("linear of a vector", &[(&[4], -1.0, 1.0), (&[3, 4], -1.0, 1.0), (&[3], -1.0, 1.0)], |x| {
        x[0].linear(&x[1], Some(&x[2])).square()
    }),
    ("linear without a bias", &[(&[3, 1], -1.0, 1.0), (&[1, 1], -1.0, 1.0)], |x| x[0].linear(&x[1], None).square()),
    ("conv2d", &[(&[2, 2, 5, 4], -1.0, 1.0), (&[3, 2, 3, 2], -1.0, 1.0)], |x| {
        x[0].conv2d(&x[1], Conv2dOptions { stride: [2, 1], padding: [1, 0], ..Conv2dOptions::default() }).square()
    }),
    ("conv2d dilated", &[(&[1, 2, 6, 6], -1.0, 1.0), (&[1, 2, 2, 2], -1.0, 1.0)], |x| {
        x[0].conv2d(&x[1], Conv2dOptions { dilation: [3, 2], padding: [1, 1], ..Conv2dOptions::default() })
    }),
    ("conv2d of stride 1", &[(&[2, 2, 4, 5], -1.0, 1.0), (&[3, 2, 3, 2], -1.0, 1.0)], |x| {
        x[0].conv2d(&x[1], Conv2dOptions { padding: [1, 0], ..Conv2dOptions::default() }).square()
    }),
    ("conv2d with more padding than it reaches", &[(&[1, 1, 3, 2], -1.0, 1.0), (&[2, 1, 2, 1], -1.0, 1.0)], |x| {
        x[0].conv2d(&x[1], Conv2dOptions { padding: [3, 1], ..Conv2dOptions::default() }).square()
    }),
    ("conv2d in groups", &[(&[2, 4, 4, 4], -1.0, 1.0), (&[6, 2, 3, 3], -1.0, 1.0)], |x| {
        x[0].conv2d(&x[1], Conv2dOptions { groups: 2, padding: [1, 1], ..Conv2dOptions::default() }).square()
    }),
    ("max_pool2d", &[(&[1, 2, 4, 5], -1.0, 1.0)], |x| {
        x[0].max_pool2d(Pool2dOptions { size: [2, 3], stride: [2, 1], padding: [0; 2] }).square()
    }),
    // Around numbers below 0, zeros would be the greatest.
    ("max_pool2d with padding", &[(&[1, 2, 5, 6], -2.0, -1.0)], |x| {
        x[0].max_pool2d(Pool2dOptions { size: [3, 2], stride: [2, 2], padding: [1, 1] }).square()
    }),
    ("avg_pool2d", &[(&[1, 1, 4, 4], -1.0, 1.0)], |x| {
        x[0].avg_pool2d(Pool2dOptions { size: [2, 2], stride: [2, 2], padding: [0; 2] }).square()
    }),
    ("avg_pool2d with padding", &[(&[1, 1, 4, 5], -1.0, 1.0)], |x| {
        x[0].avg_pool2d(Pool2dOptions { size: [3, 2], stride: [2, 1], padding: [1, 0] }).square()
    }),
    ("index_select", &[(&[4, 3], -1.0, 1.0)], |x| {
        let index = Tensor::new(&[2i32, 0, 2, 9], &[2, 2], x[0].device()).unwrap();
        x[0].index_select(0, &index).square()
    }),
    ("scatter_add", &[(&[3, 2], -1.0, 1.0)], |x| {
        let index = Tensor::new(&[1i32, 1, 0], &[3], x[0].device()).unwrap();
        index.scatter_add(0, 4, &x[0]).square()
    }),
    ("cumsum", &[(&[3, 4, 2], -1.0, 1.0)], |x| x[0].cumsum(1).square()),
    ("cumprod", &[(&[3, 5], 0.5, 1.5)], |x| x[0].cumprod(-1).square()),
    ("cumprod with a zero", &[(&[3, 2], 0.5, 1.5), (&[3, 1], 0.0, 0.0), (&[3, 2], 0.5, 1.5)], |x| {
        Tensor::cat(&[&x[0], &x[1], &x[2]], 1).cumprod(1)
    }),
    ("cumprod with zeros", &[(&[2, 1], 0.5, 1.5), (&[2, 2], 0.0, 0.0), (&[2, 2], 0.5, 1.5)], |x| {
        Tensor::cat(&[&x[1], &x[0], &x[1], &x[2]], 1).cumprod(1)
    }),
    ("cummax", &[(&[3, 7, 2], -1.0, 1.0)], |x| x[0].cummax(1).0.square()),
    ("cummin", &[(&[3, 7], -1.0, 1.0)], |x| x[0].cummin(-1).0.square()),
    ("gather", &[(&[4, 3], -1.0, 1.0)], |x| {
        let index = Tensor::new(&[2i32, 0, 3, 3, 2, 9], &[3, 2], x[0].device()).unwrap();
        x[0].gather(0, &index).square()
    }),
    ("sort", &[(&[3, 7, 2], -1.0, 1.0)], |x| x[0].sort(1, false).0.square()),
    ("descending sort", &[(&[3, 7], -1.0, 1.0)], |x| x[0].sort(-1, true).0.square()),
    ("topk of many", &[(&[2, 70], -1.0, 1.0)], |x| x[0].topk(50, 1, false).0.square()),
    ("topk of an axis between", &[(&[2, 9, 3], -1.0, 1.0)], |x| x[0].topk(4, 1, false).0.square()),
    ("topk", &[(&[5, 2], -1.0, 1.0)], |x| x[0].topk(3, 0, true).0.square()),
    ("softmax", &[(&[3, 4], -2.0, 2.0)], |x| x[0].softmax(-1)),
    ("softmax of the first axis", &[(&[3, 4], -2.0, 2.0)], |x| x[0].softmax(0)),
    ("log_softmax", &[(&[3, 4], -2.0, 2.0)], |x| x[0].log_softmax(-1)),
    ("logsumexp", &[(&[3, 4], -2.0, 2.0)], |x| x[0].logsumexp(0)),
    ("cross_entropy", &[(&[3, 4], -2.0, 2.0)], |x| {
        x[0].cross_entropy(&Tensor::new(&[3i32, 0, 1], &[3], x[0].device()).unwrap())
    }),
    ("attention", &[(&[2, 3, 4], -1.0, 1.0), (&[2, 5, 4], -1.0, 1.0), (&[2, 5, 2], -1.0, 1.0)], |x| {
        x[0].scaled_dot_product_attention(&x[1], &x[2], None, false).square()
    }),
    ("causal attention", &[(&[5, 3], -1.0, 1.0), (&[5, 3], -1.0, 1.0), (&[5, 3], -1.0, 1.0)], |x| {
        x[0].scaled_dot_product_attention(&x[1], &x[2], None, true).square()
    }),
    (
        "attention with a bias, broadcast",
        &[(&[2, 1, 3, 2], -1.0, 1.0), (&[2, 4, 2], -1.0, 1.0), (&[4, 3], -1.0, 1.0), (&[3, 1], -1.0, 1.0)],
        |x| x[0].scaled_dot_product_attention(&x[1], &x[2], Some(&x[3]), false).square(),
    ),
    ("masked attention", &[(&[3, 2], -1.0, 1.0), (&[4, 2], -1.0, 1.0), (&[4, 2], -1.0, 1.0)], |x| {
        let device = x[0].device();
        // The second row sees nothing.
        let seen = Tensor::iota(&[3, 4], 1, device)
            .lt(2.0)
            .logical_and(Tensor::iota(&[3, 4], 0, device).eq(1.0).logical_not());
        x[0].scaled_dot_product_attention(&x[1], &x[2], Some(&seen), false).square()
    }),
    ("the bias of masked attention", &[(&[3, 2], -1.0, 1.0), (&[4, 2], -1.0, 1.0), (&[3, 4], -1.0, 1.0)], |x| {
        // The second row sees nothing.
        let hidden = Tensor::iota(&[3, 1], 0, x[0].device()).eq(1.0);
        let least = leaf(&[f64::NEG_INFINITY], &[]);
        let bias = &x[2] + hidden.select(&least, &leaf(&[0.0], &[]));
        x[0].scaled_dot_product_attention(&x[1], &x[1], Some(&bias), false).square()
    }),
    ("mse_loss", &[(&[3, 4], -1.0, 1.0), (&[3, 4], -1.0, 1.0)], |x| x[0].mse_loss(&x[1])),
    ("gelu", &[(&[5], -2.0, 2.0)], |x| x[0].gelu()),
    ("silu", &[(&[5], -2.0, 2.0)], |x| x[0].silu()),
    ("normalize", &[(&[3, 4], -1.0, 1.0)], |x| x[0].normalize(1e-5)),
    ("normalize_over", &[(&[2, 3, 2, 2], -1.0, 1.0)], |x| {
        let [normal, mean, var] = x[0].normalize_over(&[0, 2, 3], 1e-5);
        normal * &x[0] + mean.square() * var.exp()
    }),
    ("a value used twice", &[(&[3], -1.0, 1.0)], |x| {
        let y = x[0].exp();
        &y * &y + &y * &x[0]
    }),
];

#[test]
fn of_views_reductions_products_and_compositions() {
    for (name, inputs, f) in CASES {
        check(name, inputs, f);
    }
}

#[test]
fn of_gradients() {
    check("second derivative", &[(&[4], -1.0, 1.0)], &|x| {
        let y = (x[0].tanh() * x[0].exp()).sum_all();
        y.grad(&[&x[0]]).remove(0).unwrap()
    });
    check("gradient of a norm of a gradient", &[(&[3, 2], -1.0, 1.0), (&[2, 2], -1.0, 1.0)], &|x| {
        let loss = x[0].matmul(&x[1]).softmax(-1).square().sum_all();
        loss.grad(&[&x[1]]).remove(0).unwrap().square()
    });
    check("gradient of a gradient of a running product", &[(&[5], 0.5, 1.5)], &|x| {
        x[0].cumprod(0).square().sum_all().grad(&[&x[0]]).remove(0).unwrap()
    });
    check("gradient of a gradient of a running maximum", &[(&[5], -1.0, 1.0)], &|x| {
        x[0].cummax(0).0.exp().sum_all().grad(&[&x[0]]).remove(0).unwrap()
    });
    check("gradient of a gradient of the least", &[(&[5], -1.0, 1.0)], &|x| {
        x[0].topk(3, 0, false).0.exp().sum_all().grad(&[&x[0]]).remove(0).unwrap()
    });
    check("gradient of a gradient of normalize", &[(&[2, 4], -1.0, 1.0)], &|x| {
        x[0].normalize(0.1).exp().sum_all().grad(&[&x[0]]).remove(0).unwrap()
    });
    check("gradient of a gradient of normalize_over", &[(&[3, 2, 2], -1.0, 1.0)], &|x| {
        let [normal, _, var] = x[0].normalize_over(&[0, 2], 0.1);
        (normal.exp() * var).sum_all().grad(&[&x[0]]).remove(0).unwrap()
    });
    check("gradient of a gradient of attention", &[(&[3, 2], -1.0, 1.0), (&[3, 2], -1.0, 1.0)], &|x| {
        let loss = x[0].scaled_dot_product_attention(&x[1], &x[1], None, true).square().sum_all();
        let gradients = loss.grad(&[&x[0], &x[1]]);
        gradients.into_iter().flatten().fold(x[0].clone(), |sum, g| sum + g.square())
    });
}

#[test]
fn stop_where_they_should() {
    let x = leaf(&[1.0, 2.0], &[2]);
    let y = leaf(&[1.0, 2.0], &[2]);
    let loss = (&x * x.detach()).sum_all();
    assert_eq!(loss.grad(&[&x])[0].as_ref().unwrap().to_vec::<f64>().unwrap(), [1.0, 2.0]);
    assert!(loss.grad(&[&y])[0].is_none());
    assert!(x.floor().sum_all().grad(&[&x])[0].is_none());
}

#[test]
fn tensors_beside_each_other() {
    let whole = [24, 30, 40];
    for axis in 0..3 {
        let sizes = [7, 12, whole[axis] - 19];
        for dtype in [DType::F32, DType::F16, DType::I32] {
            let starts = [0, 7, 19];
            let dims = |n: usize| std::array::from_fn(|a| if a == axis { n } else { whole[a] });
            let place = |i: usize, dims: [usize; 3]| [i / (dims[1] * dims[2]), i / dims[2] % dims[1], i % dims[2]];
            // Each element says where it lies in the whole.
            let number = |mut at: [usize; 3], from: usize| {
                at[axis] += from;
                ((at[0] * whole[1] + at[1]) * whole[2] + at[2]) as f64 % 2048.0
            };
            let parts: Vec<Tensor> = (0..3)
                .map(|k| {
                    let dims: [usize; 3] = dims(sizes[k]);
                    let numbers: Vec<f64> =
                        (0..dims.iter().product()).map(|i| number(place(i, dims), starts[k])).collect();
                    Tensor::from_f64(&numbers, &dims, dtype, &CPU).unwrap()
                })
                .collect();
            let parts: Vec<&Tensor> = parts.iter().collect();
            let joined = Tensor::cat(&parts, axis as isize);
            let want: Vec<f64> = (0..whole.iter().product()).map(|i| number(place(i, whole), 0)).collect();
            assert_eq!(joined.to_vec_f64().unwrap(), want, "{dtype} along {axis}");
            if dtype == DType::F32 {
                // The gradient of each part of Σ y² / 2 is itself, and of what is beside it nothing.
                let grads = (joined.square().sum_all() * 0.5).grad(&parts);
                for (part, grad) in parts.iter().zip(grads) {
                    assert_eq!(grad.unwrap().to_vec_f64().unwrap(), part.to_vec_f64().unwrap(), "along {axis}");
                }
            }
        }
    }
}
