//! Packing: small loops that do not depend on each other become one kernel.
//!
//! A dispatch costs as much as some microseconds of work, and a training step ends in an update of each of many
//! small tensors. Units are put on levels, counted from the end of the plan: nothing on a level depends on anything
//! else on it, so whatever is small there may share a dispatch, up to the binding limit.

use kiln_ir::kernel::{Access, Instr, Loop};
use kiln_ir::{Kernel, NodeId};

use super::cluster::{Lowered, Scope};
use super::cost;
use super::order::Edges;

/// A loop is small if it runs no longer than it takes to start this many kernels.
const SMALL: f64 = 5.0;

/// Steps of all bodies of a group together: bounds the length of a shader.
const STEPS_MAX: usize = 2000;

/// Joins small loops of one level; gives the units that are left, and the unit that each was joined into.
pub(crate) fn pack(scope: &Scope, units: Vec<Lowered>, edges: &Edges) -> (Vec<Lowered>, Vec<usize>) {
    let level = levels(edges);
    let mut groups: Vec<(usize, Group)> = Vec::new();
    let mut group_of: Vec<Option<usize>> = vec![None; units.len()];
    for (u, unit) in units.iter().enumerate() {
        let Kernel::Loop(k) = &unit.kernel else { continue };
        if k.body.reduces_columns() || cost::seconds(scope.graph, scope.caps, unit) > SMALL * cost::START_SECONDS {
            continue;
        }
        let open = groups.iter_mut().position(|(l, group)| *l == level[u] && group.takes(scope, unit, k));
        let at = open.unwrap_or_else(|| {
            groups.push((level[u], Group::default()));
            groups.len() - 1
        });
        groups[at].1.add(u, unit, k);
        group_of[u] = Some(at);
    }
    let made: Vec<Option<Lowered>> = groups.into_iter().map(|(_, group)| group.lowered(scope, &units)).collect();
    let mut place_of_group = vec![None; made.len()];
    let (mut left, mut place) = (Vec::new(), Vec::new());
    for (unit, group) in units.into_iter().zip(group_of) {
        let joined = group.and_then(|g| Some((g, made[g].as_ref()?)));
        let known = joined.and_then(|(g, _)| place_of_group[g]);
        place.push(known.unwrap_or_else(|| {
            left.push(joined.map_or(unit, |(_, group)| group.clone()));
            if let Some((g, _)) = joined {
                place_of_group[g] = Some(left.len() - 1);
            }
            left.len() - 1
        }));
    }
    (left, place)
}

/// For each unit, how many must at least run after it, one after the other.
fn levels(edges: &Edges) -> Vec<usize> {
    let mut level = vec![0; edges.before.len()];
    // Units are in order, so whatever comes after one has its level already.
    for u in (0..level.len()).rev() {
        for &before in &edges.before[u] {
            level[before] = level[before].max(level[u] + 1);
        }
    }
    level
}

/// Loops on their way into one kernel.
#[derive(Default)]
struct Group {
    units: Vec<usize>,
    args: Vec<NodeId>,
    n_steps: usize,
}

impl Group {
    fn takes(&self, scope: &Scope, unit: &Lowered, k: &Loop) -> bool {
        let more = unit.args.iter().filter(|id| !self.args.contains(id));
        scope.bindings(self.args.iter().chain(more)) <= scope.caps.max_bindings
            && self.n_steps + k.body.instrs.len() <= STEPS_MAX
    }

    fn add(&mut self, u: usize, unit: &Lowered, k: &Loop) {
        self.units.push(u);
        let more = unit.args.iter().filter(|id| !self.args.contains(id)).copied().collect::<Vec<_>>();
        self.args.extend(more);
        self.n_steps += k.body.instrs.len();
    }

    /// The kernel of several loops; `None` for a single one, and if the device refuses.
    fn lowered(self, scope: &Scope, units: &[Lowered]) -> Option<Lowered> {
        if self.units.len() < 2 {
            return None;
        }
        let (mut scalars, mut stores): (Vec<u32>, Vec<NodeId>) = Default::default();
        let mut loops: Vec<Loop> = Vec::with_capacity(self.units.len());
        let mut args = vec![None; self.args.len()];
        for unit in self.units.iter().map(|&u| &units[u]) {
            let Kernel::Loop(k) = &unit.kernel else { unreachable!("only loops are packed") };
            let mut k = k.clone();
            let place = |id: &NodeId| self.args.iter().position(|a| a == id).expect("the group binds it") as u32;
            let renamed: Vec<u32> = unit.args.iter().map(place).collect();
            k.body.map_args(&|arg| renamed[arg as usize]);
            for (arg, &at) in k.args.iter().zip(&renamed) {
                let known = args[at as usize].get_or_insert_with(|| arg.clone());
                debug_assert!(known.access == Access::Read || *known == *arg, "one loop writes what another reads");
            }
            for instr in &mut k.body.instrs {
                if let Instr::Scalar(_, n) = instr {
                    let slot = unit.scalars[*n as usize];
                    let at = scalars.iter().position(|s| *s == slot);
                    *n = at.unwrap_or_else(|| {
                        scalars.push(slot);
                        scalars.len() - 1
                    }) as u32;
                }
            }
            stores.extend(&unit.stores);
            loops.push(k);
        }
        let args: Vec<_> = args.into_iter().map(|arg| arg.expect("each argument is some loop's")).collect();
        loops.iter_mut().for_each(|k| k.args.clone_from(&args));
        let kernel = Kernel::Group(loops);
        (scope.supports)(&kernel).ok()?;
        Some(Lowered { kernel, args: self.args, scalars, reads: Vec::new(), gathered: Vec::new(), stores })
    }
}
