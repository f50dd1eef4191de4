//! Kiln on the host: kernels run as straight-line programs over cache-sized tiles.
//!
//! Reading order: [`CpuBackend`], then `loops` (how an index space becomes tiles and tasks), `lower`
//! (how a body becomes a program over registers), `exec` (its interpreter), `site` (addresses),
//! `point`, `fused`, `cast`, `reduce` and `math` (the vector kernels), `dot` (contractions), `attention`, `scan`, `sort`.

#![deny(unsafe_op_in_unsafe_fn)]

mod adam;
mod ahead;
mod attention;
mod backend;
mod block;
mod cast;
mod columns;
mod crew;
mod dot;
mod exe;
mod exec;
mod fused;
mod heads;
mod lanes;
mod loops;
mod lower;
mod math;
mod memory;
mod order;
mod pairs;
mod panel;
mod parts;
mod point;
mod program;
mod reduce;
mod rows;
mod scan;
mod scatter;
mod simd;
mod site;
mod sort;
mod space;
mod split;
mod spread;
mod table;
mod taps;
mod task;
mod threads;
mod tiling;
mod tree;
mod turn;
mod turned;
mod walks;
mod ways;

pub use backend::CpuBackend;
