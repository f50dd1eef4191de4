//! A step that is recorded once computes what one that is recorded each time does, to the bit.

use kiln_graph::{Device, Tensor, generator_state, manual_seed};
use kiln_ir::{DType, Result};
use kiln_nn::{
    AdamW, Backward, BatchNorm2d, Conv2d, Dropout, Layer, Linear, Module, Optimizer, Param, Schedule, Sgd, jit,
};

use super::wave;

#[derive(Module)]
#[module(crate = "kiln_nn")]
struct Net {
    conv: Conv2d,
    norm: BatchNorm2d,
    dropout: Dropout,
    fc: Linear,
}

type State = (Net, Optimizer<AdamW>);

fn state(device: &Device) -> State {
    manual_seed(11);
    let net = Net {
        conv: Conv2d::new(1, 4, 3, device),
        norm: BatchNorm2d::new(4, device),
        dropout: Dropout::new(0.3),
        fc: Linear::new(4 * 36, 3, device),
    };
    let opt = AdamW::new(Schedule::cosine(1e-2, 60).warmup(7)).build(&net);
    (net, opt)
}

fn step((net, opt): &mut State, (x, y): (Tensor, Tensor)) -> Result<Tensor> {
    let x = net.norm.forward(&net.conv.forward(&x)).relu().flatten(1);
    let loss = net.fc.forward(&net.dropout.forward(&x)).cross_entropy(&y);
    // Two clocks tick in one step: the optimizer's and the generator's, the latter twice.
    let noise = Tensor::rand(&[], x.device()) * 1e-3;
    let grads = (&loss + noise * loss.detach()).backward(net);
    opt.step(net, grads)?;
    Ok(loss)
}

fn batch(n: usize, device: &Device) -> (Tensor, Tensor) {
    let x = wave(n as f64, &[5, 1, 8, 8], 1.0).cast(DType::F32).to(device).unwrap();
    let y: Vec<i32> = (0..5).map(|i| ((n + i) % 3) as i32).collect();
    (x, Tensor::new(&y, &[5], device).unwrap())
}

/// Everything that the steps leave behind: losses, parameters, moments, statistics, counters.
fn run(jitted: bool) -> (Vec<u64>, Vec<Vec<u32>>, (u32, u32), u64) {
    let device = Device::new(kiln_cpu::CpuBackend::new());
    let mut state = state(&device);
    let mut fast = jit(step);
    let mut losses = Vec::new();
    for n in 0..50 {
        if n == 30 {
            state.1.set_schedule(2e-3);
        }
        let loss = match jitted {
            true => fast.call(&mut state, batch(n, &device)),
            false => step(&mut state, batch(n, &device)),
        };
        losses.push(loss.unwrap().item().unwrap().to_bits());
    }
    assert_eq!(fast.n_recorded(), usize::from(jitted));
    let tensors = state.0.state_dict().into_iter().chain(state.1.state_dict());
    let bits = tensors.map(|(_, t)| t.to_vec::<f32>().unwrap().iter().map(|v| v.to_bits()).collect());
    (losses, bits.collect(), generator_state(), state.1.n_steps())
}

#[test]
fn fifty_steps_are_the_same_to_the_bit() {
    let (plain, fast) = (run(false), run(true));
    assert_eq!(plain.0, fast.0);
    assert!(plain == fast);
}

#[test]
fn other_dims_and_modes_are_recorded_anew() {
    let device = Device::new(kiln_cpu::CpuBackend::new());
    let (mut net, _) = state(&device);
    let plain = |net: &mut Net, x: Tensor| {
        let x = net.norm.forward(&net.conv.forward(&x)).relu().flatten(1);
        Ok(net.fc.forward(&net.dropout.forward(&x)))
    };
    let mut forward = jit(plain);
    let x = |n: usize| wave(1.0, &[n, 1, 8, 8], 1.0).cast(DType::F32).to(&device).unwrap();
    for (n, training, expected) in
        [(2, true, 1), (2, true, 1), (3, true, 2), (3, false, 3), (2, false, 4), (2, true, 4)]
    {
        net.train(training);
        let out = forward.call(&mut net, x(n)).unwrap();
        assert_eq!((out.dims(), forward.n_recorded()), (&[n, 3][..], expected));
    }
    net.train(false);
    let expected = plain(&mut net, x(2)).unwrap().to_vec::<f32>().unwrap();
    assert_eq!(forward.call(&mut net, x(2)).unwrap().to_vec::<f32>().unwrap(), expected);
}

#[test]
fn a_tensor_that_others_hold_is_not_written_over() {
    let device = Device::new(kiln_cpu::CpuBackend::new());
    let model = Linear::new(2, 2, &device);
    let opt = Sgd::new(0.1).build(&model);
    let mut state = (model, opt);
    let mut step = jit(|(model, opt): &mut (Linear, Optimizer<Sgd>), x: Tensor| {
        let grads = model.forward(&x).sum_all().backward(model);
        opt.step(model, grads)
    });
    let x = Tensor::ones(&[1, 2], &device).detach();
    device.eval().unwrap();
    let value = |p: &Param| p.tensor().to_vec::<f32>().unwrap();
    step.call(&mut state, x.clone()).unwrap();
    let kept = state.0.weight.clone();
    let before = value(&kept);
    for n in 1..4 {
        step.call(&mut state, x.clone()).unwrap();
        assert_eq!(value(&kept), before, "an exponential average may keep it");
        let now = value(&state.0.weight);
        assert!(now.iter().zip(&before).all(|(a, b)| (b - a - 0.1 * n as f32).abs() < 1e-6));
    }
    assert_eq!(step.n_recorded(), 1);
}

