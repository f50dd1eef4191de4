//! Traces: a step recorded once, and run again without recording.
//!
//! A step is a function of tensors that it replaces (its *state*), of tensors that it is given, and of the host's
//! clocks. Recording it runs nothing; [`Trace::finish`] captures what became of the state and what else is wanted as
//! one program, and notes where each of its arguments and numbers comes from. A [`Replay`] then takes the arguments
//! of the day. State is overwritten only where nobody else holds it, and put in place only after the program was
//! submitted.

use std::cell::RefCell;
use std::panic::Location;
use std::sync::Arc;

use kiln_ir::{Buffer, DType, Error, ErrorKind, Result};

use crate::cache::Ready;
use crate::capture::{Captured, capture};
use crate::clock::{Clock, Numbers, Origin};
use crate::node::{Node, Source};
use crate::owed::pay;
use crate::plan::Output;
use crate::{Device, Tensor, exec, generator_state, set_generator_state};

/// What a recording must know at its end.
struct Log {
    /// Each clock that ticked, and where it stood before.
    clocks: Vec<(Clock, u64)>,
}

thread_local! {
    static LOG: RefCell<Option<Log>> = const { RefCell::new(None) };
}

/// True while this thread records a step.
pub(crate) fn is_recording() -> bool {
    LOG.with_borrow(Option::is_some)
}

/// A clock is about to tick.
pub(crate) fn note(clock: &Clock) {
    LOG.with_borrow_mut(|log| {
        if let Some(log) = log
            && !log.clocks.iter().any(|(known, _)| known.is(clock))
        {
            log.clocks.push((clock.clone(), clock.now()));
        }
    });
}

/// A step that is being recorded: until it is finished or dropped, [`Device::eval`] on this thread does nothing, and
/// reading a value that is not computed panics.
pub struct Trace {
    /// The buffers of the state, by their numbers.
    state: Vec<u64>,
    /// Each with the number of its buffer; none is a number of the host.
    inputs: Vec<(Tensor, Option<u64>)>,
    generator: (u32, u32),
}

impl Drop for Trace {
    fn drop(&mut self) {
        LOG.set(None);
    }
}

impl Trace {
    /// Begins to record a step that replaces these tensors and is given those.
    ///
    /// # Errors
    /// If one of them cannot be computed.
    ///
    /// # Panics
    /// If this thread is recording already.
    #[track_caller]
    pub fn begin(state: &[&Tensor], inputs: &[&Tensor]) -> Result<Trace> {
        assert!(!is_recording(), "jit: a step is recorded within another one");
        let state = state.iter().map(|t| Ok(t.computed()?.id())).collect::<Result<_>>()?;
        let input =
            |t: &&Tensor| -> Result<(Tensor, Option<u64>)> { Ok(((*t).clone(), buffer_of(t)?.map(|b| b.id()))) };
        let inputs = inputs.iter().map(input).collect::<Result<_>>()?;
        LOG.set(Some(Log { clocks: Vec::new() }));
        Ok(Trace { state, inputs, generator: generator_state() })
    }

    /// Computes what became of the state and what else the step gives, and makes of it what can be run again.
    ///
    /// # Errors
    /// If the program cannot be run; the state is then as after a failed [`Device::eval`].
    #[track_caller]
    pub fn finish(self, state: &[&Tensor], outputs: &[&Tensor]) -> Result<Replay> {
        let clocks = LOG.take().map_or(Vec::new(), |log| log.clocks);
        let ticks = clocks.into_iter().map(|(clock, before)| {
            let by = clock.now() - before;
            Ticks { clock, before, by }
        });
        let (ticks, draws) = (ticks.collect::<Vec<_>>(), generator_state().1.wrapping_sub(self.generator.1));
        let cut = Location::caller();
        let results: Vec<Arc<Node>> = state.iter().chain(outputs).map(|t| t.node().clone()).collect();
        let targets: Vec<Arc<Node>> = results.iter().filter(|node| node.is_pending()).cloned().collect();
        let Some(first) = targets.first() else {
            return Err(Error::new(ErrorKind::Unsupported, "jit: the step computes nothing"));
        };
        let device = first.device.clone();
        let turn = device.turn_alone();
        pay(&device, &turn);
        let mut captured = capture(&device, &targets, &turn)?;
        let args = self.arguments(&mut captured);
        let scalars = self.numbers(&captured, &ticks);
        let ready = exec::ready(&device, &captured)?;
        let result_of = |node: &Arc<Node>| captured.outputs().position(|o| o.id == node.id);
        let places: Vec<Option<usize>> = results.iter().map(result_of).collect();
        let first = |result: usize| places.iter().position(|place| *place == Some(result)).expect("it is among them");
        let place = |result: usize| Place { result, first: first(result) };
        let places = places.iter().map(|result| result.map(place)).collect();
        let metas = captured.outputs().map(|o| (o.shape, o.dtype)).collect();
        exec::run_captured(&device, captured, &ready, Some(cut), &turn)?;
        drop(turn);
        let inputs = self.inputs.iter().map(|(t, _)| (*t.shape(), t.dtype())).collect();
        let ids: Vec<Option<u64>> = self.inputs.iter().map(|i| i.1).collect();
        let shared = shared(&ids, &self.state);
        let buffers = Vec::new();
        Ok(Replay { device, ready, args, scalars, places, metas, ticks, draws, inputs, shared, buffers, cut })
    }

