//! Memory: in which buffer each root lives.
//!
//! A temporary is a whole buffer, because devices track hazards by buffer. Values whose lives do not overlap share
//! one: the largest choose first, so that a buffer is as large as its first value and no larger.

use kiln_ir::{Caps, Graph, NodeId, Op, Slot};
use rustc_hash::FxHashMap as HashMap;

use super::cluster::Lowered;
use super::donate::{Output, Places};

/// The buffers of a plan.
pub(crate) struct Memory {
    /// The slot of every leaf and every stored root.
    pub(crate) slots: HashMap<NodeId, Slot>,
    /// Bytes of each temporary.
    pub(crate) temps: Vec<u64>,
    /// The most bytes of temporaries that live at once: no assignment needs less.
    pub(crate) least_temps: u64,
}

/// Values that only the plan sees, each but the first written over the one before: from which step to which some
/// of them is needed.
struct Life {
    ids: Vec<NodeId>,
    bytes: u64,
    from: usize,
    to: usize,
}

/// Assigns slots to units in their order of execution. Without `reuse` every value has a buffer of its own.
pub(crate) fn assign(
    graph: &Graph,
    units: &[Lowered],
    n_leaves: usize,
    places: &Places,
    caps: &Caps,
    reuse: bool,
) -> Memory {
    let mut slots = HashMap::default();
    for (node, id) in graph.nodes.iter().zip(0..) {
        if let Op::Leaf(n) = node.op {
            slots.insert(id, Slot::Arg(n));
        }
    }
    for (n, (&id, output)) in graph.outputs.iter().zip(&places.outputs).enumerate() {
        let arg = match output {
            Output::Donated(leaf) => *leaf,
            Output::Fresh(_) => (n_leaves + n) as u32,
        };
        slots.insert(id, Slot::Arg(arg));
    }
    let mut lives = lives(graph, units, &slots, &places.over, caps);
    let least_temps = most_at_once(&lives, units.len());
    lives.sort_by_key(|life| (std::cmp::Reverse(life.bytes), life.from));
    let mut temps: Vec<u64> = Vec::new();
    let mut taken: Vec<Vec<(usize, usize)>> = Vec::new();
    for life in lives {
        let free = |spans: &Vec<(usize, usize)>| spans.iter().all(|&(from, to)| to < life.from || life.to < from);
        let found = if reuse { taken.iter().position(free) } else { None };
        let slot = found.unwrap_or_else(|| {
            temps.push(life.bytes);
            taken.push(Vec::new());
            temps.len() - 1
        });
        taken[slot].push((life.from, life.to));
        slots.extend(life.ids.iter().map(|&id| (id, Slot::Temp(slot as u32))));
    }
    Memory { slots, temps, least_temps }
}

/// The lives of what has no slot yet.
fn lives(
    graph: &Graph,
    units: &[Lowered],
    slots: &HashMap<NodeId, Slot>,
    over: &HashMap<NodeId, NodeId>,
    caps: &Caps,
) -> Vec<Life> {
    let mut last: HashMap<NodeId, usize> = HashMap::default();
    for (t, unit) in units.iter().enumerate() {
        last.extend(unit.args.iter().map(|&id| (id, t)));
    }
    let mut lives: Vec<Life> = Vec::new();
    let mut life_of: HashMap<NodeId, usize> = HashMap::default();
    for (from, unit) in units.iter().enumerate() {
        for &id in unit.stores.iter().filter(|id| !slots.contains_key(id)) {
            let bytes = caps.bytes_of(&graph.nodes[id as usize]);
            let to = last.get(&id).copied().unwrap_or(from);
            let at = over.get(&id).map_or(lives.len(), |old| life_of[old]);
            life_of.insert(id, at);
            match lives.get_mut(at) {
                Some(life) => {
                    life.ids.push(id);
                    life.to = life.to.max(to);
                }
                None => lives.push(Life { ids: vec![id], bytes, from, to }),
            }
        }
    }
    lives
}

fn most_at_once(lives: &[Life], n_steps: usize) -> u64 {
    let mut change = vec![0i64; n_steps + 1];
    for life in lives {
        change[life.from] += life.bytes as i64;
        change[life.to + 1] -= life.bytes as i64;
    }
    let running = change.iter().scan(0, |now, by| {
        *now += by;
        Some(*now)
    });
    running.max().unwrap_or(0) as u64
}
