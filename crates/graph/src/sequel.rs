//! Sequels: the rest of a step that follows from what was recorded before it.
//!
//! A step's backward pass and its update follow from its forward pass. Once a whole step was recorded, a later one whose
//! first part is the same program need not record more than that part: the plan of the whole is known by it, and takes
//! its arguments from the first part, from the tensors that the step replaces (its *state*), and from numbers of the
//! host. Where the rest depended on anything else, it is recorded each time.
//!
//! The hard idea is what must be the same for that: not only the program, but also who holds what it reads, and that
//! nothing it reads could be computed again, since gradients would go on behind it.

use std::panic::Location;
use std::sync::{Arc, Weak};

use kiln_ir::{Buffer, DType, NodeId, Result, Shape};
use rustc_hash::FxHashMap as HashMap;

use crate::cache::Ready;
use crate::capture::Captured;
use crate::exec::{add_results, capture_timed, fire_plan, run_new};
use crate::known::Known;
use crate::node::{Node, Source, Value};
use crate::owed::{Due, Owed};
use crate::record::held;
use crate::tensor::scalar_word;
use crate::turn::Turn;
use crate::{Device, Tensor, trace};

/// First parts that are remembered: batches of other dims, models that are trained in turn.
const KNOWN_MAX: usize = 8;

/// What is known to follow from first parts of steps.
#[derive(Default)]
pub struct Sequel {
    known: Vec<(Key, Option<Rest>)>,
}

/// What became of a step whose first part was recorded.
pub enum Begun {
    /// All of it was submitted.
    Done,
    /// The rest must be recorded from these gradients, and then learned.
    Unknown(Vec<Option<Tensor>>, First),
}

/// The first part of a step, by which its rest is recognised.
pub struct First(Option<Box<(Key, Ids)>>);

/// The first part of a step, as far as the rest follows from it.
struct Key {
    program: Arc<Known>,
    donatable: Vec<bool>,
    checkpoints: Vec<usize>,
    root: Root,
    state: Vec<Place>,
    n_numbers: usize,
}

/// The scalar from which the rest is recorded.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Root {
    entry: NodeId,
    /// True iff others hold it too, and want its value.
    wanted: bool,
}

/// A tensor of the state, as a step finds it.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Place {
    /// Which leaf of the first part it is.
    leaf: Option<u32>,
    /// True iff nothing but this step reads it.
    alone: bool,
    meta: (Shape, DType),
}

/// The recorded nodes of a first part, by their ids.
struct Ids {
    entries: HashMap<u64, NodeId>,
    leaves: HashMap<u64, u32>,
    /// The slots of scalars, and those that say where windows begin.
    slots: HashMap<u64, u32>,
    /// The state before the step, in its order.
    state: Vec<u64>,
    /// What the first part computes.
    outputs: Vec<Weak<Node>>,
}

/// How the whole of a step is run.
struct Rest {
    ready: Arc<Ready>,
    args: Vec<Argument>,
    words: Vec<Word>,
    results: Vec<Target>,
}

/// Where an argument of the whole comes from: a leaf of the first part, or a tensor of the state.
#[derive(Clone, Copy)]
enum Argument {
    First(u32),
    State(usize),
}

/// Where a scalar's word comes from: a slot of the first part, a number of the host, or a literal of the rest.
#[derive(Clone, Copy)]
enum Word {
    First(u32),
    Host(usize, DType),
    Literal(u32),
}

/// What a result is: the value of an entry of the first part, or what a tensor of the state becomes.
#[derive(Clone, Copy)]
enum Target {
    First(NodeId),
    State(usize),
}