    /// Where each argument comes from. What is neither state nor input is kept, and may not be overwritten.
    fn arguments(&self, captured: &mut Captured) -> Vec<Argument> {
        let leaves: Vec<Arc<Node>> = captured.leaf_nodes().cloned().collect();
        let mut args = Vec::with_capacity(leaves.len());
        for (n, leaf) in leaves.into_iter().enumerate() {
            let buffer = captured.filling.args[n].id();
            let state = self.state.iter().position(|s| *s == buffer);
            let input = || self.inputs.iter().position(|i| i.1 == Some(buffer));
            let arg = match (state, input()) {
                (Some(n), _) => Argument::State(n),
                (None, Some(n)) => Argument::Input(n),
                (None, None) => Argument::Fixed(Tensor::from_node(leaf)),
            };
            captured.filling.donatable[n] &= state.is_some();
            args.push(arg);
        }
        args
    }

    /// Where each number comes from.
    fn numbers(&self, captured: &Captured, ticks: &[Ticks]) -> Vec<Number> {
        let mut numbers: Vec<Number> = captured.filling.scalars.iter().map(|&word| Number::Fixed(word)).collect();
        for (slot, node) in captured.scalar_nodes() {
            let input = self.inputs.iter().position(|(t, _)| t.node().id == node.id);
            let Source::Scalar { origin, .. } = &node.source else { continue };
            numbers[slot as usize] = match (input, origin.as_deref()) {
                (Some(n), _) => Number::Input(n),
                (None, None) => continue,
                (None, Some(Origin::Seed)) => Number::Seed,
                (None, Some(Origin::Draw(draw))) => Number::Draw(draw.wrapping_sub(self.generator.1)),
                (None, Some(Origin::Clock { clock, at, numbers, index, slot })) => {
                    let before = ticks.iter().find(|t| t.clock.is(clock)).map_or(*at, |t| t.before);
                    let (clock, numbers) = (clock.clone(), numbers.clone());
                    Number::Clock { clock, later: at - before, numbers, index: *index, slot: *slot }
                }
            };
        }
        numbers
    }
}

/// How far a step advances a clock.
struct Ticks {
    clock: Clock,
    before: u64,
    by: u64,
}

enum Argument {
    State(usize),
    Input(usize),
    Fixed(Tensor),
}

enum Number {
    Fixed(u32),
    Input(usize),
    Seed,
    /// So many draws after the first.
    Draw(u32),
    /// A clock's numbers so many ticks later than now.
    Clock {
        clock: Clock,
        later: u64,
        numbers: Numbers,
        index: usize,
        slot: DType,
    },
}

/// What a tensor of the state or an output becomes.
struct Place {
    result: usize,
    /// The first of these tensors that is the same result: they share a value.
    first: usize,
}

/// A step that can be run again.
pub struct Replay {
    device: Device,
    ready: Arc<Ready>,
    args: Vec<Argument>,
    scalars: Vec<Number>,
    /// For each tensor of the state and then each output, the result of the program that it is, if it is one.
    places: Vec<Option<Place>>,
    metas: Vec<(kiln_ir::Shape, DType)>,
    ticks: Vec<Ticks>,
    draws: u32,
    inputs: Vec<(kiln_ir::Shape, DType)>,
    /// Which inputs were one tensor, and which one with the state.
    shared: Vec<Option<usize>>,
    /// Kept for their memory.
    buffers: Vec<Buffer>,
    cut: &'static Location<'static>,
}

