//! Trains a small convolutional network on handwritten digits, with everything a real run has: a held-out test
//! set, warm-up and cosine decay, progress, a plot, and a saved model that is loaded again.
//!
//! `cargo run --release --example mnist -- --help`

mod args;
mod model;

use std::process::ExitCode;

use args::Args;
use clap::Parser;
use kiln::data::Images;
use kiln::prelude::*;
use kiln::{Error, ErrorKind, Result};
use model::Cnn;

fn main() -> ExitCode {
    match run(&Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &Args) -> Result<()> {
    let out = args.out_dir()?;
    let device = args.device()?;
    let (train, test) = args.data()?;
    let [_, _, height, width] = train.dims();
    println!("{} images to train, {} to test, on {device}", train.len(), test.len());
    let (mean, std) = train.mean_std();
    let batches = |set: &Images| set.batches(args.batch_size).normalised(mean, std);
    let (train, test) = (batches(&train).shuffled(args.seed.into()), batches(&test));

    manual_seed(args.seed);
    let mut model = Cnn::new([height, width], &device);
    let n_steps = args.epochs() * train.len() as u64;
    let schedule = Schedule::cosine(args.lr, n_steps).warmup(n_steps / 20);
    let mut opt = AdamW::new(schedule).build(&model);

    let mut history = History::new();
    for epoch in 0..args.epochs() {
        let label = format!("epoch {}/{}", epoch + 1, args.epochs());
        let mut progress = Progress::new(&label, train.len());
        model.train(true);
        for batch in train.epoch(epoch).on(&device) {
            let batch = batch?;
            let logits = model.forward(&batch.x);
            let loss = logits.cross_entropy(&batch.y);
            let n_right = logits.argmax(-1).eq(&batch.y).count();
            let grads = loss.backward(&model);
            opt.step(&mut model, grads)?;
            let (loss, accuracy) = (loss.item()?, n_right.item()? / batch.n as f64);
            history.push("train loss", opt.n_steps() as f64, loss);
            progress.step(batch.n, &[("loss", loss), ("accuracy", accuracy)]);
        }
        progress.finish();
        let (loss, _) = evaluate(&mut model, &test, &device)?;
        history.push("test loss", opt.n_steps() as f64, loss);
    }

    let (_, confusion) = evaluate(&mut model, &test, &device)?;
    println!("{confusion}");
    let (plot, file) = (out.join("loss.svg"), out.join("digits.safetensors"));
    history.plot(&plot, "Loss of the digits")?;
    model.save(&file)?;

    // What was written is what was trained.
    let mut loaded = Cnn::new([height, width], &device);
    loaded.load(&file)?;
    let (_, again) = evaluate(&mut loaded, &test, &device)?;
    if again != confusion {
        let message = format!("{}: loaded again, it predicts otherwise", file.display());
        return Err(Error::new(ErrorKind::Data, message));
    }
    println!("wrote {} and {}; loaded again, it predicts the same", plot.display(), file.display());
    println!("test accuracy {:.1} %", 100.0 * confusion.accuracy());
    Ok(())
}

/// Mean loss over a set, and what was taken for what.
fn evaluate(model: &mut Cnn, set: &kiln::data::Batches, device: &Device) -> Result<(f64, ConfusionMatrix)> {
    model.train(false);
    let mut confusion = ConfusionMatrix::new(model::N_CLASSES);
    let (mut sum, mut n) = (0.0, 0);
    for batch in set.epoch(0).on(device) {
        let batch = batch?;
        let logits = model.forward(&batch.x);
        let (loss, predicted) = (logits.cross_entropy(&batch.y), logits.argmax(-1));
        device.eval()?;
        sum += loss.item()? * batch.n as f64;
        n += batch.n;
        confusion.extend(&batch.y.to_vec()?, &predicted.to_vec()?);
    }
    Ok((sum / n as f64, confusion))
}
