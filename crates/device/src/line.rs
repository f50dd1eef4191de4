//! The line of commands before a device: what is submitted at once, what waits for others, and for whom the host waits.
//!
//! A submission costs the host 12 µs, and the device a pause. The hard idea is that kernels may wait in an open pass while
//! the device is busy anyway and more of them come in quick succession; whoever needs what they do submits them first. So
//! nothing is late that anybody could see, and a loop of short steps is one pass for several of them.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use kiln_ir::{Error, ErrorKind, Result};

use crate::gpu::lock;
use crate::quirks::Quirk;

/// Submissions that may be under way however long they take: one runs, one waits for it.
const LONG_IN_FLIGHT: usize = 2;

/// Those that may be while they are short. Waking up when one is over takes as long as one of these does, so with two
/// the device would idle half of the time.
const SHORT_IN_FLIGHT: usize = 8;

/// How long ago the oldest of short submissions was made at most.
const SHORT: Duration = Duration::from_millis(1);

/// Sequences that wait to be submitted together at most, and how soon one after the other they come.
const MAX_WAITING: usize = 4;
const QUICK: Duration = Duration::from_micros(100);

/// A thread that sleeps is woken some 25 µs late, as long as a small step takes.
const WATCHED: Duration = Duration::from_micros(200);

/// Bytes that are staged at once, and after how many of them a write submits what is there: wgpu stages each piece in
/// memory of its own, which it has again once the submission is over. On llvmpipe 256 MiB take 75 ms so; staged whole, they
/// go through pages that nothing has touched before, in 180.
const PIECE: usize = 4 << 20;
const MAX_STAGED: u64 = 16 << 20;

/// Commands of a device in their order.
pub(crate) struct Line {
    device: wgpu::Device,
    queue: wgpu::Queue,
    /// How long a submission is watched before the thread sleeps until it is over.
    watched: Duration,
    /// The last ticket that is known to be over.
    over: Arc<AtomicU64>,
    state: Mutex<State>,
}

/// The number of commands in the line; those before it are over when it is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct Ticket(u64);

struct State {
    /// What is not submitted yet.
    open: Option<Open>,
    /// Submissions that are not known to be over, oldest first.
    in_flight: VecDeque<Submission>,
    /// The ticket of the last commands, and when they came.
    last: Ticket,
    came: Instant,
    /// Bytes written since the last submission, which is when wgpu frees what it staged them in.
    staged: u64,
}

/// A pass that takes more.
struct Open {
    encoder: wgpu::CommandEncoder,
    pass: wgpu::ComputePass<'static>,
    /// How many sequences it has.
    n: usize,
}

#[derive(Clone)]
struct Submission {
    index: wgpu::SubmissionIndex,
    /// The last of its commands.
    last: Ticket,
    at: Instant,
}

impl Line {
    pub(crate) fn new(device: wgpu::Device, queue: wgpu::Queue) -> Line {
        let steals = Quirk::WatchingSteals.is_of(&device.adapter_info());
        let watched = if steals { Duration::ZERO } else { WATCHED };
        let (in_flight, came) = (VecDeque::new(), Instant::now());
        let state = Mutex::new(State { open: None, in_flight, last: Ticket(0), came, staged: 0 });
        Line { device, queue, watched, over: Arc::default(), state }
    }

    /// Takes a sequence of kernels, which may wait for others.
    pub(crate) fn take(&self, record: impl FnOnce(&mut wgpu::ComputePass)) -> Ticket {
        let mut state = lock(&self.state);
        let quick = state.came.elapsed() < QUICK;
        let n = self.record(&mut state, record);
        if !quick || n >= MAX_WAITING || !self.is_busy(&state) {
            self.flush(&mut state, None);
        }
        state.last
    }

    /// Submits what waits, then the first kernels of a sequence, of which the last follow.
    pub(crate) fn begin(&self, record: impl FnOnce(&mut wgpu::ComputePass)) {
        let mut state = lock(&self.state);
        self.record(&mut state, record);
        self.send(&mut state, None);
    }

    /// Takes the last kernels of a sequence that was begun, and submits them.
    pub(crate) fn end(&self, record: impl FnOnce(&mut wgpu::ComputePass)) -> Ticket {
        let mut state = lock(&self.state);
        self.record(&mut state, record);
        self.flush(&mut state, None);
        state.last
    }

    /// Submits what waits, then these commands.
    pub(crate) fn submit(&self, commands: Option<wgpu::CommandBuffer>) -> Ticket {
        let mut state = lock(&self.state);
        state.last.0 += 1;
        self.flush(&mut state, commands);
        state.last
    }

    /// Adds a sequence to the open pass, and says how many it has.
    fn record(&self, state: &mut State, record: impl FnOnce(&mut wgpu::ComputePass)) -> usize {
        let open = state.open.get_or_insert_with(|| {
            let descriptor = wgpu::CommandEncoderDescriptor { label: Some("replays") };
            let mut encoder = self.device.create_command_encoder(&descriptor);
            let descriptor = wgpu::ComputePassDescriptor { label: Some("replays"), timestamp_writes: None };
            let pass = encoder.begin_compute_pass(&descriptor).forget_lifetime();
            Open { encoder, pass, n: 0 }
        });
        record(&mut open.pass);
        open.n += 1;
        (state.last.0, state.came) = (state.last.0 + 1, Instant::now());
        open.n
    }

