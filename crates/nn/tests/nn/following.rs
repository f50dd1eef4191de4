//! A step whose rest follows from its loss computes what one that is recorded as a whole does, to the bit.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Barrier;
use std::time::{Duration, Instant};

use kiln_graph::{Device, Tensor, checkpoint, manual_seed};
use kiln_nn::{
    AdamW, Backward, BatchNorm2d, Conv2d, Dropout, Grads, Layer, Linear, Module, Optimizer, Param, Rule, Schedule, Sgd,
};

#[derive(Module)]
#[module(crate = "kiln_nn")]
struct Net {
    conv: Conv2d,
    norm: BatchNorm2d,
    dropout: Dropout,
    fc: Linear,
    /// Read in windows, by some tests only.
    table: Param,
}

/// A model, its optimizer, and whether each step is recorded as a whole.
struct World<R> {
    device: Device,
    net: Net,
    opt: Optimizer<R>,
    whole: bool,
    /// What the steps have let see.
    seen: Vec<u64>,
}

impl<R: Rule> World<R> {
    fn new(whole: bool, build: impl FnOnce(&Net) -> Optimizer<R>) -> World<R> {
        let device = Device::new(kiln_cpu::CpuBackend::new());
        manual_seed(5);
        let net = Net {
            conv: Conv2d::new(1, 3, 3, &device),
            norm: BatchNorm2d::new(3, &device),
            dropout: Dropout::new(0.3),
            fc: Linear::new(3 * 16, 3, &device),
            table: Param::new(Tensor::randn(&[9, 48], &device)),
        };
        let opt = build(&net);
        World { device, net, opt, whole, seen: Vec::new() }
    }

    fn features(&self, x: &Tensor) -> Tensor {
        let x = self.net.norm.forward(&self.net.conv.forward(x)).relu().flatten(1);
        self.net.dropout.forward(&x)
    }

    fn loss(&self, n: usize, batch: usize) -> Tensor {
        let (x, y) = self.batch(n, batch);
        self.net.fc.forward(&self.features(&x)).cross_entropy(&y)
    }

    fn batch(&self, n: usize, batch: usize) -> (Tensor, Tensor) {
        let x: Vec<f32> = (0..batch * 36).map(|i| ((i + 7 * n) as f32 * 0.37).sin()).collect();
        let y: Vec<i32> = (0..batch).map(|i| ((n + i) % 3) as i32).collect();
        let new = |x: &[f32]| Tensor::new(x, &[batch, 1, 6, 6], &self.device).unwrap();
        (new(&x), Tensor::new(&y, &[batch], &self.device).unwrap())
    }

    fn grads(&self, loss: &Tensor) -> Grads<Net> {
        let grads = loss.backward(&self.net);
        // Looking at gradients has them recorded.
        if self.whole { grads.map(|grad| grad) } else { grads }
    }

    fn step(&mut self, loss: &Tensor) {
        let grads = self.grads(loss);
        self.opt.step(&mut self.net, grads).unwrap();
    }

    fn see(&mut self, t: &Tensor) {
        self.seen.extend(t.to_vec_f64().unwrap().iter().map(|v| v.to_bits()));
    }
}

fn adamw(net: &Net) -> Optimizer<AdamW> {
    AdamW::new(Schedule::cosine(1e-2, 60).warmup(7)).build(net)
}

/// Does the same steps both ways; the first way records so many of them.
fn check<R: Rule>(n_recorded: usize, build: fn(&Net) -> Optimizer<R>, steps: impl Fn(&mut World<R>)) {
    let run = |whole: bool| {
        let mut world = World::new(whole, build);
        steps(&mut world);
        let tensors = world.net.state_dict().into_iter().chain(world.opt.state_dict());
        tensors.for_each(|(_, t)| world.see(&t));
        (world.seen, world.opt.n_steps(), world.opt.n_recorded(), world.device.compilations())
    };
    let (known, whole) = (run(false), run(true));
    assert_eq!((known.1, known.2), (whole.1, n_recorded), "steps, and how many were recorded");
    assert_eq!(known.3, whole.3, "plans and kernels");
    assert!(known.0 == whole.0, "values differ");
}

#[test]
fn steps_with_statistics_masks_and_schedules() {
    check(1, adamw, |world| {
        for n in 0..20 {
            if n == 12 {
                world.opt.set_schedule(2e-3);
            }
            let loss = world.loss(n, 4);
            world.step(&loss);
            world.see(&loss);
        }
    });
}

#[test]
fn clipped_gradients_take_the_limit_of_each_step() {
    let build = |net: &Net| Sgd::new(0.1).momentum(0.9).build(net);
    check(1, build, |world| {
        for n in 0..8 {
            let loss = world.loss(n, 4);
            let grads = world.grads(&loss).clip_norm(1.0 + n as f64 * 0.1).clip_norm(0.9);
            world.opt.step(&mut world.net, grads).unwrap();
            world.see(&loss);
        }
    });
}

