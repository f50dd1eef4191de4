//! What the world can do to us: one small error type with a structured kind.
//!
//! A caller's mistake (shapes, dtypes, devices) is not here: it panics where it is made.

use std::fmt;
use std::sync::Arc;

/// The result of anything that touches the world.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// A failure outside the program's control: device, memory, files.
///
/// Cheap to clone, because a failed plan hands the same error to every value it should have made.
#[derive(Clone)]
pub struct Error(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    kind: ErrorKind,
    message: String,
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

/// What went wrong, for code that wants to react.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub enum ErrorKind {
    /// No adapter matches, or the one asked for is absent.
    NoDevice,
    /// The device was lost, reset or removed.
    DeviceLost,
    /// Memory or a set budget is exhausted.
    OutOfMemory,
    /// The device cannot do what was asked: a dtype, a size, a feature.
    Unsupported,
    /// A file or stream could not be read or written.
    Io,
    /// A file was read but its content is not what it should be.
    Format,
    /// A value in the data is outside its range, such as a label.
    Data,
    /// A kernel was rejected: a bug in Kiln, reported rather than hidden.
    Kernel,
}

impl Error {
    /// An error of this kind with a message for people, without a trailing period.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Error {
        Error(Arc::new(Inner { kind, message: message.into(), source: None }))
    }

    /// An error that another one caused.
    pub fn caused_by(
        kind: ErrorKind,
        message: impl Into<String>,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Error {
        Error(Arc::new(Inner { kind, message: message.into(), source: Some(source.into()) }))
    }

    /// The structured kind.
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// True iff memory, or the budget set for it, ran out.
    pub fn is_out_of_memory(&self) -> bool {
        self.0.kind == ErrorKind::OutOfMemory
    }

    /// True iff the device is gone; a new one can be made.
    pub fn is_device_lost(&self) -> bool {
        self.0.kind == ErrorKind::DeviceLost
    }

    /// True iff no suitable device was found.
    pub fn is_no_device(&self) -> bool {
        self.0.kind == ErrorKind::NoDevice
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.message)?;
        match &self.0.source {
            Some(source) => write!(f, ": {source}"),
            None => Ok(()),
        }
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {self}", self.0.kind)
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.0.source.as_deref().map(|e| e as _)
    }
}
