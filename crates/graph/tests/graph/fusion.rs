//! What must come out of fusion, as counts of kernels, each with and without every value on the way held.

use kiln_cpu::CpuBackend;
use kiln_graph::plan::PlanOptions;
use kiln_graph::{Conv2dOptions, Device, Pool2dOptions, Tensor};
use kiln_ir::DType;

use crate::common::{CPU, golden};
use crate::limited::Limited;

/// The number of kernels that a tensor takes, with whatever handles name on the way.
fn n_kernels(t: &Tensor) -> usize {
    t.explain().lines().last().and_then(|l| l.split(' ').next()?.parse().ok()).unwrap()
}

fn leaf(dims: &[usize]) -> Tensor {
    Tensor::from_f64(&vec![0.5; dims.iter().product()], dims, DType::F32, &CPU).unwrap()
}

/// `values` are all the values of a program by name, the wanted one last. Gives the plan without names.
#[track_caller]
fn check(name: &str, mut values: Vec<Tensor>, at_most: usize) -> String {
    let last = values.pop().unwrap();
    let n_named = values.len();
    assert!(n_kernels(&last) <= at_most, "{name}, with {n_named} values named:\n{}", last.explain());
    drop(values);
    assert!(n_kernels(&last) <= at_most, "{name}, unnamed:\n{}", last.explain());
    format!("{name}\n{}\n", placeless(&last.explain()))
}

/// A plan without source lines: those move, what is computed does not.
fn placeless(plan: &str) -> String {
    plan.lines().map(|l| l.split("  at ").next().unwrap().to_owned() + "\n").collect()
}

#[test]
fn a_chain_of_pointwise_ops_is_one_kernel() {
    let (x, y) = (leaf(&[6, 8]), leaf(&[8]));
    let a = x.exp();
    let b = &a * &y;
    let c = &b + 1.0;
    let d = c.t();
    let e = d.slice(0, 1..5);
    let f = e.flip(1);
    let g = f.pad(0, 1, 2);
    let h = g.round();
    let i = h.cast(DType::I32);
    let j = i.lt(3.0);
    let k = g.tanh();
    let l = j.select(&g, &k);
    let m = l.floor().reshape(&[42]);
    let n = m.expand(&[3, 42]);
    let o = &n + leaf(&[3, 1]);
    let chain = check("chain", vec![a, b, c, d, e, f, g, h, i, j, k, l, m, n, o], 1);
    let (p, q) = (x.gt(&x.abs()).logical_not(), x.eq(1.0));
    let r = p.logical_or(&q);
    let s = r.cast(DType::F32);
    let bool = check("bool", vec![p, q, r, s], 1);
    golden("plan_chain.txt", &(chain + &bool));
}

#[test]
fn rows_are_one_kernel() {
    for dims in [&[8usize][..], &[6, 8], &[2, 3, 8], &[2, 3, 2, 8]] {
        let x = leaf(dims);
        for axis in 0..dims.len() as isize {
            let max = x.amax_keepdim(&[axis]);
            let shifted = &x - &max;
            let e = shifted.exp();
            let sum = e.sum_keepdim(&[axis]);
            let log = &shifted - sum.log();
            let y = &e / &sum;
            check("softmax and log_softmax", vec![max, shifted, e, sum, log, y], 1);
            let plans =
                check("softmax", vec![x.softmax(axis)], 1) + &check("log_softmax", vec![x.log_softmax(axis)], 1);
            if dims.len() == 3 && axis == 1 {
                golden("plan_softmax.txt", &plans);
            }
        }
        let (weight, bias) = (leaf(&[8]), leaf(&[8]));
        check("layer norm", vec![x.normalize(1e-5) * &weight + &bias], 1);
        let mean = x.mean_keepdim(&[-1]);
        let centred = &x - &mean;
        let var = centred.square().mean_keepdim(&[-1]);
        let normal = &centred * (&var + 1e-5).rsqrt();
        let scaled = &normal * &weight;
        let y = &scaled + &bias;
        let plan = check("layer norm", vec![mean, centred, var, normal, scaled, y], 1);
        if dims.len() == 3 {
            golden("plan_layer_norm.txt", &plan);
        }
        let square = x.square().mean_keepdim(&[-1]);
        let scale = (&square + 1e-5).rsqrt();
        let y = &x * &scale * &weight;
        check("rms norm", vec![square, scale, y], 1);
    }
}

