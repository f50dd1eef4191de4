//! Seeing inside: variables are read when a device is made, so a child process has them set.

use std::process::Command;

use kiln::prelude::*;

/// The device that a child's variable names, or the CPU.
fn child_device() -> Device {
    match std::env::var("KILN_DEVICE") {
        Ok(_) => Device::best().unwrap(),
        Err(_) => Device::cpu(),
    }
}

/// What the child does: a few steps of something that has a contraction, a row and an update.
#[test]
#[ignore = "the child of the other tests"]
fn child() {
    let device = child_device();
    let mut model = Linear::new(6, 4, &device);
    let mut opt = Sgd::new(0.1).momentum(0.9).build(&model);
    let x = Tensor::from_f64(&(0..30).map(|i| f64::from(i) / 10.0).collect::<Vec<_>>(), &[5, 6], DType::F32, &device);
    let (x, y) = (x.unwrap(), Tensor::new(&[0i32, 1, 2, 3, 0], &[5], &device).unwrap());
    for _ in 0..4 {
        let grads = model.forward(&x).cross_entropy(&y).backward(&model);
        opt.step(&mut model, grads).unwrap();
    }
}

/// What another child does: batches of ever other sizes.
#[test]
#[ignore = "the child of the other tests"]
fn ragged() {
    let device = child_device();
    let model = Linear::new(6, 4, &device);
    for n in 1..=12 {
        let x = Tensor::ones(&[n, 6], &device).detach();
        device.eval().unwrap();
        model.forward(&x).relu().to_vec::<f32>().unwrap();
    }
}

/// Runs the first child with these variables; gives what it wrote to standard error.
fn run(variables: &[(&str, &str)]) -> String {
    run_child("inspect::child", variables)
}

fn run_child(child: &str, variables: &[(&str, &str)]) -> String {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", child, "--ignored", "--nocapture"]);
    let output = command.envs(variables.iter().copied()).output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{text}\n{}", String::from_utf8_lossy(&output.stdout));
    text
}

#[test]
fn each_level_shows_one_layer_more() {
    assert_eq!(run(&[("KILN_DEBUG", "0")]), "");
    let one = run(&[("KILN_DEBUG", "1")]);
    assert!(one.starts_with("cpu, ") && one.contains("bindings a kernel"), "{one}");
    let two = run(&[("KILN_DEBUG", "2")]);
    assert!(two.contains("dot") && two.contains("  at ") && two.contains("GFLOP/s"), "{two}");
    let three = run(&[("KILN_DEBUG", "3")]);
    assert!(three.lines().count() > two.lines().count(), "{three}");
    assert!(run(&[("KILN_DEBUG", "5")]).contains("= leaf #0 : f32["));
}

#[test]
fn new_plans_say_why_they_are_new() {
    let told = run_child("inspect::ragged", &[("KILN_DEBUG", "0")]);
    assert_eq!(told.matches("help: pad to one size").count(), told.lines().count(), "{told}");
    assert!(told.contains("of axis 0, now") && told.contains("inspect.rs:"), "{told}");
    let one = run_child("inspect::ragged", &[("KILN_DEBUG", "1")]);
    assert!(one.contains("new plan: %") && one.contains("dim 3 of axis 0, now 4"), "{one}");
}

#[test]
fn a_dump_holds_graph_plan_kernels_and_times() {
    let dir = std::env::temp_dir().join(format!("kiln-dump-{}", std::process::id()));
    run(&[("KILN_DUMP", dir.to_str().unwrap())]);
    let plans: Vec<_> = std::fs::read_dir(&dir).unwrap().map(|e| e.unwrap().path()).collect();
    assert!(plans.len() >= 2, "{plans:?}");
    for plan in &plans {
        for file in ["graph.txt", "graph.dot", "plan.txt"] {
            assert!(!std::fs::read_to_string(plan.join(file)).unwrap().is_empty());
        }
    }
    let traces = plans.iter().filter_map(|plan| std::fs::read_to_string(plan.join("timeline.json")).ok());
    assert!(traces.into_iter().any(|t| t.contains("\"ph\":\"X\"")), "a plan that ran three times has a timeline");
    std::fs::remove_dir_all(dir).unwrap();
}

#[test]
fn a_trace_shows_when_host_and_gpu_work() {
    let path = std::env::temp_dir().join(format!("kiln-trace-{}.json", std::process::id()));
    let traced = |device: &str| {
        run_child("inspect::ragged", &[("KILN_TRACE", path.to_str().unwrap()), ("KILN_DEVICE", device)]);
        std::fs::read_to_string(&path).unwrap()
    };
    let events = |text: &str, of: &str| text.lines().filter(|line| line.contains(of)).count();
    let cpu = traced("cpu");
    for name in ["capture", "plan and compile", "replay", "read"] {
        assert!(events(&cpu, &format!("{{\"name\":\"{name}\",\"ph\":\"X\"")) >= 12, "{name}: {cpu}");
    }
    assert!(cpu.starts_with("[\n") && cpu.lines().skip(1).all(|l| l.starts_with('{') && l.ends_with("},")), "{cpu}");
    if crate::common::gpu().is_some() {
        let gpu = traced("gpu");
        assert!(events(&gpu, "\"pid\":1,\"tid\":0") >= 12 && events(&gpu, "process_name") == 2, "{gpu}");
    }
    std::fs::remove_file(path).unwrap();
}

#[test]
fn checking_every_kernel_finds_no_difference() {
    run(&[("KILN_CHECK", "cpu")]);
    if crate::common::gpu().is_some() {
        run(&[("KILN_CHECK", "cpu"), ("KILN_DEVICE", "gpu")]);
        let wgsl = run(&[("KILN_DEBUG", "4"), ("KILN_DEVICE", "gpu")]);
        assert!(wgsl.contains("@compute @workgroup_size"), "{wgsl}");
    }
}
