//! What a tensor can do: methods that record nodes, or compose what other methods record.

mod attention;
mod compose;
mod conv;
mod indexed;
mod matmul;
mod movement;
mod pointwise;
mod random;
mod reduce;
mod scan;
mod sort;

pub use conv::{Conv2dOptions, Pool2dOptions};
pub(crate) use movement::axis_of;
pub use pointwise::Operand;
pub(crate) use pointwise::map;
pub use random::{generator_state, manual_seed, set_generator_state};
