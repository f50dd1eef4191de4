//! Models and optimizers in files.

use std::path::PathBuf;

use kiln::nn::file::{load_tensors, save_tensors};
use kiln::prelude::*;
use kiln::{DType, ErrorKind};

use crate::common::CPU;

/// A folder of its own for a test.
fn folder(name: &str) -> PathBuf {
    let dir = std::env::temp_dir().join(format!("kiln-files-{name}-{}", std::process::id()));
    std::fs::create_dir_all(&dir).unwrap();
    dir
}

#[derive(Module)]
struct Net {
    fc: Linear,
    norm: BatchNorm2d,
    blocks: Vec<Linear>,
    #[module(rename = "head")]
    out: Option<Linear>,
    #[module(skip)]
    #[allow(dead_code)]
    note: std::time::Duration,
}

fn net(seed: u32) -> Net {
    manual_seed(seed);
    Net {
        fc: Linear::new(3, 4, &CPU),
        norm: BatchNorm2d::new(2, &CPU),
        blocks: vec![Linear::without_bias(2, 2, &CPU), Linear::new(2, 1, &CPU)],
        out: Some(Linear::new(1, 2, &CPU)),
        note: std::time::Duration::ZERO,
    }
}

fn values(model: &Net) -> Vec<(String, Vec<f64>)> {
    model.state_dict().into_iter().map(|(name, t)| (name, t.to_vec_f64().unwrap())).collect()
}

#[test]
fn names_are_field_paths() {
    let names: Vec<String> = net(0).state_dict().into_iter().map(|(name, _)| name).collect();
    let expected = [
        "fc.weight",
        "fc.bias",
        "norm.weight",
        "norm.bias",
        "norm.running_mean",
        "norm.running_var",
        "blocks.0.weight",
        "blocks.1.weight",
        "blocks.1.bias",
        "head.weight",
        "head.bias",
    ];
    assert_eq!(names, expected);
    assert_eq!(net(0).n_params(), 12 + 4 + 4 + 4 + 3 + 4);
}

#[test]
fn a_model_comes_back_as_it_was() {
    let dir = folder("round-trip");
    let (first, mut second) = (net(1), net(2));
    assert_ne!(values(&first), values(&second));
    first.save(dir.join("net.safetensors")).unwrap();
    second.load(dir.join("net.safetensors")).unwrap();
    assert_eq!(values(&first), values(&second));
    assert_eq!(std::fs::read_dir(&dir).unwrap().count(), 1, "nothing else was left behind");
    std::fs::remove_dir_all(dir).unwrap();
}

#[test]
fn what_does_not_fit_is_named_and_changes_nothing() {
    let dir = folder("misfits");
    let file = dir.join("other.safetensors");
    let mut state = net(1).state_dict();
    state.retain(|(name, _)| name != "fc.bias");
    state[0].1 = Tensor::zeros(&[3, 4], &CPU);
    state.push(("extra".into(), Tensor::zeros(&[1], &CPU)));
    save_tensors(&file, &state).unwrap();
    let mut model = net(2);
    let before = values(&model);
    let error = model.load(&file).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Data);
    let text = error.to_string();
    for part in
        ["missing fc.bias", "unexpected extra", "fc.weight (f32[3, 4] in the file, f32[4, 3] in the model)", "other."]
    {
        assert!(text.contains(part), "{text}");
    }
    assert_eq!(values(&model), before);
    let report = model.load_matching(&file).unwrap();
    assert_eq!((report.n_loaded, report.missing.len(), report.unexpected.len()), (9, 1, 1));
    assert_eq!(report.mismatched[0].name, "fc.weight");
    std::fs::remove_dir_all(dir).unwrap();
}

#[test]
fn damaged_and_missing_files_are_errors() {
    let dir = folder("damage");
    let file = dir.join("net.safetensors");
    let mut model = net(3);
    assert_eq!(model.load(&file).unwrap_err().kind(), ErrorKind::Io);
    net(1).save(&file).unwrap();
    let whole = std::fs::read(&file).unwrap();
    for cut in [0, 7, 40, whole.len() - 1] {
        std::fs::write(&file, &whole[..cut]).unwrap();
        let error = model.load(&file).unwrap_err();
        assert!(error.kind() == ErrorKind::Format && error.to_string().contains("net.safetensors"), "{error}");
    }
    let error = model.save(dir.join("no/such/folder/net.safetensors")).unwrap_err();
    assert!(error.kind() == ErrorKind::Io && error.to_string().contains("no/such/folder"), "{error}");
    std::fs::remove_dir_all(dir).unwrap();
}

#[test]
fn every_dtype_is_stored() {
    let dir = folder("dtypes");
    let file = dir.join("all.safetensors");
    let tensors: Vec<(String, Tensor)> = DType::ALL
        .map(|t| (t.to_string(), Tensor::from_f64(&[0.0, 1.0, 1.0, 0.0], &[2, 2], t, &CPU).unwrap()))
        .to_vec();
    save_tensors(&file, &tensors).unwrap();
    let loaded = load_tensors(&file, &CPU).unwrap();
    assert_eq!(loaded.len(), DType::ALL.len());
    for (name, t) in loaded {
        assert_eq!(t.dtype().to_string(), name);
        assert_eq!((t.dims(), t.to_vec_f64().unwrap()), (&[2, 2][..], vec![0.0, 1.0, 1.0, 0.0]));
    }
    std::fs::remove_dir_all(dir).unwrap();
}

#[test]
fn an_optimizer_goes_on_where_it_was() {
    let data = Tensor::from_f64(&[0.1, -0.2, 0.3], &[1, 3], DType::F32, &CPU).unwrap();
    let step = |model: &mut Linear, opt: &mut Optimizer<AdamW>| {
        let grads = model.forward(&data).square().sum_all().backward(model);
        opt.step(model, grads).unwrap();
    };
    manual_seed(9);
    let mut model = Linear::new(3, 2, &CPU);
    let mut opt = AdamW::new(Schedule::cosine(0.1, 20)).build(&model);
    (0..5).for_each(|_| step(&mut model, &mut opt));
    let dir = folder("resume");
    model.save(dir.join("model.safetensors")).unwrap();
    save_tensors(dir.join("opt.safetensors"), &opt.state_dict()).unwrap();
    let n_steps = opt.n_steps();
    (0..5).for_each(|_| step(&mut model, &mut opt));

    let mut resumed = Linear::new(3, 2, &CPU);
    resumed.load(dir.join("model.safetensors")).unwrap();
    let mut opt = AdamW::new(Schedule::cosine(0.1, 20)).build(&resumed);
    opt.load_state_dict(&load_tensors(dir.join("opt.safetensors"), &CPU).unwrap(), n_steps).unwrap();
    (0..5).for_each(|_| step(&mut resumed, &mut opt));
    assert_eq!(model.weight.to_vec::<f32>().unwrap(), resumed.weight.to_vec::<f32>().unwrap());
    let error = opt.load_state_dict(&[], 0).unwrap_err();
    assert!(error.to_string().contains("weight.exp_avg is missing"), "{error}");
    std::fs::remove_dir_all(dir).unwrap();
}
