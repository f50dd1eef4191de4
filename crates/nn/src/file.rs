//! Tensors in safetensors files, written beside and renamed.

use std::path::Path as FilePath;

use half::{bf16, f16};
use kiln_graph::{Device, Element, Tensor};
use kiln_ir::{DType, Error, ErrorKind, Result, write_file};
use safetensors::Dtype;
use safetensors::tensor::{SafeTensors, TensorView};

/// Writes named tensors to a safetensors file: all of it, or nothing.
///
/// # Errors
/// If a value cannot be computed or the file cannot be written; a file of that name then stays as it was.
pub fn save_tensors(path: impl AsRef<FilePath>, tensors: &[(String, Tensor)]) -> Result<()> {
    let path = path.as_ref();
    let encoded: Vec<(Dtype, Vec<u8>)> = tensors.iter().map(|(_, t)| encode(t)).collect::<Result<_>>()?;
    let mut views = Vec::with_capacity(tensors.len());
    for ((name, tensor), (dtype, bytes)) in tensors.iter().zip(&encoded) {
        let view = TensorView::new(*dtype, tensor.dims().to_vec(), bytes);
        views.push((name.as_str(), view.map_err(|e| unwritable(path, e))?));
    }
    let file = safetensors::serialize(views, None).map_err(|e| unwritable(path, e))?;
    write_file(path, &file)
}

/// Reads the tensors of a safetensors file onto a device, in the order of their names.
///
/// # Errors
/// If the file cannot be read, is no safetensors file, or holds a tensor that no dtype of the device can.
pub fn load_tensors(path: impl AsRef<FilePath>, device: &Device) -> Result<Vec<(String, Tensor)>> {
    let path = path.as_ref();
    let shown = path.display();
    let bytes = std::fs::read(path).map_err(|e| Error::caused_by(ErrorKind::Io, format!("cannot read {shown}"), e))?;
    let damaged = |e| Error::caused_by(ErrorKind::Format, format!("{shown}: expected a safetensors file"), e);
    let file = SafeTensors::deserialize(&bytes).map_err(damaged)?;
    let mut tensors = Vec::with_capacity(file.len());
    for (name, view) in file.iter() {
        let tensor = decode(&view, device).map_err(|e| Error::caused_by(e.kind(), format!("{shown}: {name}"), e))?;
        tensors.push((name.to_owned(), tensor));
    }
    tensors.sort_by(|a, b| a.0.cmp(&b.0));
    Ok(tensors)
}

fn unwritable(path: &FilePath, e: safetensors::SafeTensorError) -> Error {
    Error::caused_by(ErrorKind::Io, format!("cannot write {}", path.display()), e)
}

/// A tensor's elements as a file holds them.
fn encode(tensor: &Tensor) -> Result<(Dtype, Vec<u8>)> {
    fn bytes<T: Element + bytemuck::NoUninit>(tensor: &Tensor) -> Result<Vec<u8>> {
        Ok(bytemuck::cast_slice(&tensor.to_vec::<T>()?).to_vec())
    }
    Ok(match tensor.dtype() {
        DType::F32 => (Dtype::F32, bytes::<f32>(tensor)?),
        DType::F16 => (Dtype::F16, bytes::<f16>(tensor)?),
        DType::BF16 => (Dtype::BF16, bytes::<bf16>(tensor)?),
        DType::F64 => (Dtype::F64, bytes::<f64>(tensor)?),
        DType::I32 => (Dtype::I32, bytes::<i32>(tensor)?),
        DType::U32 => (Dtype::U32, bytes::<u32>(tensor)?),
        DType::U8 => (Dtype::U8, bytes::<u8>(tensor)?),
        DType::Bool => (Dtype::BOOL, tensor.to_vec::<bool>()?.into_iter().map(u8::from).collect()),
    })
}

/// A file's tensor on a device; `i64` becomes `i32` if all its values fit.
fn decode(view: &TensorView, device: &Device) -> Result<Tensor> {
    fn all<T: Element, const N: usize>(view: &TensorView, device: &Device, f: fn([u8; N]) -> T) -> Result<Tensor> {
        let elements: Vec<T> = view.data().as_chunks::<N>().0.iter().map(|bytes| f(*bytes)).collect();
        Tensor::new(&elements, view.shape(), device)
    }
    let refuse = |why: String| Err(Error::new(ErrorKind::Unsupported, why));
    if view.shape().len() > kiln_ir::Shape::MAX_RANK {
        return refuse(format!("has rank {}, at most {} is supported", view.shape().len(), kiln_ir::Shape::MAX_RANK));
    }
    let lacks = |dtype: DType| !device.caps().dtypes.contains(&dtype);
    match view.dtype() {
        Dtype::F32 => all(view, device, f32::from_le_bytes),
        Dtype::F16 => all(view, device, f16::from_le_bytes),
        Dtype::BF16 => all(view, device, bf16::from_le_bytes),
        Dtype::F64 if lacks(DType::F64) => all(view, device, |b| f64::from_le_bytes(b) as f32),
        Dtype::F64 => all(view, device, f64::from_le_bytes),
        Dtype::I32 => all(view, device, i32::from_le_bytes),
        Dtype::U32 => all(view, device, u32::from_le_bytes),
        Dtype::U8 => all(view, device, |[byte]| byte),
        Dtype::BOOL => all(view, device, |[byte]| byte != 0),
        Dtype::I64 => {
            let wide = view.data().as_chunks::<8>().0.iter().map(|b| i64::from_le_bytes(*b));
            let narrow = wide.map(|v| i32::try_from(v).map_err(|_| v)).collect::<Result<Vec<i32>, i64>>();
            match narrow {
                Ok(elements) => Tensor::new(&elements, view.shape(), device),
                Err(v) => refuse(format!("holds {v}, which does not fit i32")),
            }
        }
        other => refuse(format!("has dtype {other:?}, which Kiln does not hold")),
    }
}
