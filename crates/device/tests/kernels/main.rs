//! Kernels on the device equal the oracle, in every schedule.
//!
//! One binary, so that all tests share a device. Without an adapter they say `skipped: no adapter`,
//! and fail if `KILN_REQUIRE_GPU` is set.

mod attention;
mod attention_oracle;
mod dots;
mod golden;
mod groups;
mod harness;
mod loops;
mod matrices;
mod ops;
mod oracle;
mod rows;
mod scans;
mod scatters;
mod sorts;
mod stand_in;
mod strips;
mod validate;
mod windows;