#[test]
fn other_dims_and_modes_are_other_steps() {
    check(3, adamw, |world| {
        for n in 0..12 {
            world.net.train(n % 3 != 2);
            let loss = world.loss(n, [4, 5, 4][n % 3]);
            world.step(&loss);
        }
    });
}

#[test]
fn who_holds_the_loss_and_what_it_is_computed_from() {
    // Held or not, the loss or what comes before it: two bits, four steps.
    check(4, adamw, |world| {
        for n in 0..12 {
            let (x, y) = world.batch(n, 4);
            let logits = world.net.fc.forward(&world.features(&x));
            let loss = logits.cross_entropy(&y);
            let held = (n % 2 == 0).then(|| loss.clone());
            let logits = Some(logits).filter(|_| n % 4 < 2);
            let grads = world.grads(&loss);
            drop(loss);
            world.opt.step(&mut world.net, grads).unwrap();
            held.iter().chain(&logits).for_each(|t| world.see(t));
        }
    });
}

#[test]
fn windows_into_data_move_and_windows_into_parameters_are_recorded() {
    check(1, adamw, |world| {
        let (x, y) = world.batch(0, 30);
        for n in 0..9 {
            let (x, y) = (x.slice(0, n..n + 4), y.slice(0, n..n + 4));
            let loss = world.net.fc.forward(&world.features(&x)).cross_entropy(&y);
            world.step(&loss);
            world.see(&loss);
        }
    });
    check(9, adamw, |world| {
        for n in 0..9 {
            let row = world.net.table.slice(0, n..n + 1);
            let loss = world.net.fc.forward(&row).square().sum_all();
            world.step(&loss);
            world.see(&loss);
        }
    });
}

#[test]
fn checkpoints_are_of_the_step() {
    check(2, adamw, |world| {
        for n in 0..9 {
            let (x, y) = world.batch(n, 4);
            let features = if n % 3 == 0 { world.features(&x) } else { checkpoint(|| world.features(&x)) };
            let loss = world.net.fc.forward(&features).cross_entropy(&y);
            world.step(&loss);
            world.see(&loss);
        }
    });
}

#[test]
fn what_others_hold_is_not_written_over() {
    check(3, adamw, |world| {
        let mut kept = Vec::new();
        for n in 0..12 {
            let weight = world.net.fc.weight.tensor().clone();
            match n % 4 {
                0 => kept.push(weight),
                1 => kept.push(weight.t()),
                2 => kept.extend(world.opt.state_dict().into_iter().map(|(_, t)| t)),
                _ => {}
            }
            let loss = world.loss(n, 4);
            world.step(&loss);
        }
        kept.iter().for_each(|t| world.see(t));
    });
}

/// What was computed and kept its history has gradients at the values it was computed from, or none.
#[test]
fn what_was_computed_before_is_not_taken_for_what_follows() {
    check(1, adamw, |world| {
        for n in 0..6 {
            let scale = Tensor::new(&[n as f32], &[], &world.device).unwrap();
            let (loss, norm) = (world.loss(n, 4), (world.net.fc.weight.tensor() * &scale).square().sum_all());
            world.see(&norm);
            world.step(&loss);
            let late = || norm.grad(&[&scale])[0].as_ref().map(Tensor::to_vec_f64);
            assert!(catch_unwind(AssertUnwindSafe(late)).is_err(), "the weight has another value by now");
        }
    });
}

#[test]
fn what_is_read_or_submitted_before_the_step_is_recorded() {
    check(7, adamw, |world| {
        for n in 0..9 {
            let loss = world.loss(n, 4);
            let grads = world.grads(&loss);
            match n % 3 {
                0 => world.see(&loss),
                1 => world.device.eval().unwrap(),
                _ => {}
            }
            world.opt.step(&mut world.net, grads).unwrap();
        }
    });
}

#[test]
fn gradients_are_of_the_parameters_that_there_were() {
    check(3, adamw, |world| {
        for n in 0..5 {
            let loss = world.loss(n, 4);
            let grads = world.grads(&loss);
            if n % 2 == 1 {
                world.net.fc.weight = Param::new(world.net.fc.weight.tensor() * 0.5);
            }
            world.opt.step(&mut world.net, grads).unwrap();
            world.see(&loss);
        }
    });
}

