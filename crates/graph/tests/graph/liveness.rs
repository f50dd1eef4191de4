//! Who wants a value decides what is kept, overwritten and recomputed.

use std::sync::Arc;

use kiln_graph::plan::PlanOptions;
use kiln_graph::{Device, Tensor, manual_seed};
use kiln_ir::kernel::Instr;

use crate::common::CPU;

fn vec(t: &Tensor) -> Vec<f32> {
    t.to_vec::<f32>().unwrap()
}

fn leaf(values: &[f32]) -> Tensor {
    Tensor::new(values, &[values.len()], &CPU).unwrap()
}

#[test]
fn reading_before_backward_is_harmless() {
    let x = leaf(&[1.0, 2.0, 3.0]);
    let loss = x.square().sum_all();
    assert_eq!(loss.item().unwrap(), 14.0);
    assert_eq!(vec(loss.grad(&[&x])[0].as_ref().unwrap()), [2.0, 4.0, 6.0]);
}

#[test]
fn a_parameter_is_updated_in_place() {
    let device = Device::new(kiln_cpu::CpuBackend::new());
    let mut param = Tensor::new(&vec![1.0f32; 1000], &[1000], &device).unwrap();
    for step in 0..5 {
        param = &param - &param * 0.5;
        assert!(param.explain().contains("1 results of which 1 in place"), "{}", param.explain());
        device.eval().unwrap();
        assert_eq!(vec(&param)[0], 0.5f32.powi(step + 1));
    }
    let next = &param * 0.5;
    assert!(next.explain().contains("of which 0 in place"), "a handle names the old value");
    drop(param);
    assert!(next.explain().contains("of which 1 in place"), "{}", next.explain());
    assert_eq!(vec(&next)[999], 0.5f32.powi(6));
    assert_eq!(device.compilations().0, 2, "all steps are one plan, the last line another");
}

/// A parameter reads its moment too; the moment is first among the results, and the parameter among the leaves.
#[test]
fn what_a_step_updates_stays_where_it_is() {
    let device = Device::new(kiln_cpu::CpuBackend::new());
    let full = |v: f32| Tensor::new(&[v; 64], &[64], &device).unwrap();
    let (mut param, mut moment, grad) = (full(1.0), full(2.0), full(3.0));
    for _ in 0..2 {
        moment = &moment * 0.5 + &grad;
        param = &param - &moment * 0.25;
        device.eval().unwrap();
    }
    assert_eq!((vec(&param)[0], vec(&moment)[0]), (1.0 - 1.0 - 1.25, 5.0));
    let plan = device.last_plan().unwrap();
    let kiln_ir::Kernel::Loop(kernel) = &plan.steps[0].kernel else { panic!("{plan}") };
    for store in &kernel.body.stores {
        let Instr::Op(_, operands) = kernel.body.instrs[store.value as usize] else { panic!("{plan}") };
        let own = |v: u32| match &kernel.body.instrs[v as usize] {
            Instr::Load { arg, .. } => *arg == store.arg,
            Instr::Op(_, factors) => factors
                .iter()
                .any(|&f| matches!(&kernel.body.instrs[f as usize], Instr::Load { arg, .. } if *arg == store.arg)),
            _ => false,
        };
        assert!(operands.into_iter().any(own), "{plan}");
    }
}

#[test]
fn a_new_number_needs_no_new_plan() {
    let device = Device::new(kiln_cpu::CpuBackend::new());
    let x = Tensor::new(&[2.0f32], &[1], &device).unwrap();
    for n in 0..20 {
        let lr = 0.1 + f64::from(n);
        assert!(((&x * lr).item().unwrap() - 2.0 * lr).abs() < 1e-5);
        manual_seed(n);
        Tensor::rand(&[3], &device).to_vec::<f32>().unwrap();
    }
    assert_eq!(device.compilations().0, 2);
}

#[test]
fn what_is_computed_by_eval_forgets_its_history() {
    let x = leaf(&[1.0, 2.0]);
    let loss = x.square().sum_all();
    CPU.eval().unwrap();
    let caught = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| drop(loss.grad(&[&x]))));
    let message = *caught.unwrap_err().downcast::<String>().unwrap();
    assert!(
        message.contains("lost its history when it was computed at") && message.contains("liveness.rs"),
        "{message}"
    );
}

#[test]
fn a_released_leaf_is_missed_by_name() {
    let x = leaf(&[1.0, 2.0]);
    let y = x.exp();
    assert_eq!(y.to_vec::<f32>().unwrap().len(), 2);
    drop(x);
    let z = y.clone();
    drop(y);
    assert_eq!(z.to_vec::<f32>().unwrap().len(), 2);
    let gradient = z.sum_all().grad(&[&z])[0].clone().unwrap();
    assert_eq!(vec(&gradient), [1.0, 1.0]);
}

#[test]
fn handles_on_the_way_are_computed_once() {
    let x = leaf(&[1.0, 2.0, 3.0]);
    let y = x.exp();
    let z = &y + 1.0;
    assert!(z.explain().contains("1 kernels"), "{}", z.explain());
    vec(&z);
    assert!(y.explain().contains("0 kernels"), "the named value was kept: {}", y.explain());
    assert!((vec(&y)[0] - 1f32.exp()).abs() < 1e-6);
}