    /// Copies bytes to a buffer after all commands so far.
    pub(crate) fn write(&self, buffer: &wgpu::Buffer, at: u64, data: &[u8]) {
        let mut state = lock(&self.state);
        // wgpu writes before all commands of the next submission.
        if state.open.is_some() {
            self.flush(&mut state, None);
        }
        for (piece, at) in data.chunks(PIECE).zip((at..).step_by(PIECE)) {
            self.queue.write_buffer(buffer, at, piece);
            state.staged += piece.len() as u64;
            if state.staged >= MAX_STAGED {
                self.flush(&mut state, None);
            }
        }
    }

    /// Waits until commands are over.
    pub(crate) fn wait(&self, ticket: Ticket) -> Result<()> {
        let mut state = lock(&self.state);
        let is_in = |submission: &Submission| submission.last >= ticket;
        if !state.in_flight.iter().any(is_in) && state.open.is_some() {
            self.flush(&mut state, None);
        }
        let Some(submission) = state.in_flight.iter().find(|s| is_in(s)).cloned() else { return Ok(()) };
        let last = submission.last;
        drop(state);
        self.finish(submission)?;
        lock(&self.state).in_flight.retain(|submission| submission.last > last);
        Ok(())
    }

    /// Submits what waits and then these commands, after waiting until few enough submissions are under way.
    fn send(&self, state: &mut State, commands: Option<wgpu::CommandBuffer>) -> wgpu::SubmissionIndex {
        make_room(
            &mut state.in_flight,
            |submission| submission.at.elapsed(),
            |oldest| {
                // A failure to wait is a lost device, which the next check reports.
                let _ = self.finish(oldest);
            },
        );
        state.staged = 0;
        let open = state.open.take().map(|Open { encoder, pass, .. }| {
            drop(pass);
            encoder.finish()
        });
        self.queue.submit(open.into_iter().chain(commands))
    }

    /// As [`Line::send`], of what is waited for by its ticket.
    fn flush(&self, state: &mut State, commands: Option<wgpu::CommandBuffer>) {
        let index = self.send(state, commands);
        let (over, last) = (self.over.clone(), state.last);
        self.queue.on_submitted_work_done(move || {
            over.fetch_max(last.0, Ordering::AcqRel);
        });
        state.in_flight.push_back(Submission { index, last, at: Instant::now() });
    }

    fn is_busy(&self, state: &State) -> bool {
        state.in_flight.back().is_some_and(|submission| !self.is_over(submission.last))
    }

    /// Asks wgpu what is over by now. A wait of no time would tell as well, but for [`Quirk::ShortWaitsPanic`].
    fn is_over(&self, ticket: Ticket) -> bool {
        let is_over = || self.over.load(Ordering::Acquire) >= ticket.0;
        is_over() || (self.poll(wgpu::PollType::Poll).is_ok() && is_over())
    }

    /// Waits until a submission is over.
    fn finish(&self, submission: Submission) -> Result<()> {
        let begun = Instant::now();
        while begun.elapsed() < self.watched {
            if self.is_over(submission.last) {
                return Ok(());
            }
            std::hint::spin_loop();
        }
        let wait = wgpu::PollType::Wait { submission_index: Some(submission.index), timeout: None };
        self.poll(wait)
    }

    /// Lets wgpu see what is over by now, and call back whoever waits for it.
    pub(crate) fn poll(&self, how: wgpu::PollType) -> Result<()> {
        const FAILED: &str = "waiting for the device failed";
        // `Quirk::LossPanics`.
        match catch_unwind(AssertUnwindSafe(|| self.device.poll(how))) {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) => Err(Error::caused_by(ErrorKind::DeviceLost, FAILED, error)),
            Err(_) => Err(Error::new(ErrorKind::DeviceLost, FAILED)),
        }
    }
}

/// Finishes the oldest submissions until one more may be under way.
fn make_room<T>(in_flight: &mut VecDeque<T>, age: impl Fn(&T) -> Duration, mut finish: impl FnMut(T)) {
    let many = |queue: &VecDeque<T>| match queue.front() {
        Some(oldest) if age(oldest) < SHORT => queue.len() >= SHORT_IN_FLIGHT,
        _ => queue.len() >= LONG_IN_FLIGHT,
    };
    while many(in_flight) {
        finish(in_flight.pop_front().expect("the queue is not empty"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How many are under way at most, and which were waited for, where submissions of such ages go before one more.
    fn waited(ages_us: &[u64]) -> (usize, Vec<usize>) {
        let (mut in_flight, mut over) = (VecDeque::new(), Vec::new());
        let mut most = 0;
        for n in 0..=ages_us.len() {
            make_room(&mut in_flight, |&n: &usize| Duration::from_micros(ages_us[n]), |n| over.push(n));
            in_flight.push_back(n);
            most = most.max(in_flight.len());
        }
        (most, over)
    }

    /// llvmpipe computes while it is submitted to, so that no software adapter shows this.
    #[test]
    fn the_host_waits_for_the_oldest_while_enough_is_under_way() {
        assert_eq!(waited(&[5000; 5]), (2, vec![0, 1, 2, 3]));
        assert_eq!(waited(&[10; 10]), (8, vec![0, 1, 2]));
        assert_eq!(waited(&[5000, 10, 10, 10]), (4, vec![0]));
        assert_eq!(waited(&[]), (1, vec![]));
    }
}
