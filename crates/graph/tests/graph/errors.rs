//! Mistakes panic at the caller's line and name op, operands and rule; the texts are golden.

use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Once;

use kiln_graph::{Conv2dOptions, Tensor};
use kiln_ir::DType;

use crate::common::CPU;

fn zeros(dims: &[usize]) -> Tensor {
    Tensor::zeros(dims, &CPU)
}

thread_local! {
    /// Where this thread's last expected panic was; `None` while none is expected.
    static EXPECTED: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// What a mistake says, and the file that it is said to be in.
fn mistake(f: impl FnOnce()) -> (String, String) {
    // One hook for all tests of the process: they run at once, and each hears only its own thread.
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let usual = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            let file = info.location().map(|l| l.file().to_owned()).unwrap_or_default();
            match EXPECTED.with_borrow_mut(|e| e.as_mut().map(|e| *e = file)) {
                Some(()) => {}
                None => usual(info),
            }
        }));
    });
    EXPECTED.set(Some(String::new()));
    let panic = catch_unwind(AssertUnwindSafe(f));
    let file = EXPECTED.take().unwrap_or_default();
    let text = match panic.expect_err("a mistake was accepted").downcast::<String>() {
        Ok(text) => *text,
        Err(other) => (*other.downcast::<&str>().expect("panics carry text")).to_owned(),
    };
    (text, file)
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
        Box::new(|| drop(zeros(&[4, 3]).linear(&zeros(&[5, 2]), None))),
        Box::new(|| drop(zeros(&[4, 3]).linear(&zeros(&[5, 3]), Some(&zeros(&[3]))))),
        Box::new(|| drop(zeros(&[4]).reshape(&[3]))),
        Box::new(|| drop(zeros(&[4]).expand(&[3]))),
        Box::new(|| drop(zeros(&[4, 2]).permute(&[0, 0]))),
        Box::new(|| drop(zeros(&[4, 2]).permute(&[0; 9]))),
        Box::new(|| drop(zeros(&[4]).slice(0, 2..5))),
        Box::new(|| drop(zeros(&[4]).slice(1, 2..3))),
        Box::new(|| drop(zeros(&[4]).unfold(0, 5, 1, 1))),
        Box::new(|| drop(Tensor::cat(&[&zeros(&[2, 2]), &zeros(&[2, 3])], 0))),
        Box::new(|| drop(Tensor::cat(&[&zeros(&[2, 2]), &zeros(&[2])], 1))),
        Box::new(|| drop(zeros(&[4]).sum(&[2]))),
        Box::new(move || drop(int().mean(&[0]))),
        Box::new(|| drop(zeros(&[4]).index_select(0, &zeros(&[2])))),
        Box::new(|| drop(zeros(&[2, 3]).cross_entropy(&int()))),
        Box::new(|| drop(zeros(&[2, 3, 8, 8]).conv2d(&zeros(&[4, 2, 3, 3]), Conv2dOptions::default()))),
        Box::new(|| drop(zeros(&[2, 3]).mse_loss(&zeros(&[3])))),
        Box::new(|| {
            let x = zeros(&[2, 4, 3]);
            drop(x.scaled_dot_product_attention(&zeros(&[2, 5, 2]), &zeros(&[2, 5, 3]), None, false));
        }),
        Box::new(|| drop(zeros(&[3]).scaled_dot_product_attention(&zeros(&[3]), &zeros(&[3]), None, false))),
        Box::new(|| {
            let (x, mask) = (zeros(&[2, 4, 3]), zeros(&[5, 4]).lt(1.0));
            drop(x.scaled_dot_product_attention(&x, &x, Some(&mask), false));
        }),
        Box::new(|| {
            let (x, mask) = (zeros(&[4, 3]), int().cast(DType::I32).expand(&[4, 3]).slice(1, 0..1));
            drop(x.scaled_dot_product_attention(&x, &x, Some(&mask), false));
        }),
        Box::new(|| drop(zeros(&[2]).grad(&[]))),
        Box::new(|| drop(zeros(&[2]).item())),
        Box::new(|| drop(zeros(&[2]).to_vec::<i32>())),
        Box::new(|| drop(Tensor::new(&[1.0f32], &[2], &CPU))),
    ];
    let found: String = cases.into_iter().map(|case| mistake(case).0 + "\n").collect();
    crate::common::golden("errors.txt", &found);
}

#[test]
fn the_panic_is_at_the_callers_line() {
    let mistakes: [fn(); 4] = [
        || drop(zeros(&[4, 3]) + zeros(&[5, 2])),
        || drop(zeros(&[4, 3]).matmul(&zeros(&[5, 2]))),
        || drop(zeros(&[4]).reshape(&[3])),
        || drop(zeros(&[2, 3]).cross_entropy(&zeros(&[3]))),
    ];
    for f in mistakes {
        let (text, file) = mistake(f);
        assert!(file.ends_with("errors.rs"), "{text}: at {file}");
    }
}

#[test]
fn axes_that_are_named_again_count_once() {
    // More names than a shape has dims.
    assert_eq!(Tensor::ones(&[4, 2], &CPU).sum(&[0, -2, 0, 0, 0, 0, 0, 0, 0]).to_vec::<f32>().unwrap(), [4.0, 4.0]);
}
