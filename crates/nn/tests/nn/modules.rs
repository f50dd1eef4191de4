//! What `#[derive(Module)]` makes of structs and enums.

use kiln_graph::Tensor;
use kiln_nn::{Backward, Dropout, Layer, Linear, Mode, Module, Param, Relu, Sequential, State};

use crate::CPU;

#[derive(Module)]
#[module(crate = "kiln_nn")]
enum Act {
    Plain(Relu),
    Learned {
        slope: Param,
    },
    #[allow(dead_code)]
    None,
}

#[derive(Module)]
#[module(crate = "kiln_nn")]
struct Pair<A, B>(A, B);

#[derive(Module)]
#[module(crate = "kiln_nn")]
struct Net {
    layers: Vec<Pair<Linear, Act>>,
    #[module(flatten)]
    inner: Pair<Param, State>,
    r#type: Option<Box<Linear>>,
    width: usize,
    drop: Dropout,
}

fn param() -> Param {
    Param::new(Tensor::ones(&[1], &CPU))
}

fn net() -> Net {
    let plain = Pair(Linear::without_bias(1, 1, &CPU), Act::Plain(Relu));
    let learned = Pair(Linear::new(1, 1, &CPU), Act::Learned { slope: param() });
    Net {
        layers: vec![plain, learned],
        inner: Pair(param(), State::new(Tensor::zeros(&[2], &CPU))),
        r#type: Some(Box::new(Linear::without_bias(1, 1, &CPU))),
        width: 3,
        drop: Dropout::new(0.5),
    }
}

#[test]
fn paths_follow_fields() {
    let names: Vec<String> = net().state_dict().into_iter().map(|(name, _)| name).collect();
    let expected =
        ["layers.0.0.weight", "layers.1.0.weight", "layers.1.0.bias", "layers.1.1.slope", "0", "1", "type.weight"];
    assert_eq!(names, expected);
    assert_eq!((net().n_params(), net().width), (6, 3));
}

#[test]
fn the_mode_reaches_every_layer() {
    let mut model = Sequential::new().with(Dropout::new(0.9)).with(Relu).with(Dropout::new(0.9));
    let x = Tensor::ones(&[64], &CPU);
    assert!(model.forward(&x).to_vec::<f32>().unwrap().contains(&0.0));
    model.train(false);
    assert_eq!(model.forward(&x).to_vec::<f32>().unwrap(), [1.0; 64]);
    assert!(Mode::default().is_training());
}

#[test]
fn an_unreached_parameter_is_named() {
    let model = net();
    let loss = model.layers[1].0.forward(&Tensor::ones(&[1, 1], &CPU)).sum_all();
    let grads = loss.backward(&model);
    assert_eq!(grads.missing(), ["layers.0.0.weight", "layers.1.1.slope", "0", "type.weight"]);
}

#[test]
fn a_loss_without_any_gradient_is_a_mistake() {
    let model = net();
    let loss = model.inner.0.exp().sum_all();
    CPU.eval().unwrap();
    let weight = || model.inner.0.exp().sum_all();
    for loss in [loss * 2.0, weight().detach(), weight().floor(), weight().detach() + 1.0] {
        let caught = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| drop(loss.backward(&model))));
        let message = *caught.unwrap_err().downcast::<&str>().unwrap();
        assert!(message.starts_with("backward: the loss reaches no parameter"), "{message}");
    }
}

#[test]
fn a_model_moves_as_a_whole() {
    let mut model = net();
    let device = kiln_graph::Device::new(kiln_cpu::CpuBackend::new());
    model.to_device(&device).unwrap();
    assert!(model.state_dict().iter().all(|(_, t)| *t.device() == device));
}