#[test]
fn a_layer_norm_backwards_is_one_kernel() {
    // Rows and columns of a square are of equal length, which says nothing about them.
    for dims in [&[2, 30, 8][..], &[8, 8], &[2, 4, 8]] {
        let device = Device::new(CpuBackend::new());
        let leaf = |dims: &[usize]| leaf(dims).to(&device).unwrap();
        let (x, weight, bias, g) = (leaf(dims), leaf(&[8]), leaf(&[8]), leaf(dims));
        let normal = x.normalize(1e-5);
        let y = &normal * &weight + &bias;
        let grads = y.vjp(&g, &[&x, &weight, &bias]);
        let count = || device.explain().lines().last().and_then(|l| l.split(' ').next()?.parse::<usize>().ok());
        // The forward pass is computed with it, since its values are held; so are the sums over rows.
        assert_eq!((grads.iter().flatten().count(), count()), (3, Some(1)), "named:\n{}", device.explain());
        drop((normal, y));
        assert_eq!(count(), Some(1), "unnamed:\n{}", device.explain());
        if dims == [2, 30, 8] {
            golden("plan_layer_norm_backward.txt", &placeless(&device.explain()));
        }
    }
}

#[test]
fn no_kernel_reads_a_square_both_ways() {
    // Two loops, be they one dispatch: rows are read as they lie or across.
    let device = Device::new(Limited::words());
    let x = leaf(&[64, 64]).to(&device).unwrap();
    let sums = [x.sum(&[0]), x.sum(&[1])];
    assert!(!device.explain().contains("reduce_sum_sum"), "{}", device.explain());
    drop(sums);
}

#[test]
fn windows_that_overlap_see_what_is_computed_once() {
    let (x, scale) = (leaf(&[2, 3, 8, 8]), leaf(&[3, 1, 1]));
    let pool = |size, padding| Pool2dOptions { size: [size; 2], stride: [2; 2], padding: [padding; 2] };
    // If it is held, the small windows here compute it again, side by side with it.
    let normal = || (&x * &scale + &scale).relu();
    let greatest = |size, padding| normal().max_pool2d(pool(size, padding));
    let mean = normal().avg_pool2d(pool(3, 1));
    for (pooled, n) in [(greatest(3, 1), 2), (mean, 2), (greatest(2, 0), 1), (x.avg_pool2d(pool(3, 1)), 1)] {
        assert_eq!(n_kernels(&pooled), n, "{}", pooled.explain());
    }
    // What each window has is a sum of two gradients, and goes to one of nine places.
    let windows = x.max_pool2d(pool(3, 1));
    let [grad] = &windows.vjp(&(windows.exp() + windows.sin()), &[&x])[..] else { unreachable!("of one tensor") };
    let grad = grad.as_ref().unwrap();
    drop(windows);
    assert_eq!(n_kernels(grad), 2, "{}", grad.explain());
}

/// Each use of a weight adds a product to its gradient: to the sum so far, not to a list of products.
#[test]
fn gradients_of_a_weight_that_each_step_uses_grow_product_by_product() {
    let device = Device::new(CpuBackend::new());
    let (weight, mut state) = (leaf(&[6, 6]).to(&device).unwrap(), leaf(&[4, 6]).to(&device).unwrap());
    for _ in 0..20 {
        state = state.matmul(&weight).tanh();
    }
    let grad = state.sum_all().grad(&[&weight]).remove(0).unwrap();
    drop(state);
    let plan = grad.explain();
    let kernels: Vec<&str> = plan.lines().filter(|line| line.contains("dot")).collect();
    let sums = kernels.iter().filter(|line| line.contains("dot_add")).count();
    assert!(sums >= 12 && !plan.contains("map_add"), "{plan}");
}