impl Sequel {
    /// Submits a step of which everything up to a scalar is recorded, whose gradients are owed, as [`Device::eval`] would
    /// after the rest of it, if that is known; else the rest must be recorded, and given to [`Sequel::learn`]. The rest
    /// must be decided by what is recorded, by the dims and dtypes of the state, and by the numbers.
    ///
    /// # Errors
    /// If the device fails; then all that the step replaces holds the error.
    #[track_caller]
    pub fn run(&mut self, owed: Owed, state: &mut [&mut Tensor], numbers: &[f64]) -> Result<Begun> {
        let turn = owed.device().turn_alone();
        match owed.take(&turn) {
            Some(due) => self.follow(due, state, numbers, &turn),
            None => Ok(Begun::Unknown(owed.grads_in(&turn).to_vec(), First(None))),
        }
    }

    #[track_caller]
    fn follow(&mut self, due: Due, state: &mut [&mut Tensor], numbers: &[f64], turn: &Turn) -> Result<Begun> {
        let (device, node) = (due.of.device().clone(), due.of.node());
        if trace::is_recording() || device.env().check || !node.is_pending() {
            return Ok(Begun::Unknown(due.record(turn), First(None)));
        }
        let mut targets = held(&device, turn);
        if targets.iter().all(|target| target.id != node.id) {
            targets.push(node.clone());
        }
        // An error on the way is met by who records the rest.
        let captured = capture_timed(&device, &targets, turn).ok();
        drop(targets);
        let Some((captured, (places, buffers))) =
            captured.and_then(|c| find(&device, state, &c).map(|found| (c, found)))
        else {
            return Ok(Begun::Unknown(due.record(turn), First(None)));
        };
        // One handle is the step's own.
        let at = Root { entry: captured.entry_of(node), wanted: node.handles() > 1 };
        let known = self.known.iter().find(|(key, _)| key.is_of(&captured, at, &places, numbers.len()));
        let Some((_, rest)) = known else {
            let first = (Key::new(&captured, at, places, numbers.len()), Ids::new(&captured, state));
            captured.leave(&device);
            return Ok(Begun::Unknown(due.record(turn), First(Some(Box::new(first)))));
        };
        match rest.as_ref().and_then(|rest| Some((rest, rest.args(&device, &captured, &buffers)?))) {
            Some((rest, args)) => {
                drop(due.wrt);
                rest.run(due.of, state, captured, args, numbers, Location::caller())?;
                Ok(Begun::Done)
            }
            None => Ok(Begun::Unknown(due.record(turn), First(None))),
        }
    }

    /// Submits what was recorded, as [`Device::eval`] does, and remembers what followed. `state` is what became of it,
    /// and `numbers` are handles on those that [`Sequel::run`] was given, as scalars.
    ///
    /// # Errors
    /// As [`Device::eval`].
    #[track_caller]
    pub fn learn(&mut self, device: &Device, first: First, state: &[&mut Tensor], numbers: Vec<Tensor>) -> Result<()> {
        let Some(first) = first.0 else {
            drop(numbers);
            return device.eval();
        };
        let (key, ids) = *first;
        let numbers: Vec<Slot> = numbers.into_iter().map(|number| slot_of(&number)).collect();
        let turn = device.turn_alone();
        let captured = capture_timed(device, &held(device, &turn), &turn)?;
        if captured.graph().outputs.is_empty() {
            return Ok(());
        }
        let found = Rest::sources(&key, &ids, &captured, state, &numbers);
        // What others have computed meanwhile is missing in this step, but not in the next ones.
        let missing = ids.outputs.iter().filter_map(Weak::upgrade).any(|node| !node.is_pending());
        let ready = run_new(device, captured, Some(Location::caller()), &turn)?;
        if missing {
            return Ok(());
        }
        let rest = found.map(|(args, words, results)| Rest { ready, args, words, results });
        if self.known.len() == KNOWN_MAX {
            self.known.remove(0);
        }
        self.known.push((key, rest));
        Ok(())
    }
}

