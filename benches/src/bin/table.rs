//! The benchmark table: one JSON object a row, with the names and units of the PyTorch peer.

#![forbid(unsafe_code)]

use std::process::ExitCode;

use clap::Parser;
use kiln::Result;
use kiln_benches::failure::{caught, listen};
use kiln_benches::line::{Failure, Line, print};
use kiln_benches::place::{Kind, Place};
use kiln_benches::profile::Profile;
use kiln_benches::row::{Make, Mode};
use kiln_benches::rows::{LIMITS, ROWS};
use kiln_benches::rungs::LADDER;
use kiln_benches::zoo::MODELS;
use kiln_benches::{Row, timing};
use regex_lite::Regex;

/// Times Kiln's workloads, one JSON object a line.
#[derive(Parser)]
struct Args {
    /// Where to compute: `cpu`, `gpu`, or `gpu:N` for the N-th adapter
    #[arg(long, default_value = "cpu")]
    device: Kind,
    /// Only rows whose name matches
    #[arg(long, value_name = "REGEX", default_value = "")]
    only: Regex,
    /// How long to measure each row
    #[arg(long, default_value_t = 3.0)]
    seconds: f64,
    /// Steps that are recorded once, in rows that have a model
    #[arg(long)]
    jit: bool,
    /// Times each kernel on the GPU's clock, in steps of their own after the row was timed without it
    #[arg(long)]
    profile: bool,
    /// Prints the names of the rows; with `--jit`, of those that have a model
    #[arg(long)]
    list: bool,
    /// Prints the adapters, one a line
    #[arg(long)]
    adapters: bool,
}

fn main() -> ExitCode {
    let args = Args::parse();
    if args.adapters {
        for (n, adapter) in kiln_device::adapters().iter().enumerate() {
            let matrices = adapter.matrix.map_or(String::new(), |m| format!("  matrices of {0} x {0}", m.size));
            println!(
                "gpu:{n}  {}  {:?}  {}  {}{matrices}",
                adapter.name, adapter.kind, adapter.backend, adapter.driver
            );
        }
        return ExitCode::SUCCESS;
    }
    let rows = ROWS.iter().filter(|row| args.only.is_match(row.name));
    // The zoo would make the table long, limits and ladders are no workloads: they run only for whoever names them.
    let named = |prefix: &str| args.only.as_str().contains(prefix);
    let models = MODELS.iter().filter(|row| named("model_") && args.only.is_match(row.name));
    let limits = LIMITS.iter().filter(|row| named("limit_") && args.only.is_match(row.name));
    let ladder = LADDER.iter().filter(|row| named("ladder_") && args.only.is_match(row.name));
    let mode = if args.jit { Mode::Jit } else { Mode::Implicit };
    if args.list {
        rows.chain(models).filter(|row| row.maker(mode).is_some()).for_each(|row| println!("{}", row.name));
        return ExitCode::SUCCESS;
    }
    listen();
    match caught(|| Places::open(&args)) {
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
        Ok(places) => {
            rows.chain(models).chain(limits).chain(ladder).for_each(|row| run(&places, (row, mode), &args));
            ExitCode::SUCCESS
        }
    }
}

/// The backend to time on, and on a GPU one that times kernels if that was asked for.
struct Places {
    timed: Place,
    profiled: Option<Place>,
}

impl Places {
    fn open(args: &Args) -> Result<Places> {
        let profiled = (args.profile && args.device != Kind::Cpu).then(|| Place::open(args.device, true));
        Ok(Places { timed: Place::open(args.device, false)?, profiled: profiled.transpose()? })
    }
}

fn run(places: &Places, (row, mode): (&Row, Mode), args: &Args) {
    let Some(make) = row.maker(mode) else {
        return print(&Failure::new((row, mode), args.device, "has no model to jit".into()));
    };
    match caught(|| line(places, (row, mode), make, args.seconds)) {
        Ok(line) => print(&line),
        Err(error) => print(&Failure::new((row, mode), args.device, error)),
    }
}

fn line(places: &Places, (row, mode): (&Row, Mode), make: Make, seconds: f64) -> Result<Line> {
    let (timing, mut case) = timing::measure(&places.timed, make, seconds)?;
    // The tensors make room for those of the profiled run.
    case.step = Box::new(|| Ok(()));
    let profile = places.profiled.as_ref().map(|place| Profile::take(place, make, seconds)).transpose()?.flatten();
    if let Some(profile) = &profile {
        eprintln!("{}\n{profile}", row.name);
    }
    Ok(Line::new((row, mode), places.timed.kind(), &case, &timing, profile.as_ref()))
}
