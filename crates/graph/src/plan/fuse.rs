//! Fusion: whole graph, greedy by bytes saved.
//!
//! Every root starts as a cluster of its own. A cluster joins one that it reads from when a common
//! index space exists, no third cluster lies between them, and the joint kernel can be emitted for the
//! device; what was stored only for the other is then stored no more. Clusters on equal spaces that
//! read the same data join side by side.

use std::collections::{HashMap, HashSet};

use kiln_ir::index::IndexMap;
use kiln_ir::{Error, ErrorKind, Kernel, NodeId, Result};

use super::cluster::{Cluster, Lowered, Scope, Space};
use super::{cost, fit};

/// A cluster with its kernel.
pub(crate) struct Unit {
    pub(crate) cluster: Cluster,
    pub(crate) lowered: Lowered,
}

/// A consumer after it met one of its producers.
enum Joined {
    /// One kernel for both; the producer is no more.
    Whole(usize, Unit),
    /// Two kernels that do not need each other.
    Apart(Unit),
}

/// Steps of a kernel that computes what others compute too.
const STEPS_MAX: usize = 200;

fn n_steps(unit: &Unit) -> usize {
    match &unit.lowered.kernel {
        Kernel::Loop(k) => k.body.instrs.len(),
        Kernel::Dot(_) | Kernel::Scatter(_) | Kernel::Attention(_) | Kernel::Group(_) => usize::MAX / 2,
    }
}

/// The state of fusion, and the story of why.
pub(crate) struct Fusion<'a> {
    scope: &'a Scope<'a>,
    units: Vec<Option<Unit>>,
    /// The unit that computes each root.
    home: HashMap<NodeId, usize>,
    /// Why neighbours did not join, for people.
    pub(crate) notes: Vec<String>,
}