/// Each tensor of the state as a step finds it, with its buffer; `None` where the rest would not follow.
fn find(device: &Device, state: &[&mut Tensor], captured: &Captured) -> Option<(Vec<Place>, Vec<Buffer>)> {
    if captured.filling.has_history {
        return None;
    }
    let mut leaves: Vec<(u64, u32)> = captured.leaf_nodes().zip(0..).map(|(node, leaf)| (node.id, leaf)).collect();
    leaves.sort_unstable();
    let (mut places, mut buffers) = (Vec::with_capacity(state.len()), Vec::with_capacity(state.len()));
    for tensor in state {
        let node = tensor.node();
        buffers.push(node.settled().filter(|_| node.device == *device)?);
        let leaf = leaves.binary_search_by_key(&node.id, |leaf| leaf.0).ok().map(|n| leaves[n].1);
        let all_end = leaf.map_or(node.uses() == 0, |leaf| captured.filling.ending[leaf as usize]);
        let place = Place { leaf, alone: all_end && node.handles() == 1, meta: (node.shape, node.dtype) };
        places.push(place);
    }
    Some((places, buffers))
}

impl Key {
    fn new(captured: &Captured, root: Root, state: Vec<Place>, n_numbers: usize) -> Key {
        Key {
            program: captured.known.clone(),
            donatable: captured.filling.donatable.clone(),
            checkpoints: captured.checkpoints().collect(),
            root,
            state,
            n_numbers,
        }
    }

    /// True iff the same follows from this first part.
    fn is_of(&self, captured: &Captured, root: Root, state: &[Place], n_numbers: usize) -> bool {
        self.root == root
            && self.n_numbers == n_numbers
            && self.donatable == captured.filling.donatable
            && self.state == state
            && Arc::ptr_eq(&self.program, &captured.known)
            && captured.checkpoints().eq(self.checkpoints.iter().copied())
    }
}

impl Ids {
    fn new(captured: &Captured, state: &[&mut Tensor]) -> Ids {
        let scalars = captured.scalar_nodes().map(|(slot, node)| (node.id, slot));
        Ids {
            entries: captured.nodes().zip(0..).map(|(node, entry)| (node.id, entry)).collect(),
            leaves: captured.leaf_nodes().zip(0..).map(|(node, leaf)| (node.id, leaf)).collect(),
            slots: scalars.chain(captured.windows().map(|(slot, window, _)| (window.id, slot))).collect(),
            state: state.iter().map(|tensor| tensor.node().id).collect(),
            outputs: captured.outputs().map(Arc::downgrade).collect(),
        }
    }
}

impl Rest {
    /// Where all that the whole of a step reads comes from, and what its results are; `None` if it reads more than its
    /// first part, the state and the numbers, or replaces the state by more than results of its own.
    fn sources(
        key: &Key,
        ids: &Ids,
        whole: &Captured,
        state: &[&mut Tensor],
        numbers: &[Slot],
    ) -> Option<(Vec<Argument>, Vec<Word>, Vec<Target>)> {
        let before = |id: u64| ids.state.iter().position(|s| *s == id);
        let shared = |n: usize| ids.state[..n].contains(&ids.state[n]);
        if (0..ids.state.len()).any(shared) {
            return None;
        }
        let mut args = Vec::with_capacity(whole.known.leaves.len());
        for (node, &donated) in whole.leaf_nodes().zip(&whole.filling.donatable) {
            let (leaf, of_state) = (ids.leaves.get(&node.id).copied(), before(node.id));
            let free = of_state.is_some_and(|n| key.state[n].alone) || leaf.is_some_and(|k| key.donatable[k as usize]);
            if donated && !free {
                return None;
            }
            args.push(leaf.map(Argument::First).or(of_state.map(Argument::State))?);
        }
        let host = |node: &Node| {
            let at = numbers.iter().position(|number| number.node == node.id)?;
            Some(Word::Host(at, numbers[at].dtype))
        };
        let mut words: Vec<Option<Word>> =
            whole.filling.scalars.iter().map(|&word| Some(Word::Literal(word))).collect();
        for (slot, node) in whole.scalar_nodes() {
            let known = ids.slots.get(&node.id).copied().map(Word::First).or_else(|| host(node));
            words[slot as usize] = known.or(words[slot as usize]);
        }
        for (slot, window, leaf) in whole.windows() {
            // Where a window into the state begins would be part of its gradient.
            let begins = ids.slots.get(&window.id).filter(|_| before(leaf.id).is_none());
            words[slot as usize] = begins.copied().map(Word::First);
        }
        let of_state = |id: u64| state.iter().position(|tensor| tensor.node().id == id);
        let result = |node: &Arc<Node>| match (ids.entries.get(&node.id), of_state(node.id)) {
            (Some(&entry), None) => Some(Target::First(entry)),
            (None, Some(n)) => Some(Target::State(n)),
            (Some(_), Some(_)) | (None, None) => None,
        };
        let results: Vec<Target> = whole.outputs().map(result).collect::<Option<_>>()?;
        let replaced = results.iter().filter(|result| matches!(result, Target::State(_))).count();
        let changed = state.iter().zip(&ids.state).filter(|(tensor, before)| tensor.node().id != **before).count();
        (replaced == changed).then_some((args, words.into_iter().collect::<Option<_>>()?, results))
    }

