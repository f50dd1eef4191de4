//! The same programs on every device: a GPU where there is one, the CPU on any number of threads.
//!
//! Without an adapter the GPU's half says `skipped: no adapter`, and fails if `KILN_REQUIRE_GPU` is set.

#[path = "../../../graph/tests/graph/bounds.rs"]
mod bounds;
mod common;
mod edges;
mod elsewhere;
mod files;
#[path = "../../../graph/tests/graph/generate.rs"]
mod generate;
mod inspect;
mod losing;
mod memory;
#[path = "../../../graph/tests/graph/nan.rs"]
mod nan;
mod programs;
#[path = "../../../graph/tests/graph/running.rs"]
mod running;
mod sharing;
#[path = "../../../graph/tests/graph/sorting.rs"]
mod sorting;
#[path = "../../../graph/tests/graph/stream.rs"]
mod stream;
mod training;
#[path = "../../../device/tests/kernels/validate.rs"]
mod validate;
mod windows;