#[test]
fn views_of_values_survive_their_owner() {
    let x = leaf(&[1.0, 2.0, 3.0, 4.0]);
    let view = x.slice(0, 1..3);
    let doubled = &x * 2.0;
    drop(x);
    CPU.eval().unwrap();
    assert_eq!(vec(&doubled), [2.0, 4.0, 6.0, 8.0]);
    assert_eq!(vec(&view), [2.0, 3.0]);
}

#[test]
fn a_million_nodes_are_recorded_differentiated_planned_and_dropped() {
    let x = leaf(&[1.0]);
    let mut y = x.clone();
    for _ in 0..500_000 {
        y = (y + 1.0) * 0.5;
    }
    let gradient = y.sum_all().grad(&[&x]).remove(0).unwrap();
    assert_eq!((vec(&y), vec(&gradient)), (vec![1.0], vec![0.0]));
    let plan = y.device().last_plan().unwrap();
    let steps = plan.steps.iter().map(|s| match &s.kernel {
        kiln_ir::Kernel::Loop(k) => k.body.instrs.len(),
        other => panic!("{other:?}"),
    });
    assert!(steps.max() <= Some(1000), "no kernel grows without bound");
}

#[test]
fn tensors_go_to_other_threads() {
    let x = leaf(&[1.0, 2.0]);
    let y = std::thread::spawn(move || &x + 1.0).join().unwrap();
    assert_eq!(vec(&y), [2.0, 3.0]);
}

#[test]
fn a_leaf_that_went_before_backward_is_named_and_nothing_aborts() {
    let x = leaf(&[1.0, 2.0]);
    let loss = (&x * leaf(&[3.0, 4.0])).sum_all();
    assert_eq!(loss.item().unwrap(), 11.0);
    let grad = loss.grad(&[&x]).remove(0).unwrap();
    let caught = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| vec(&grad)));
    let message = *caught.unwrap_err().downcast::<String>().unwrap();
    assert!(message.contains("liveness.rs") && message.contains("keep a clone of it"), "{message}");
    assert_eq!(vec(&x), [1.0, 2.0], "the rest goes on");
}

#[test]
fn a_read_that_panics_leaves_the_device_to_its_owner() {
    let backend = Arc::new(kiln_cpu::CpuBackend::new());
    {
        let device = Device::with_options(backend.clone(), PlanOptions::default());
        let x = Tensor::new(&[1.0f32, 2.0], &[2], &device).unwrap();
        let loss = (&x * Tensor::new(&[3.0f32, 4.0], &[2], &device).unwrap()).sum_all();
        loss.item().unwrap();
        let grad = loss.grad(&[&x]).remove(0).unwrap();
        assert!(std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| vec(&grad))).is_err());
    }
    assert_eq!(Arc::strong_count(&backend), 1, "nothing keeps the device alive");
}

#[test]
fn a_program_over_budget_touches_nothing_and_may_run_later() {
    let device = Device::new(kiln_cpu::CpuBackend::new());
    let mut param = Tensor::new(&vec![1.0f32; 1000], &[1000], &device).unwrap();
    let update = |param: &Tensor| param - (param * 0.5).expand(&[3, 1000]).sum(&[0]) / 3.0;
    param = update(&param);
    device.eval().unwrap();
    let needed = device.last_plan().unwrap().peak_bytes();
    device.set_memory_budget(needed - 1);
    param = update(&param);
    let error = device.eval().unwrap_err();
    let message = error.to_string();
    assert!(error.is_out_of_memory() && message.contains("f32[1000]") && message.contains("liveness.rs:"), "{message}");
    assert_eq!(device.compilations().0, 1, "the budget is no part of the plan");
    device.set_memory_budget(needed);
    device.eval().unwrap();
    assert_eq!(vec(&param), [0.25; 1000]);
}

#[test]
fn a_window_into_data_moves_without_a_new_plan() {
    let device = Device::new(kiln_cpu::CpuBackend::new());
    let values: Vec<f64> = (0..4 * 10 * 3).map(f64::from).collect();
    let data = Tensor::from_f64(&values, &[4, 10, 3], kiln_ir::DType::F32, &device).unwrap();
    let ones = Tensor::ones(&[3, 2], &device).detach();
    device.eval().unwrap();
    let mut plans = None;
    for start in [0, 3, 8, 5] {
        let window = data.slice(1, start..start + 2);
        let at = |b: usize, t: usize, c: usize| values[(b * 10 + start + t) * 3 + c] as f32;
        let all: Vec<f32> = (0..4 * 2 * 3).map(|i| at(i / 6, i / 3 % 2, i % 3)).collect();
        assert_eq!(window.to_vec::<f32>().unwrap(), all);
        let sums: Vec<f32> = all.chunks(3).flat_map(|row| [row.iter().sum::<f32>(); 2]).collect();
        assert_eq!(window.matmul(&ones).to_vec::<f32>().unwrap(), sums, "as an operand");
        let index = Tensor::new(&[1i32, 0], &[2], &device).unwrap();
        let picked = window.index_select(1, &index).to_vec::<f32>().unwrap();
        assert_eq!(picked[..6], [&all[3..6], &all[..3]].concat(), "as a table");
        let spread = index.scatter_add(1, 3, &window).to_vec::<f32>().unwrap();
        assert_eq!(spread[..9], [&all[3..6], &all[..3], &[0.0; 3]].concat(), "as values");
        assert_eq!((window.flip(1) * 2.0).sum_all().item().unwrap(), all.iter().map(|v| 2.0 * f64::from(*v)).sum());
        assert_eq!(*plans.get_or_insert(device.compilations()), device.compilations(), "window from {start}");
    }
}
