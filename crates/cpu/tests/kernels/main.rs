//! Kernels on the host equal their definitions, on any number of threads.

mod attention;
mod blocks;
mod columns;
mod common;
mod dots;
mod groups;
mod loops;
mod pools;
mod scans;
mod sorts;
mod taps;
mod tiles;
mod updates;
mod variances;
mod windows;