/// Between the pass forwards and the one backwards lie other kernels, and an optimizer's step follows the sums over rows.
#[test]
fn sums_over_rows_join_them_in_a_training_step() {
    let device = Device::new(CpuBackend::new());
    let leaf = |dims: &[usize]| leaf(dims).to(&device).unwrap();
    let (x, weight, bias) = (leaf(&[60, 24]), leaf(&[24]), leaf(&[24]));
    let [before, after] = [leaf(&[24, 24]), leaf(&[24, 8])];
    let y = (x.matmul(&before).normalize(1e-5) * &weight + &bias).matmul(&after);
    let grads = y.square().sum_all().grad(&[&before, &weight, &bias]);
    let all = [&before, &weight, &bias].into_iter().zip(grads);
    let updated: Vec<Tensor> = all.map(|(p, g)| p - g.unwrap() * 0.1).collect();
    let plan = device.explain();
    let joined = plan.lines().filter(|line| line.contains("as reductions over its rows")).count();
    assert_eq!((updated.len(), joined), (3, 2), "{plan}");
}

/// The points of a row stand for axes that a read ignores only where the row has one value.
#[test]
fn a_row_that_is_repeated_keeps_all_its_points() {
    let x = leaf(&[2, 2]);
    let row = &x - x.sum_keepdim(&[1]);
    let repeated = row.expand(&[2, 2, 2]) * 2.0;
    assert_eq!(repeated.to_vec::<f32>().unwrap(), [-1.0; 8]);
    assert_eq!(row.to_vec::<f32>().unwrap(), [-0.5; 4]);
}

/// What would be outside of an empty tensor is not loaded, although no bound says so.
#[test]
fn nothing_is_loaded_of_an_empty_row() {
    let x = leaf(&[4, 2, 4]).flip(2) + 1.0;
    let nothing = x.slice(2, 4..4).sum_all();
    assert_eq!((nothing + leaf(&[3])).to_vec::<f32>().unwrap(), [0.5; 3]);
    assert_eq!(x.slice(2, 4..4).prod(&[2]).to_vec::<f32>().unwrap(), [1.0; 8]);
    // What is beside it is.
    let beside = leaf(&[4, 3]);
    let product = beside.slice(1, 0..0).matmul(&Tensor::zeros(&[0, 2], &CPU)) + beside.slice(1, 1..2);
    assert_eq!(product.to_vec::<f32>().unwrap(), [0.5; 8]);
    let sum = x.slice(2, 4..4).sum(&[2]) + beside.slice(1, 1..3);
    assert_eq!(sum.to_vec::<f32>().unwrap(), [0.5; 8]);
}

/// A value that is stored for a later reader is one buffer more for an earlier one.
#[test]
fn few_bindings_are_enough_for_every_formula() {
    let device = Device::with_options(std::sync::Arc::new(Limited::bindings(4)), PlanOptions::default());
    let leaf = |dims: &[usize]| leaf(dims).to(&device).unwrap();
    let (a, b) = (leaf(&[]), leaf(&[1, 5, 4]));
    let index = Tensor::new(&[0i32], &[1], &device).unwrap();
    let sum = &a + b.index_select(0, &index);
    let other = (&a * 0.5).floor() + &sum;
    let held = sum.relu().maximum(&other);
    let last = held.lt(&other).select(&held, &-&other);
    drop((sum, other));
    device.eval().unwrap();
    assert_eq!((last.to_vec::<f32>().unwrap(), held.to_vec::<f32>().unwrap()), (vec![-1.0; 20], vec![1.0; 20]));
}

/// Loops share a dispatch as far as the windows on what they bind are not too many together.
#[test]
fn windows_count_where_small_loops_share_a_dispatch() {
    let n_kernels_of_five_sums = |limited| {
        let device = Device::with_options(std::sync::Arc::new(limited), PlanOptions::default());
        let sum = |n: usize| leaf(&[1500 + n]).to(&device).unwrap().sum_all();
        n_kernels(&(1..5).map(sum).fold(sum(0), |all, one| all + one))
    };
    assert_eq!(n_kernels_of_five_sums(Limited::bindings(16)), 2);
    // Each sum takes two windows of 4 KiB and a result, so that two of them have room.
    assert_eq!(n_kernels_of_five_sums(Limited::windows(8, 4 << 10)), 3);
}

