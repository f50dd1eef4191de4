//! The tensor: a counted handle on a recorded node, and the ways to get data in and out.

use std::fmt;
use std::panic::Location;
use std::sync::Arc;

use kiln_ir::{DType, Op, Result, Shape};

use crate::element::{Element, from_f64};
use crate::exec;
use crate::node::{Node, Source};
use crate::record::{held, source};
use crate::turn::Turn;
use crate::{Device, capture, inspect, trace};

/// An n-dimensional array on a device, computed when it is needed.
///
/// Methods record; nothing runs until a value is read, or [`Device::eval`] or an optimizer's step
/// submits what was recorded. A clone is another handle on the same value. When the last handle goes,
/// so does the value, unless something that is not computed yet needs it.
pub struct Tensor(Arc<Node>);

impl Clone for Tensor {
    fn clone(&self) -> Tensor {
        Tensor::from_node(self.0.clone())
    }
}

impl Drop for Tensor {
    fn drop(&mut self) {
        self.0.drop_handle();
    }
}

impl Tensor {
    /// A new handle on a node.
    pub(crate) fn from_node(node: Arc<Node>) -> Tensor {
        node.add_handle();
        Tensor(node)
    }

    /// The handle that a new node has.
    pub(crate) fn first(node: Arc<Node>) -> Tensor {
        Tensor(node)
    }

    pub(crate) fn node(&self) -> &Arc<Node> {
        &self.0
    }

    /// The recorded node, if nothing else refers to it.
    pub(crate) fn node_mut(&mut self) -> Option<&mut Node> {
        Arc::get_mut(&mut self.0)
    }

    /// A tensor of these dims with these elements in row-major order.
    ///
    /// # Errors
    /// If the device has no memory left.
    ///
    /// # Panics
    /// If the number of elements is not that of the dims, or the device lacks the dtype.
    #[track_caller]
    pub fn new<T: Element>(data: &[T], dims: &[usize], device: &Device) -> Result<Tensor> {
        let shape = Shape::new(dims);
        assert!(data.len() == shape.numel(), "tensor: {} elements for shape {shape}", data.len());
        device.check("tensor", T::DTYPE);
        upload(device, &T::encode(data, device.caps()), (shape, T::DTYPE), Location::caller())
    }

    /// A tensor of any dtype from `f64` values, each rounded to it.
    ///
    /// # Errors
    /// If the device has no memory left.
    ///
    /// # Panics
    /// As [`Tensor::new`].
    #[track_caller]
    pub fn from_f64(data: &[f64], dims: &[usize], dtype: DType, device: &Device) -> Result<Tensor> {
        let shape = Shape::new(dims);
        assert!(data.len() == shape.numel(), "tensor: {} elements for shape {shape}", data.len());
        device.check("tensor", dtype);
        upload(device, &from_f64(dtype, data, device.caps()), (shape, dtype), Location::caller())
    }

    /// A scalar filled into these dims.
    #[track_caller]
    pub fn full(dims: &[usize], value: f64, dtype: DType, device: &Device) -> Tensor {
        device.check("full", dtype);
        source(device, Source::Op(Op::Const(dtype.round(value))), Shape::scalar(), dtype).expand(dims)
    }

    /// A number given at each run: another value is the same program, and finds the same plan.
    ///
    /// # Panics
    /// If the device lacks the dtype, or it is `bool`.
    #[track_caller]
    pub fn scalar(value: f64, dtype: DType, device: &Device) -> Tensor {
        let (slot, word) = scalar_word(value, dtype);
        Tensor::of_word(Source::Scalar { word, origin: None }, slot, dtype, device)
    }

    /// A scalar slot of one dtype as a tensor of another.
    #[track_caller]
    pub(crate) fn of_word(word: Source, slot: DType, dtype: DType, device: &Device) -> Tensor {
        device.check("scalar", dtype);
        assert!(dtype != DType::Bool, "scalar: takes a number, got bool");
        source(device, word, Shape::scalar(), slot).cast(dtype)
    }

    /// Zeros, `f32`.
    #[track_caller]
    pub fn zeros(dims: &[usize], device: &Device) -> Tensor {
        Tensor::full(dims, 0.0, DType::F32, device)
    }

    /// Ones, `f32`.
    #[track_caller]
    pub fn ones(dims: &[usize], device: &Device) -> Tensor {
        Tensor::full(dims, 1.0, DType::F32, device)
    }

