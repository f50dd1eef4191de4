//! The benchmark table: Kiln's workloads, each the same work as the PyTorch peer's row of that name.
//!
//! Stands outside the picture and uses the facade as a user would. The one hard idea is what a row measures: a
//! [`Case`] is ready before the clock starts, every value that a step claims to compute is held when the step is
//! submitted, and the device is done before the clock stops.
//!
//! Reading order: `row` (what a row is), `rows` (the list), `memory`, `arithmetic`, `models`, `training`,
//! `inference`, `limits` (what the machine can do), then `place` and `counted` (where rows run), `timing`, `line`,
//! `failure`, `profile`. Apart from all that, `zoo`: training steps of many well-known models; `rungs`: the same work in
//! many sizes; and `ladder`: slower ancestors of two kernels.

#![forbid(unsafe_code)]

pub mod arithmetic;
pub mod counted;
pub mod failure;
pub mod inference;
pub mod ladder;
pub mod limits;
pub mod line;
pub mod memory;
pub mod models;
pub mod place;
pub mod profile;
pub mod row;
pub mod rows;
pub mod rungs;
pub mod timing;
pub mod training;
pub mod zoo;

pub use row::{Case, Row};
