//! Reading: the ways in which elements come back, the only direction in which data flows up.

use std::fmt;
use std::sync::Arc;

use kiln_ir::{Buffer, DType, Error, ErrorKind, Movement, Op, Readback, Result};

use crate::element::{Element, to_f64};
use crate::exec;
use crate::node::{Node, Source, Value};
use crate::{Device, Tensor, trace};

impl Tensor {
    /// Computes what is needed and copies the elements out, in row-major order.
    ///
    /// # Errors
    /// If the device fails.
    ///
    /// # Panics
    /// If `T` is not the tensor's dtype.
    #[track_caller]
    pub fn to_vec<T: Element>(&self) -> Result<Vec<T>> {
        assert!(T::DTYPE == self.dtype(), "to_vec: {} of a tensor {}{}", T::DTYPE, self.dtype(), self.shape());
        Ok(T::decode(&self.bytes()?, self.numel(), self.device().caps()))
    }

    /// The elements as `f64`, whatever the dtype.
    ///
    /// # Errors
    /// If the device fails.
    pub fn to_vec_f64(&self) -> Result<Vec<f64>> {
        Ok(to_f64(self.dtype(), &self.bytes()?, self.numel(), self.device().caps()))
    }

    /// The only element.
    ///
    /// # Errors
    /// If the device fails.
    ///
    /// # Panics
    /// If there is more than one element, or none.
    #[track_caller]
    pub fn item(&self) -> Result<f64> {
        assert!(self.numel() == 1, "item: of a tensor {}{}", self.dtype(), self.shape());
        Ok(self.to_vec_f64()?[0])
    }

    /// As [`Tensor::item`], without waiting for the device: submits what is needed and gives a handle on the number,
    /// so that a loop may log the loss of a step while later ones run.
    ///
    /// ```
    /// # use kiln_graph::{Device, Tensor};
    /// # let device = Device::new(kiln_cpu::CpuBackend::new());
    /// let loss = Tensor::new(&[3.0f32, 4.0], &[2], &device)?.square().sum_all();
    /// let later = loss.item_later()?;
    /// assert_eq!(later.wait()?, 25.0);
    /// # Ok::<(), kiln_ir::Error>(())
    /// ```
    ///
    /// # Errors
    /// If the device fails.
    ///
    /// # Panics
    /// As [`Tensor::item`].
    #[track_caller]
    pub fn item_later(&self) -> Result<Later> {
        assert!(self.numel() == 1, "item: of a tensor {}{}", self.dtype(), self.shape());
        Ok(Later { bytes: self.readback()?, dtype: self.dtype(), device: self.device().clone() })
    }

    fn bytes(&self) -> Result<Vec<u8>> {
        self.readback()?.wait()
    }

    /// Computes what is needed and starts copying the elements.
    fn readback(&self) -> Result<Readback> {
        let (device, buffer) = (self.device(), self.computed()?);
        let bytes = device.backend().read(&buffer, 0..device.caps().bytes(self.dtype(), self.numel()));
        Ok(match device.env().timeline {
            None => bytes,
            Some(timeline) => {
                let device = device.clone();
                Readback::new(move || {
                    let span = timeline.span("read");
                    let bytes = bytes.wait()?;
                    drop(span);
                    timeline.kernels(device.caps(), &device.backend().take_times()?);
                    Ok(bytes)
                })
            }
        })
    }

    /// The buffer that holds the elements in row-major order, after computing it if need be.
    pub(crate) fn computed(&self) -> Result<Buffer> {
        let device = self.device();
        // Another shape of the same elements has the same bytes.
        let node = behind_reshapes(self.node().clone());
        if node.is_pending() {
            assert!(
                !trace::is_recording(),
                "jit: a value is read while the step is recorded; help: return it, and read it then"
            );
            exec::run(device, std::slice::from_ref(&node), None, device.turn())?;
        }
        match &node.books().value {
            Value::Ready(buffer) => Ok(buffer.clone()),
            Value::Failed(error) => Err(error.clone()),
            Value::Pending | Value::Gone => Err(Error::new(ErrorKind::Kernel, "a value was computed and is not there")),
        }
    }
}

/// A number on its way back from a device: see [`Tensor::item_later`].
pub struct Later {
    bytes: Readback,
    dtype: DType,
    device: Device,
}

impl Later {
    /// Blocks until the number is here.
    ///
    /// # Errors
    /// If the device failed.
    pub fn wait(self) -> Result<f64> {
        Ok(to_f64(self.dtype, &self.bytes.wait()?, 1, self.device.caps())[0])
    }
}

/// The node whose elements, in row-major order, are this one's.
fn behind_reshapes(mut node: Arc<Node>) -> Arc<Node> {
    while let Source::Op(Op::View(Movement::Reshape(_))) = node.source {
        let books = node.books();
        let inner = match &books.value {
            Value::Pending => books.inputs.first().cloned(),
            Value::Ready(_) | Value::Gone | Value::Failed(_) => None,
        };
        drop(books);
        match inner {
            Some(inner) => node = inner,
            None => break,
        }
    }
    node
}

/// The elements, or why there are none.
impl fmt::Display for Tensor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const SHOWN_MAX: usize = 1000;
        match self.to_vec_f64() {
            Err(error) => write!(f, "<failed: {error}>"),
            Ok(values) => {
                write!(f, "{}{} ", self.dtype(), self.shape())?;
                f.debug_list().entries(values.iter().take(SHOWN_MAX)).finish()?;
                if values.len() > SHOWN_MAX {
                    write!(f, " and {} more", values.len() - SHOWN_MAX)?;
                }
                Ok(())
            }
        }
    }
}