    /// The coordinate along `axis` at every point of these dims, `i32`.
    ///
    /// # Panics
    /// If there is no such axis.
    #[track_caller]
    pub fn iota(dims: &[usize], axis: usize, device: &Device) -> Tensor {
        assert!(axis < dims.len(), "iota: axis {axis} out of range for rank {}", dims.len());
        source(device, Source::Op(Op::Iota(axis)), Shape::new(dims), DType::I32)
    }

    /// The dims.
    pub fn shape(&self) -> &Shape {
        &self.0.shape
    }

    /// The dims as a slice.
    pub fn dims(&self) -> &[usize] {
        &self.0.shape
    }

    /// The number of axes.
    pub fn rank(&self) -> usize {
        self.0.shape.rank()
    }

    /// The number of elements.
    pub fn numel(&self) -> usize {
        self.0.shape.numel()
    }

    /// The dtype of the elements.
    pub fn dtype(&self) -> DType {
        self.0.dtype
    }

    /// True iff both are handles on one recorded value.
    pub(crate) fn is(&self, other: &Tensor) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// Where it lives.
    pub fn device(&self) -> &Device {
        &self.0.device
    }

    /// The same elements as a leaf on another device.
    ///
    /// # Errors
    /// If either device fails.
    ///
    /// # Panics
    /// If the other device lacks the dtype.
    #[track_caller]
    pub fn to(&self, device: &Device) -> Result<Tensor> {
        match self.device() == device {
            true => Ok(self.clone()),
            false => Tensor::from_f64(&self.to_vec_f64()?, self.dims(), self.dtype(), device),
        }
    }

    /// How this value would be computed now: one line a kernel, then why any two neighbours are one or two.
    pub fn explain(&self) -> String {
        explain(self.device(), std::slice::from_ref(&self.0), &self.device().turn())
    }
}

impl Device {
    /// Submits everything that this thread recorded here and still holds, without waiting. What is
    /// computed becomes a leaf: its history is cut. Does nothing while the thread records a step to run it again.
    ///
    /// # Errors
    /// If the device fails; then each of those tensors holds the error.
    #[track_caller]
    pub fn eval(&self) -> Result<()> {
        if trace::is_recording() {
            return Ok(());
        }
        let cut = Some(Location::caller());
        // What is evaluated is most often a step, which overwrites what it replaces.
        let turn = self.turn_alone();
        let targets = held(self, &turn);
        match targets.is_empty() {
            true => Ok(()),
            false => exec::run(self, &targets, cut, turn),
        }
    }
}

impl Device {
    /// How [`Device::eval`] would compute what this thread holds now, as [`Tensor::explain`] says it.
    pub fn explain(&self) -> String {
        let turn = self.turn();
        explain(self, &held(self, &turn), &turn)
    }
}

fn explain(device: &Device, targets: &[Arc<Node>], turn: &Turn) -> String {
    let captured = match capture::capture(device, targets, turn) {
        Ok(captured) => captured,
        Err(error) => return format!("failed before: {error}"),
    };
    match exec::planned(device, captured.graph(), &captured.filling.donatable, true) {
        Ok(plan) => inspect::describe(&plan),
        Err(error) => error.to_string(),
    }
}

/// The dtype of a scalar's slot, and the word in it. A slot is a word of 32 bits: narrower numbers are exact in one,
/// and `f64` loses what `f32` lacks.
pub(crate) fn scalar_word(value: f64, dtype: DType) -> (DType, u32) {
    let slot = if dtype.is_float() { DType::F32 } else { dtype.compute() };
    let word = match slot {
        DType::I32 => value as i32 as u32,
        DType::U32 => value as u32,
        _ => (value as f32).to_bits(),
    };
    (slot, word)
}

fn upload(
    device: &Device,
    bytes: &[u8],
    (shape, dtype): (Shape, DType),
    location: &'static Location<'static>,
) -> Result<Tensor> {
    let buffer = device.backend().alloc(device.caps().bytes(dtype, shape.numel()))?;
    if !bytes.is_empty() {
        device.backend().write(&buffer, 0, bytes)?;
    }
    Ok(Tensor::first(Node::leaf(device, buffer, (shape, dtype), location)))
}

/// What it is, without computing it.
impl fmt::Debug for Tensor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Tensor({}{} on {})", self.dtype(), self.shape(), self.device())
    }
}
