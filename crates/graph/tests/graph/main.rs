//! What the crate promises, on the CPU backend.

mod bounds;
mod checkpoint;
mod common;
mod errors;
mod fusion;
mod generate;
mod gradients;
mod limited;
mod liveness;
mod nan;
mod programs;
mod recognised;
mod running;
mod sorting;
mod stream;
mod threads;
