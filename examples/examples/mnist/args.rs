//! What can be said on the command line.

use std::path::{Path, PathBuf};

use clap::{Parser, ValueEnum};
use kiln::data::{self, Images};
use kiln::prelude::*;
use kiln::{Error, ErrorKind, Result};

/// Trains a small convolutional network on handwritten digits: the 1,797 embedded ones, or MNIST's.
#[derive(Parser)]
pub(crate) struct Args {
    /// Where to compute; without it the first real GPU, else the CPU.
    #[arg(long, value_enum)]
    device: Option<Place>,
    /// A folder with MNIST's IDX files, plain or gzipped; without it the embedded digits.
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Passes over the training images; without it 20 for the embedded digits, 3 for others.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    epochs: Option<u64>,
    /// Images a step.
    #[arg(long, default_value_t = 64, value_name = "N", value_parser = positive)]
    pub(crate) batch_size: usize,
    /// Greatest learning rate, after the warm-up.
    #[arg(long, default_value_t = 2e-3, value_parser = rate)]
    pub(crate) lr: f64,
    /// Seed of the split, the order, the parameters and the dropout.
    #[arg(long, default_value_t = 0)]
    pub(crate) seed: u32,
    /// Where `loss.svg` and `digits.safetensors` go.
    #[arg(long, default_value = ".", value_name = "DIR")]
    out: PathBuf,
}

#[derive(Clone, Copy, ValueEnum)]
enum Place {
    Cpu,
    Gpu,
}

fn positive(text: &str) -> Result<usize, String> {
    text.parse().ok().filter(|&n| n > 0).ok_or_else(|| "expected a whole number above zero".into())
}

fn rate(text: &str) -> Result<f64, String> {
    let rate = text.parse().ok().filter(|lr: &f64| lr.is_finite() && *lr > 0.0);
    rate.ok_or_else(|| "expected a number above zero".into())
}

impl Args {
    pub(crate) fn device(&self) -> Result<Device> {
        match self.device {
            None => Device::best(),
            Some(Place::Cpu) => Ok(Device::cpu()),
            Some(Place::Gpu) => Device::gpu(0),
        }
    }

    /// The images to train on and those to test on.
    pub(crate) fn data(&self) -> Result<(Images, Images)> {
        match &self.data {
            None => Ok(data::digits(self.seed.into())),
            Some(dir) => data::mnist(dir),
        }
    }

    pub(crate) fn epochs(&self) -> u64 {
        self.epochs.unwrap_or(if self.data.is_none() { 20 } else { 3 })
    }

    /// The output folder, which must exist and be writable before hours are spent.
    pub(crate) fn out_dir(&self) -> Result<&Path> {
        let fail = |why| Error::caused_by(ErrorKind::Io, format!("{}: cannot write into it", self.out.display()), why);
        let probe = self.out.join(".kiln-write-probe");
        std::fs::write(&probe, []).and_then(|()| std::fs::remove_file(&probe)).map_err(fail)?;
        Ok(&self.out)
    }
}