    /// The arguments of the whole and room for its results; `None` if memory is short.
    fn args(&self, device: &Device, captured: &Captured, state: &[Buffer]) -> Option<Vec<Buffer>> {
        let plan = &self.ready.plan;
        plan.within(device.budget(), device.caps()).ok()?;
        let mut args = Vec::with_capacity(self.args.len() + plan.outputs.len());
        args.extend(self.args.iter().map(|arg| match *arg {
            Argument::First(leaf) => captured.filling.args[leaf as usize].clone(),
            Argument::State(n) => state[n].clone(),
        }));
        add_results(device, plan, &mut args).ok()?;
        Some(args)
    }

    fn run(
        &self,
        root: Tensor,
        state: &mut [&mut Tensor],
        captured: Captured,
        mut args: Vec<Buffer>,
        numbers: &[f64],
        cut: &'static Location<'static>,
    ) -> Result<()> {
        let device = root.device().clone();
        let word = |word: &Word| match *word {
            Word::First(slot) => captured.filling.scalars[slot as usize],
            Word::Host(n, dtype) => scalar_word(numbers[n], dtype).1,
            Word::Literal(word) => word,
        };
        let words: Vec<u32> = self.words.iter().map(word).collect();
        let fired = fire_plan(&device, &self.ready, &args, &words);
        device.plans().ran(&self.ready);
        let (mut first, mut replaced) = (Vec::new(), Vec::new());
        for (target, buffer) in self.results.iter().zip(args.drain(self.args.len()..)) {
            match *target {
                Target::First(entry) => first.push((captured.node(entry).clone(), buffer)),
                Target::State(n) => replaced.push((n, buffer)),
            }
        }
        captured.leave(&device);
        drop(args);
        for (node, buffer) in first {
            match &fired {
                Ok(()) => node.computed(buffer, Some(cut)),
                Err(error) => node.fail(error),
            }
        }
        // With it goes the first part, and with that its claims on the state.
        drop(root);
        for (n, buffer) in replaced {
            let tensor = &mut *state[n];
            if fired.is_ok() && tensor.node_mut().is_some_and(|node| node.renew(&buffer)) {
                continue;
            }
            let meta = (*tensor.shape(), tensor.dtype());
            let value = fired.as_ref().map_or_else(|error| Value::Failed(error.clone()), |()| Value::Ready(buffer));
            *tensor = Tensor::first(Node::of_value(&device, value, meta, cut));
        }
        fired
    }
}

/// A number of the host as it was recorded: the node that is a scalar slot, and what it was given as.
struct Slot {
    node: u64,
    dtype: DType,
}

fn slot_of(number: &Tensor) -> Slot {
    let mut node = number.node().clone();
    while !matches!(node.source, Source::Scalar { .. }) {
        let Some(inner) = node.books().inputs.first().cloned() else { break };
        node = inner;
    }
    Slot { node: node.id, dtype: number.dtype() }
}
