//! Mistakes panic at the caller's line and name op, operands and rule; the texts are golden.

use std::panic::{AssertUnwindSafe, catch_unwind};

use kiln_graph::{Conv2dOptions, Tensor};
use kiln_ir::DType;

use crate::common::CPU;

fn zeros(dims: &[usize]) -> Tensor {
    Tensor::zeros(dims, &CPU)
}

fn message(f: impl FnOnce()) -> String {
    let panic = catch_unwind(AssertUnwindSafe(f)).expect_err("a mistake was accepted");
    match panic.downcast::<String>() {
        Ok(text) => *text,
        Err(other) => (*other.downcast::<&str>().expect("panics carry text")).to_owned(),
    }
}

#[test]
fn messages_are_as_blessed() {
    let int = || zeros(&[3]).cast(DType::I32);
    let byte = || Tensor::new(&[1u8, 2, 3], &[3], &CPU).unwrap();
    let other = kiln_graph::Device::new(kiln_cpu::CpuBackend::new());
    let cases: Vec<Box<dyn FnOnce()>> = vec![
        Box::new(|| drop(zeros(&[4, 3]) + zeros(&[5, 2]))),
        Box::new(|| drop(zeros(&[3]) + int())),
        Box::new(|| drop(int().exp())),
        Box::new(|| drop(byte() + byte())),
        Box::new(|| drop(zeros(&[3]).select(&zeros(&[3]), &zeros(&[3])))),
        Box::new(move || drop(zeros(&[3]) + Tensor::zeros(&[3], &other))),
        Box::new(|| drop(zeros(&[4, 3]).matmul(&zeros(&[5, 2])))),
        Box::new(|| drop(zeros(&[2, 4, 3]).matmul(&zeros(&[3, 3, 2])))),
        Box::new(|| drop(zeros(&[]).matmul(&zeros(&[2])))),
        Box::new(|| drop(int().matmul(&int()))),
        Box::new(|| drop(zeros(&[4]).reshape(&[3]))),
        Box::new(|| drop(zeros(&[4]).expand(&[3]))),
        Box::new(|| drop(zeros(&[4, 2]).permute(&[0, 0]))),
        Box::new(|| drop(zeros(&[4]).slice(0, 2..5))),
        Box::new(|| drop(zeros(&[4]).slice(1, 2..3))),
        Box::new(|| drop(zeros(&[4]).unfold(0, 5, 1, 1))),
        Box::new(|| drop(Tensor::cat(&[&zeros(&[2, 2]), &zeros(&[2, 3])], 0))),
        Box::new(|| drop(zeros(&[4]).sum(&[2]))),
        Box::new(|| drop(zeros(&[4]).index_select(0, &zeros(&[2])))),
        Box::new(|| drop(zeros(&[2, 3]).cross_entropy(&int()))),
        Box::new(|| drop(zeros(&[2, 3, 8, 8]).conv2d(&zeros(&[4, 2, 3, 3]), Conv2dOptions::default()))),
        Box::new(|| drop(zeros(&[2, 3]).mse_loss(&zeros(&[3])))),
        Box::new(|| drop(zeros(&[2]).grad(&[]))),
        Box::new(|| drop(zeros(&[2]).item())),
        Box::new(|| drop(zeros(&[2]).to_vec::<i32>())),
        Box::new(|| drop(Tensor::new(&[1.0f32], &[2], &CPU))),
    ];
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| {}));
    let found: String = cases.into_iter().map(|case| message(case) + "\n").collect();
    std::panic::set_hook(hook);
    crate::common::golden("errors.txt", &found);
}

#[test]
fn the_panic_is_at_the_callers_line() {
    let run = || catch_unwind(|| zeros(&[4, 3]) + zeros(&[5, 2]));
    static FILE: std::sync::Mutex<String> = std::sync::Mutex::new(String::new());
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(|info| {
        *FILE.lock().unwrap() = info.location().map(|l| l.file().to_owned()).unwrap_or_default();
    }));
    assert!(run().is_err());
    std::panic::set_hook(hook);
    assert!(FILE.lock().unwrap().ends_with("errors.rs"), "{:?}", FILE.lock().unwrap());
}