/// An empty value is computed from nothing, also where others would compute it again.
#[test]
fn a_formula_of_an_empty_value_names_nothing_that_is_gone() {
    let product = (leaf(&[3]) + 1.0).matmul(&(leaf(&[1, 1]).expand(&[3, 1]) * 0.5)).tanh();
    let nothing = product.slice(0, 1..1).tanh() * 2.0;
    let zero = (&product - &product).tanh();
    let padded = nothing.pad(0, 1, 2).exp();
    drop(product);
    let device = padded.device().clone();
    device.eval().unwrap();
    assert_eq!((padded.to_vec::<f32>().unwrap(), zero.to_vec::<f32>().unwrap()), (vec![1.0; 3], vec![0.0]));
}

#[test]
fn epilogues_join_their_contraction() {
    let (x, w, b, residual) = (leaf(&[16, 32]), leaf(&[32, 24]), leaf(&[24]), leaf(&[16, 24]));
    let product = x.matmul(&w);
    let biased = &product + &b;
    let activated = biased.gelu();
    let y = &activated + &residual;
    let linear = check("linear", vec![product, biased, activated, y], 1);
    let (image, kernel, bias) = (leaf(&[2, 3, 8, 8]), leaf(&[4, 3, 3, 3]), leaf(&[4]).reshape(&[4, 1, 1]));
    let options = Conv2dOptions { padding: [1, 1], ..Conv2dOptions::default() };
    let conv = image.conv2d(&kernel, options);
    let biased = &conv + &bias;
    let y = biased.relu();
    let convolution = check("conv", vec![conv, biased, y], 1);
    let [mean, var, weight] = [0, 1, 2].map(|_| leaf(&[4]).reshape(&[4, 1, 1]));
    let conv = image.conv2d(&kernel, options);
    let scale = (&var + 1e-5).rsqrt() * &weight;
    let normal = (&conv - &mean) * scale + &bias;
    let y = normal.relu();
    let norm = check("conv and batch norm", vec![conv, normal, y], 1);
    let heads = x.matmul(&w).reshape(&[16, 4, 6]).permute(&[1, 0, 2]);
    let y = &heads * 2.0;
    check("a transposed result", vec![heads, y], 1);
    golden("plan_epilogues.txt", &(linear + &convolution + &norm));
}

#[test]
fn gradients_of_windows_over_padding_are_one_sum() {
    let image = leaf(&[2, 4, 12, 12]);
    let overlapping = |padding| Pool2dOptions { size: [3; 2], stride: [2; 2], padding: [padding; 2] };
    let padded = image.pad(2, 1, 1).pad(3, 1, 1);
    for pool in [padded.max_pool2d(overlapping(0)), image.max_pool2d(overlapping(1))] {
        let places_and_sum = pool.vjp(&leaf(pool.dims()), &[&image])[0].clone().unwrap().detach();
        assert!(n_kernels(&places_and_sum) <= 2, "{}", places_and_sum.explain());
    }
    // Channel by channel nothing but windows is summed.
    let options = Conv2dOptions { stride: [2; 2], padding: [1; 2], groups: 4, ..Conv2dOptions::default() };
    let conv = image.conv2d(&leaf(&[4, 1, 3, 3]), options);
    let sum = conv.vjp(&leaf(conv.dims()), &[&image])[0].clone().unwrap().detach();
    assert!(n_kernels(&sum) <= 1, "{}", sum.explain());
}

#[test]
fn a_pool_and_the_places_for_its_gradient_are_one_walk() {
    let image = leaf(&[2, 4, 12, 12]);
    let pool = image.relu().max_pool2d(Pool2dOptions { size: [2; 2], stride: [2; 2], padding: [0; 2] });
    let grad = pool.vjp(&leaf(pool.dims()), &[&image]).remove(0).unwrap();
    check("a pool and its gradient", vec![pool, grad], 2);
}