impl<'a> Fusion<'a> {
    /// Every live root by itself.
    ///
    /// # Errors
    /// If the device can run some op not even alone: which one, and why.
    pub(crate) fn new(scope: &'a Scope<'a>, live: &[bool]) -> Result<Fusion<'a>> {
        let mut fusion = Fusion { scope, units: Vec::new(), home: HashMap::new(), notes: Vec::new() };
        let all = 0..scope.graph.nodes.len() as NodeId;
        for id in all.filter(|&id| scope.roots[id as usize] && live[id as usize]) {
            let cluster = Cluster::of(scope.graph, id);
            let lowered = cluster.lower(scope, &|_| true).map_err(|why| refused(scope, id, &why))?;
            fusion.home.insert(id, fusion.units.len());
            fusion.units.push(Some(Unit { cluster, lowered }));
        }
        Ok(fusion)
    }

    /// Joins until nothing joins any more.
    pub(crate) fn run(&mut self) {
        for c in 0..self.units.len() {
            while let Some(joined) = self.join_a_producer(c) {
                match joined {
                    Joined::Whole(p, unit) => self.replace(p, c, unit),
                    Joined::Apart(unit) => self.units[c] = Some(unit),
                }
            }
        }
        for b in 0..self.units.len() {
            for a in 0..b {
                if let Some(unit) = self.join_a_sibling(a, b) {
                    self.replace(a, b, unit);
                }
            }
        }
    }

    /// The kernels that are left, with their clusters, in no order.
    pub(crate) fn finish(mut self) -> (Vec<Unit>, Vec<String>) {
        self.notes.sort();
        self.notes.dedup();
        (self.units.into_iter().flatten().collect(), self.notes)
    }

    fn replace(&mut self, gone: usize, kept: usize, unit: Unit) {
        self.home.extend(unit.cluster.members.keys().map(|&id| (id, kept)));
        self.units[gone] = None;
        self.units[kept] = Some(unit);
    }

    fn join_a_producer(&mut self, c: usize) -> Option<Joined> {
        let consumer = self.units[c].as_ref()?;
        let mut reads: Vec<(NodeId, IndexMap)> =
            consumer.lowered.reads.iter().filter(|(id, _)| self.home.contains_key(id)).cloned().collect();
        reads.sort_by_key(|(id, _)| (std::cmp::Reverse(cost::bytes(self.scope.graph, *id)), *id));
        for (root, read) in reads {
            let p = self.home[&root];
            let producer = self.units[p].as_ref().expect("a root's home exists");
            let consumer = self.units[c].as_ref().expect("checked above");
            let names = |why: &str| format!("%{root} and {:?}: {why}", consumer.cluster.ids());
            if self.reaches(p, c, true) {
                let note = names("another kernel lies between them");
                self.notes.push(note);
                continue;
            }
            let mut why = "no common index space".to_owned();
            for cluster in fit::joined(self.scope.graph, &producer.cluster, &consumer.cluster, root, &read) {
                match cluster.lower(self.scope, &|id| self.wanted(id, p, c)) {
                    Ok(lowered) => return Some(Joined::Whole(p, Unit { cluster, lowered })),
                    Err(cut) => why = cut,
                }
            }
            if let Some(unit) = self.apart(p, c) {
                return Some(Joined::Apart(unit));
            }
            let note = names(&why);
            self.notes.push(note);
        }
        None
    }

    /// The consumer `c` without need of `p`, whose cheap formulas it computes for itself: they then may run side by
    /// side, in one dispatch if they are small.
    fn apart(&self, p: usize, c: usize) -> Option<Unit> {
        let (graph, caps) = (self.scope.graph, self.scope.caps);
        let [producer, consumer] = [p, c].map(|u| self.units[u].as_ref().expect("asked of units that exist"));
        let stored_anyway = |id: &NodeId| graph.outputs.contains(id);
        if !producer.cluster.is_pointwise(graph)
            || !matches!(consumer.cluster.space, Space::Loop { .. })
            || !producer.lowered.stores.iter().all(stored_anyway)
            || n_steps(producer) + n_steps(consumer) > STEPS_MAX
        {
            return None;
        }
        let mut cluster = consumer.cluster.clone();
        cluster.inlined.extend(producer.cluster.members.keys().chain(&producer.cluster.inlined));
        let lowered = cluster.lower(self.scope, &|id| self.wanted(id, c, c)).ok()?;
        let needs = lowered.args.iter().any(|id| producer.cluster.members.contains_key(id));
        let more = cost::seconds(graph, caps, &lowered) - cost::seconds(graph, caps, &consumer.lowered);
        (!needs && more < cost::START_SECONDS).then_some(Unit { cluster, lowered })
    }

    fn join_a_sibling(&self, a: usize, b: usize) -> Option<Unit> {
        let [x, y] = [self.units[a].as_ref()?, self.units[b].as_ref()?];
        let cluster = fit::side_by_side(&x.cluster, &y.cluster)?;
        let shared = x.lowered.reads.iter().any(|(id, _)| y.lowered.args.contains(id));
        let one_point =
            matches!(&x.cluster.space, Space::Loop { outer, row } if outer.iter().chain(row).all(|d| *d == 1));
        let together = x.cluster.stage(self.scope.graph) == y.cluster.stage(self.scope.graph);
        if !together || !(shared || one_point) || self.reaches(a, b, false) || self.reaches(b, a, false) {
            return None;
        }
        let lowered = cluster.lower(self.scope, &|id| self.wanted(id, a, b)).ok()?;
        Some(Unit { cluster, lowered })
    }

    /// True iff a root must be stored once `p` and `c` are one.
    fn wanted(&self, id: NodeId, p: usize, c: usize) -> bool {
        let elsewhere = |(u, unit): (usize, &Option<Unit>)| {
            u != p && u != c && unit.as_ref().is_some_and(|unit| unit.lowered.args.contains(&id))
        };
        self.scope.graph.outputs.contains(&id) || self.units.iter().enumerate().any(elsewhere)
    }

    /// True iff `to` depends on `from`; with `indirectly`, through at least one other unit.
    fn reaches(&self, from: usize, to: usize, indirectly: bool) -> bool {
        let mut seen = HashSet::new();
        let mut stack: Vec<usize> = self.producers(to).into_iter().filter(|&u| !(indirectly && u == from)).collect();
        while let Some(u) = stack.pop() {
            if u == from {
                return true;
            }
            if seen.insert(u) {
                stack.extend(self.producers(u));
            }
        }
        false
    }

    fn producers(&self, u: usize) -> Vec<usize> {
        let Some(unit) = &self.units[u] else { return Vec::new() };
        unit.lowered.args.iter().filter_map(|id| self.home.get(id).copied()).filter(|&p| p != u).collect()
    }
}

fn refused(scope: &Scope, id: NodeId, why: &str) -> Error {
    let node = &scope.graph.nodes[id as usize];
    let at = node.location.map_or(String::new(), |l| format!(" at {}:{}", l.file(), l.line()));
    let (op, device) = (node.op.name(), &scope.caps.name);
    let message = format!("{op} {}{}{at} cannot run on {device}: {why}", node.dtype, node.shape);
    Error::new(ErrorKind::Unsupported, message)
}