/// The first step submits, and so cuts, what the second is to differentiate.
#[test]
fn two_models_are_trained_in_turn() {
    check(1, adamw, |world| {
        let mut other = Linear::new(3 * 16, 3, &world.device);
        let mut opt = Sgd::new(0.1).momentum(0.5).build(&other);
        for n in 0..6 {
            let (x, y) = world.batch(n, 4);
            let features = world.features(&x);
            let loss = world.net.fc.forward(&features).cross_entropy(&y);
            let second = other.forward(&features).cross_entropy(&y);
            let (grads, second) = (world.grads(&loss), second.backward(&other));
            world.opt.step(&mut world.net, grads).unwrap();
            opt.step(&mut other, second).unwrap();
        }
        other.state_dict().iter().for_each(|(_, t)| world.see(t));
    });
}

#[test]
fn a_step_goes_on_where_another_thread_began() {
    check(1, adamw, |world| {
        for n in 0..4 {
            let loss = world.loss(n, 4);
            let grads = world.grads(&loss);
            std::thread::scope(|scope| {
                scope.spawn(|| world.opt.step(&mut world.net, grads).unwrap());
            });
            world.see(&loss);
        }
    });
}

#[test]
fn another_thread_reads_the_loss_while_the_step_is_made() {
    let losses = |meanwhile: bool| -> Vec<f64> {
        let mut world = World::new(false, adamw);
        let step = |n: usize| {
            let loss = world.loss(n % 5, 4);
            let (grads, start) = (world.grads(&loss), Barrier::new(2));
            std::thread::scope(|scope| {
                let reader = meanwhile.then(|| {
                    scope.spawn(|| {
                        start.wait();
                        let later = Instant::now() + Duration::from_micros(20 * (n as u64 % 10));
                        while Instant::now() < later {}
                        loss.item().unwrap()
                    })
                });
                reader.is_some().then(|| start.wait());
                world.opt.step(&mut world.net, grads).unwrap();
                reader.map_or_else(|| loss.item().unwrap(), |reader| reader.join().unwrap())
            })
        };
        (0..100).map(step).collect()
    };
    let (before, meanwhile) = (losses(false), losses(true));
    for (n, (a, b)) in before.iter().zip(&meanwhile).enumerate() {
        assert!((a - b).abs() < 1e-3, "loss {n}: {b} instead of {a}");
    }
}

#[test]
fn short_memory_loses_nothing() {
    check(2, adamw, |world| {
        for n in 0..4 {
            let loss = world.loss(n, 4);
            let grads = world.grads(&loss);
            let short = n == 2;
            world.device.set_memory_budget(if short { 1000 } else { u64::MAX });
            let result = world.opt.step(&mut world.net, grads);
            assert_eq!(result.is_err_and(|error| error.is_out_of_memory()), short);
            world.device.set_memory_budget(u64::MAX);
            world.device.eval().unwrap();
            world.see(&loss);
        }
    });
}

/// What is the same program may have more behind it.
#[test]
fn gradients_go_on_behind_what_was_read() {
    check(6, adamw, |world| {
        for n in 0..9 {
            let (x, y) = world.batch(n, 4);
            let features = world.features(&x);
            match n % 2 {
                0 => world.see(&features),
                // Their history is cut.
                _ => world.device.eval().unwrap(),
            }
            let loss = world.net.fc.forward(&features).cross_entropy(&y);
            world.step(&loss);
        }
    });
}

/// A rule whose two slots are one value, and which may read more than it is given.
#[derive(Clone)]
struct Wayward(Option<Tensor>);

impl Rule for Wayward {
    fn slots(&self) -> &'static [&'static str] {
        &["last", "same"]
    }

    fn numbers(&self, lr: f64, _: u64) -> Vec<f64> {
        vec![lr]
    }

    fn update(&self, numbers: &[Tensor], param: &Tensor, grad: &Tensor, slots: &mut [Tensor]) -> Tensor {
        match &self.0 {
            Some(scale) => (slots[0], slots[1]) = (grad * scale, grad * 0.5),
            None => slots.fill(grad * 2.0),
        }
        param - grad * &numbers[0]
    }
}

#[test]
fn a_rule_that_goes_its_own_way_is_recorded_each_time() {
    let reads = |net: &Net| {
        let two = Tensor::new(&[2.0f32], &[], net.fc.weight.device()).unwrap();
        Optimizer::new(Wayward(Some(two)), 0.1, net)
    };
    for build in [reads, |net: &Net| Optimizer::new(Wayward(None), 0.1, net)] {
        check(4, build, |world| {
            for n in 0..4 {
                // Slots that are values of their own, as at first.
                let new = |t: &Tensor| Tensor::new(&vec![0.0f32; t.numel()], t.dims(), t.device()).unwrap();
                let slots: Vec<_> = world.opt.state_dict().into_iter().map(|(name, t)| (name, new(&t))).collect();
                world.opt.load_state_dict(&slots, n).unwrap();
                drop(slots);
                let loss = world.loss(n as usize, 4);
                world.step(&loss);
            }
        });
    }
}