#[test]
fn numbers_are_inputs_and_values_are_read_outside() {
    let device = Device::new(kiln_cpu::CpuBackend::new());
    let mut total = Tensor::zeros(&[2], &device).detach();
    let mut add = jit(|total: &mut Tensor, by: Tensor| {
        *total = &*total + by;
        Ok(())
    });
    for n in 1..5 {
        add.call(&mut total, Tensor::scalar(f64::from(n), DType::F32, &device)).unwrap();
    }
    assert_eq!((total.to_vec::<f32>().unwrap(), add.n_recorded()), (vec![10.0; 2], 1));
    let mut reads = jit(|total: &mut Tensor, (): ()| {
        *total = &*total + 1.0;
        total.to_vec::<f32>().map(drop)
    });
    let caught = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| reads.call(&mut total, ())));
    let message = *caught.unwrap_err().downcast::<&str>().unwrap();
    assert!(message.contains("a value is read while the step is recorded"), "{message}");
    device.eval().unwrap();
    assert_eq!(total.to_vec::<f32>().unwrap(), [11.0; 2], "the thread records no more");
}

#[test]
fn inputs_may_be_views_and_share_tensors() {
    let device = Device::new(kiln_cpu::CpuBackend::new());
    let data = Tensor::new(&(0..24).map(|v| v as f32).collect::<Vec<_>>(), &[6, 2, 2], &device).unwrap();
    let mut total = Tensor::zeros(&[4], &device).detach();
    let mut add = jit(|total: &mut Tensor, (x, y): (Tensor, Tensor)| {
        *total = &*total + (&x - &y * 0.5).sum(&[0]);
        Ok(&x + &y)
    });
    let mut expected = vec![0.0f32; 4];
    for n in 0..6 {
        let row = |n: usize| -> Vec<f32> { (0..4).map(|c| (4 * n + c) as f32).collect() };
        // Views of other shapes, windows that move, and one tensor for both inputs every other time.
        let x = data.slice(0, n..n + 1).flatten(1);
        let y = if n % 2 == 0 { x.clone() } else { data.flatten(1).slice(0, 0..1) };
        let (a, b) = (row(n), if n % 2 == 0 { row(n) } else { row(0) });
        let sum = add.call(&mut total, (x, y)).unwrap().to_vec::<f32>().unwrap();
        assert_eq!(sum, a.iter().zip(&b).map(|(a, b)| a + b).collect::<Vec<_>>(), "call {n}");
        expected.iter_mut().zip(a.iter().zip(&b)).for_each(|(e, (a, b))| *e += a - b * 0.5);
    }
    assert_eq!((total.to_vec::<f32>().unwrap(), add.n_recorded()), (expected, 1));
}

#[test]
fn a_model_that_moved_is_recorded_anew() {
    let [here, there] = [0, 1].map(|_| Device::new(kiln_cpu::CpuBackend::new()));
    let mut model = Linear::new(2, 2, &here);
    let mut forward = jit(|model: &mut Linear, x: Tensor| Ok(model.forward(&x)));
    let x = |device: &Device| Tensor::new(&[1.0f32, 2.0], &[1, 2], device).unwrap();
    let expected = forward.call(&mut model, x(&here)).unwrap().to_vec::<f32>().unwrap();
    model.to_device(&there).unwrap();
    let moved = forward.call(&mut model, x(&there)).unwrap();
    assert!(*moved.device() == there && forward.n_recorded() == 2);
    assert_eq!(moved.to_vec::<f32>().unwrap(), expected);
}

/// The step gives a tensor of its state: one value with two names.
#[test]
fn an_output_that_is_also_state_keeps_its_value() {
    let device = Device::new(kiln_cpu::CpuBackend::new());
    let mut total = Tensor::zeros(&[2], &device).detach();
    let mut add = jit(|total: &mut Tensor, by: Tensor| {
        *total = &*total + by;
        Ok(total.clone())
    });
    let by = || Tensor::scalar(1.0, DType::F32, &device);
    drop(add.call(&mut total, by()).unwrap());
    let kept: Vec<Tensor> = (0..4).map(|_| add.call(&mut total, by()).unwrap()).collect();
    let values: Vec<f32> = kept.iter().map(|t| t.to_vec::<f32>().unwrap()[0]).collect();
    assert_eq!(values, [2.0, 3.0, 4.0, 5.0]);
    drop(kept);
    assert_eq!(add.call(&mut total, by()).unwrap().to_vec::<f32>().unwrap(), [6.0; 2]);
}