/// The gradient of a sequence whose times were read one by one: an affine layer's bias gets its sum.
#[test]
fn pieces_are_put_together_before_they_are_summed() {
    let weight = leaf(&[16, 8]);
    let plan = |n: usize| {
        let time = |i: usize| leaf(&[4, 16]).exp().pad(0, 4 * i, 4 * (n - 1 - i));
        let all = (1..n).fold(time(0), |sum, i| sum + time(i));
        let product = all.matmul(&weight).sum_all();
        (product + all.sum(&[0]).sum_all()).explain()
    };
    let many = "is apart from %N sum: it is put together of many pieces";
    let numbered =
        |plan: String| plan.split(' ').map(|w| if w.starts_with('%') { "%N" } else { w }).collect::<Vec<_>>().join(" ");
    assert!(numbered(plan(8)).contains(many), "{}", plan(8));
    assert!(!numbered(plan(7)).contains(many), "{}", plan(7));
}

/// Blocks read a sum of all blocks before them; each of their kernels reads it, not the blocks.
#[test]
fn a_residual_stream_is_added_up_once() {
    let [x, weight] = [leaf(&[64, 32]), leaf(&[32, 32])];
    let block = |x: &Tensor| x + x.normalize(1e-5).matmul(&weight).gelu();
    let stream = |n: usize| (0..n).fold(x.clone(), |x, _| block(&x)).sum_all();
    let n_blocks = 8;
    let plan = stream(n_blocks).explain();
    let reads =
        |kernel: &str| kernel.split_whitespace().filter(|word| word.contains("=%") && !word.starts_with('→')).count();
    let most = plan.lines().map(reads).max();
    assert!(most <= Some(4), "{plan}");
    // A row's numbers and its product, or what is added to both.
    assert!(n_kernels(&stream(n_blocks)) <= 2 * n_blocks + 1, "{plan}");
}

#[test]
fn losses() {
    let (logits, target) = (leaf(&[64, 10]), Tensor::new(&[1i32; 64], &[64], &CPU).unwrap());
    let log_p = logits.log_softmax(-1);
    let zero = Tensor::full(&[], 0.0, DType::F32, &CPU);
    let picked = -target.one_hot(10).eq(1.0).select(&log_p, &zero).sum(&[-1]);
    check("cross entropy over one axis", vec![log_p, picked], 1);
    let loss = logits.cross_entropy(&target);
    let grad = loss.grad(&[&logits]).remove(0).unwrap();
    golden("plan_cross_entropy.txt", &check("cross entropy, and its gradient", vec![loss, grad], 2));
}

#[test]
fn attention_is_one_kernel_and_three_backwards() {
    for causal in [false, true] {
        let [q, k, v, g] = [0, 1, 2, 3].map(|_| leaf(&[2, 3, 16, 8]));
        let out = q.scaled_dot_product_attention(&k, &v, None, causal);
        check("attention", vec![out.clone()], 1);
        let grads: Vec<Tensor> = out.vjp(&g, &[&q, &k, &v]).into_iter().flatten().collect();
        let plan = check("attention and its gradients", [vec![out], grads].concat(), 1 + 3);
        golden(if causal { "plan_causal_attention.txt" } else { "plan_attention.txt" }, &plan);
    }
    let (q, near) = (leaf(&[2, 3, 16, 8]), leaf(&[16, 16]));
    let masked = q.scaled_dot_product_attention(&q, &q, Some(&near.lt(0.6)), false);
    check("masked attention", vec![masked], 1);
}

#[test]
fn plans_are_as_blessed() {
    let (x, w, b) = (leaf(&[16, 32]), leaf(&[32, 10]), leaf(&[10]));
    let target = Tensor::new(&[1i32; 16], &[16], &CPU).unwrap();
    let loss = (x.matmul(&w) + &b).cross_entropy(&target);
    let step = &w - loss.grad(&[&w])[0].as_ref().unwrap() * 0.1;
    golden("plan_linear_step.txt", &placeless(&step.explain()));
}