impl Replay {
    /// Runs the step: state is replaced, and outputs are set. `false` if it was not run, because the step writes over
    /// a tensor of the state that something else holds too, or because other inputs are one tensor than when it was
    /// recorded; then nothing has changed.
    ///
    /// # Errors
    /// If memory is short; then nothing has changed. If the device fails; then the state that was being overwritten
    /// holds the error.
    ///
    /// # Panics
    /// If the tensors are not of the dims and dtypes that were recorded.
    pub fn run(&mut self, state: &mut [&mut Tensor], inputs: &[&Tensor], outputs: &mut [&mut Tensor]) -> Result<bool> {
        for (t, (shape, dtype)) in inputs.iter().zip(&self.inputs) {
            assert!(t.shape() == shape && t.dtype() == *dtype, "jit: an input of other dims than recorded");
        }
        let plan = &self.ready.plan;
        plan.within(self.device.budget(), self.device.caps())?;
        let overwritten = |leaf: u32| match self.args[leaf as usize] {
            Argument::State(n) => n,
            Argument::Input(_) | Argument::Fixed(_) => unreachable!("only state is overwritten"),
        };
        let states = state.iter().map(|t| t.computed()).collect::<Result<Vec<Buffer>>>()?;
        let given = inputs.iter().map(|t| buffer_of(t)).collect::<Result<Vec<Option<Buffer>>>>()?;
        let ids = given.iter().map(|b| b.as_ref().map(Buffer::id)).collect::<Vec<_>>();
        if shared(&ids, &states.iter().map(Buffer::id).collect::<Vec<_>>()) != self.shared {
            return Ok(false);
        }
        self.buffers.clear();
        for arg in &self.args {
            self.buffers.push(match arg {
                Argument::State(n) => states[*n].clone(),
                Argument::Input(n) => match &given[*n] {
                    Some(buffer) => buffer.clone(),
                    None => panic!("jit: an input was in memory when the step was recorded, and is a number now"),
                },
                Argument::Fixed(t) => t.computed()?,
            });
        }
        // Who else reads the state is asked when nobody can begin to.
        let device = self.device.clone();
        let _turn = if plan.overwrites() { device.turn_alone() } else { device.turn() };
        let alone = |output: &Output| match output {
            Output::Donated(leaf) => is_alone(state[overwritten(*leaf)]),
            Output::Fresh(_) => true,
        };
        if !plan.outputs.iter().all(alone) {
            self.buffers.clear();
            return Ok(false);
        }
        exec::add_results(&self.device, plan, &mut self.buffers)?;
        let scalars = self.words(inputs);
        if let Err(error) = self.device.backend().replay(&self.ready.tape, &self.buffers, &scalars) {
            for output in &plan.outputs {
                if let Output::Donated(leaf) = output {
                    state[overwritten(*leaf)].node().fail(&error);
                }
            }
            return Err(error);
        }
        let n_state = state.len();
        for (n, place) in self.places.iter().enumerate() {
            let Some(Place { result, first }) = *place else { continue };
            let buffer = &self.buffers[self.args.len() + result];
            // A second name is another handle: a later run must not take either for the only one.
            let same = (first < n)
                .then(|| if first < n_state { state[first].clone() } else { outputs[first - n_state].clone() });
            let tensor = if n < n_state { &mut *state[n] } else { &mut *outputs[n - n_state] };
            if let Some(same) = same {
                *tensor = same;
                continue;
            }
            // Written in place: the tensor has its next value already.
            let in_place =
                n < n_state && matches!(plan.outputs[result], Output::Donated(leaf) if overwritten(leaf) == n);
            if !in_place {
                let leaf = Node::leaf(&self.device, buffer.clone(), self.metas[result], self.cut);
                *tensor = Tensor::first(leaf);
            }
        }
        self.buffers.clear();
        self.ticks.iter().for_each(|t| t.clock.set(t.clock.now() + t.by));
        let (seed, draw) = generator_state();
        set_generator_state((seed, draw.wrapping_add(self.draws)));
        Ok(true)
    }

    /// The words of the scalar slots, as of now.
    fn words(&self, inputs: &[&Tensor]) -> Vec<u32> {
        let (seed, draw) = generator_state();
        // Numbers of one clock and count come one after the other.
        let mut known: Option<(&Numbers, u64, Vec<f64>)> = None;
        let mut words = Vec::with_capacity(self.scalars.len());
        for number in &self.scalars {
            words.push(match number {
                Number::Fixed(word) => *word,
                Number::Input(n) => match &inputs[*n].node().source {
                    Source::Scalar { word, .. } => *word,
                    Source::Leaf | Source::Op(_) => panic!("jit: an input was a number when the step was recorded"),
                },
                Number::Seed => seed,
                Number::Draw(later) => draw.wrapping_add(*later),
                Number::Clock { clock, later, numbers, index, slot } => {
                    let at = clock.now() + later;
                    let same = known.as_ref().is_some_and(|(n, t, _)| Arc::ptr_eq(n, numbers) && *t == at);
                    if !same {
                        known = Some((numbers, at, numbers(at)));
                    }
                    let value = known.as_ref().map_or(0.0, |(_, _, values)| values[*index]);
                    crate::tensor::scalar_word(value, *slot).1
                }
            });
        }
        words
    }
}

/// True iff a tensor is the only name of its value, also for what is not computed yet.
fn is_alone(t: &Tensor) -> bool {
    let node = t.node();
    node.handles() == 1 && Arc::strong_count(node) == 1 && node.uses() == 0
}

/// The buffer of an input, after computing it if need be; `None` for a number of the host.
fn buffer_of(t: &Tensor) -> Result<Option<Buffer>> {
    match t.node().source {
        Source::Scalar { .. } => Ok(None),
        Source::Leaf | Source::Op(_) => t.computed().map(Some),
    }
}

/// For each input, the first input with its buffer, or a tensor of the state with it, numbered on; `None` if it has
/// its buffer to itself.
fn shared(inputs: &[Option<u64>], state: &[u64]) -> Vec<Option<usize>> {
    let first = |(n, id): (usize, &Option<u64>)| {
        let id = (*id)?;
        let among = inputs[..n].iter().position(|other| *other == Some(id));
        among.or_else(|| state.iter().position(|other| *other == id).map(|at| inputs.len() + at))
    };
    inputs.iter().enumerate().map(first).collect()
}
