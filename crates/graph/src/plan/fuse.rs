//! Fusion: whole graph, greedy by bytes saved.
//!
//! Every root starts as a cluster of its own. A cluster joins one that it reads from when a common
//! index space exists, no third cluster lies between them, and the joint kernel can be emitted for the
//! device; what was stored only for the other is then stored no more. Clusters on equal spaces that
//! read the same data join side by side.

use kiln_ir::index::IndexMap;
use kiln_ir::kernel::Instr;
use kiln_ir::{Bound, Error, ErrorKind, Kernel, NodeId, Op, Result};
use rustc_hash::{FxHashMap as HashMap, FxHashSet as HashSet};

use super::cluster::{Cluster, Lowered, Scope, Space};
use super::roots::long_sums;
use super::{cost, fit};

/// Steps of one kernel: bounds the length of shaders, the registers of a point, and the emitter's recursion.
const STEPS_MAX: usize = 1000;

/// Steps of a kernel that computes what others compute too.
const STEPS_AGAIN_MAX: usize = 200;

/// Parts of a formula, each of which is somewhere else than the others, that are worth a kernel which only moves them.
/// Gradients of what each time of a sequence reads are put together so: with the sum over all of them in one kernel,
/// 1600 × 768 of 50 times took 2.8 ms on two cores.
const PIECES: usize = 8;

/// Readers of one value that look for a sibling, so that a value that all read costs no more than others.
const SIBLINGS_MAX: usize = 16;

/// A cluster with its kernel.
pub(crate) struct Unit {
    pub(crate) cluster: Cluster,
    pub(crate) lowered: Lowered,
}

/// A consumer after it met one of its producers.
enum Joined {
    /// One kernel for both; the producer is no more.
    Whole(Unit, &'static str),
    /// Two kernels that do not need each other.
    Apart(Unit),
}

/// The state of fusion, and the story of why.
pub(crate) struct Fusion<'a> {
    scope: &'a Scope<'a>,
    units: Vec<Option<Unit>>,
    /// The unit that computes each root.
    home: HashMap<NodeId, usize>,
    /// The units that bind each root or leaf.
    readers: HashMap<NodeId, Vec<usize>>,
    outputs: HashSet<NodeId>,
    /// Sums of many products, each of which grows by one.
    long_sums: HashSet<NodeId>,
    /// What joined its consumer, that consumer, and how.
    joins: Vec<(NodeId, NodeId, &'static str)>,
}

impl<'a> Fusion<'a> {
    /// Every live root by itself.
    ///
    /// # Errors
    /// If the device can run some op not even alone: which one, and why.
    pub(crate) fn new(scope: &'a Scope<'a>, live: &[bool]) -> Result<Fusion<'a>> {
        let outputs = scope.graph.outputs.iter().copied().collect();
        let long_sums = long_sums(scope.graph).into_iter().collect();
        let (home, readers) = Default::default();
        let mut fusion = Fusion { scope, units: Vec::new(), home, readers, outputs, long_sums, joins: Vec::new() };
        let all = 0..scope.graph.nodes.len() as NodeId;
        for id in all.filter(|&id| scope.roots[id as usize] && live[id as usize]) {
            let cluster = Cluster::of(scope.graph, id);
            let lowered = cluster.lower(scope, &|_| true).map_err(|why| refused(scope, id, &why))?;
            let u = fusion.units.len();
            fusion.units.push(None);
            fusion.put(u, Unit { cluster, lowered });
        }
        Ok(fusion)
    }

    /// Joins until nothing joins any more.
    pub(crate) fn run(&mut self) {
        for c in 0..self.units.len() {
            while self.join_a_producer(c) {}
            // What follows a reduction joins it later, and then it goes nowhere else.
            self.join_rows(c);
        }
        for b in 0..self.units.len() {
            self.join_siblings(b);
        }
    }

    /// The kernels that are left, with their clusters, in no order.
    pub(crate) fn finish(self) -> Vec<Unit> {
        self.units.into_iter().flatten().collect()
    }

    /// For people: what joined and how, and for each kernel that reads another one's value why they are two.
    pub(crate) fn story(&self) -> Vec<String> {
        let name = |id: NodeId| format!("%{id} {}", self.scope.graph.nodes[id as usize].op.name());
        let joined = |&(root, consumer, how): &(NodeId, NodeId, &str)| {
            format!("{} joined {}: {how}", name(root), name(consumer))
        };
        let mut story: Vec<String> = self.joins.iter().map(joined).collect();
        for (c, unit) in self.units.iter().enumerate() {
            let Some(unit) = unit else { continue };
            for &root in unit.lowered.args.iter().filter(|id| self.home.get(id).is_some_and(|&p| p != c)) {
                let read = unit.lowered.reads.iter().find(|(id, _)| *id == root);
                let why = match read {
                    None => "is looked up at computed places".to_owned(),
                    Some((_, read)) => match self.join(root, read, c) {
                        Err(why) => why,
                        Ok(_) => "fusion is off".to_owned(),
                    },
                };
                story.push(format!("{} is apart from {}: {why}", name(root), name(unit.cluster.first())));
            }
        }
        story
    }

    fn put(&mut self, u: usize, unit: Unit) {
        self.home.extend(unit.cluster.members.keys().map(|&id| (id, u)));
        for id in &unit.lowered.args {
            self.readers.entry(*id).or_default().push(u);
        }
        self.units[u] = Some(unit);
    }

    fn take(&mut self, u: usize) {
        let Some(unit) = self.units[u].take() else { return };
        for id in &unit.lowered.args {
            self.readers.entry(*id).or_default().retain(|r| *r != u);
        }
    }

    /// Joins unit `c` with one of those that it reads from; false if none joins.
    fn join_a_producer(&mut self, c: usize) -> bool {
        let Some(consumer) = &self.units[c] else { return false };
        let mut reads: Vec<(NodeId, IndexMap)> =
            consumer.lowered.reads.iter().filter(|(id, _)| self.home.contains_key(id)).cloned().collect();
        let bytes = |id: NodeId| self.scope.caps.bytes_of(&self.scope.graph.nodes[id as usize]);
        reads.sort_by_key(|(id, _)| (std::cmp::Reverse(bytes(*id)), *id));
        let found = reads.iter().find_map(|(root, read)| Some((*root, self.join(*root, read, c).ok()?)));
        let Some((root, joined)) = found else { return false };
        let (p, first) = (self.home[&root], consumer.cluster.first());
        self.take(c);
        match joined {
            Joined::Whole(unit, how) => {
                self.take(p);
                self.put(c, unit);
                self.joins.push((root, first, how));
            }
            Joined::Apart(unit) => {
                self.put(c, unit);
                self.joins.push((root, first, "computed again, which costs less than to wait for it"));
            }
        }
        true
    }

    /// Unit `c` and the one that computes a root as one, or why not.
    fn join(&self, root: NodeId, read: &IndexMap, c: usize) -> Result<Joined, String> {
        let p = self.home[&root];
        let [producer, consumer] = [p, c].map(|u| self.units[u].as_ref().expect("asked of units that exist"));
        if self.reaches(p, c, true) {
            return Err("another kernel lies between them".into());
        }
        if self.long_sums.contains(&root) && consumer.cluster.members.keys().any(|id| self.long_sums.contains(id)) {
            return Err("the sum grows product by product".into());
        }
        let reduces = matches!(&consumer.cluster.space, Space::Loop { row, .. } if !row.is_empty());
        if reduces && producer.cluster.is_pointwise(self.scope.graph) && n_pieces(producer) >= PIECES {
            return Err("it is put together of many pieces".into());
        }
        let n = n_steps(producer) + n_steps(consumer);
        if n > STEPS_MAX {
            return Err(format!("together they would have {n} steps, {STEPS_MAX} at most"));
        }
        let mut why = fit::differ(&producer.cluster, &consumer.cluster);
        for (cluster, how) in fit::joined(self.scope.graph, &producer.cluster, &consumer.cluster, root, read) {
            match cluster.lower(self.scope, &|id| self.wanted(id, p, c)) {
                Ok(lowered) => return Ok(Joined::Whole(Unit { cluster, lowered }, how)),
                Err(cut) => why = cut,
            }
        }
        self.apart(p, c).map(Joined::Apart).ok_or(why)
    }

    /// The consumer `c` without need of `p`, whose cheap formulas it computes for itself: they then may run side by
    /// side, in one dispatch if they are small.
    fn apart(&self, p: usize, c: usize) -> Option<Unit> {
        let (graph, caps) = (self.scope.graph, self.scope.caps);
        let [producer, consumer] = [p, c].map(|u| self.units[u].as_ref().expect("asked of units that exist"));
        if !producer.cluster.is_pointwise(graph)
            || !matches!(consumer.cluster.space, Space::Loop { .. })
            || !producer.lowered.stores.iter().all(|id| self.outputs.contains(id))
            || n_steps(producer) + n_steps(consumer) > STEPS_AGAIN_MAX
        {
            return None;
        }
        let mut cluster = consumer.cluster.clone();
        cluster.inlined.extend(producer.cluster.members.keys().chain(&producer.cluster.inlined));
        let lowered = cluster.lower(self.scope, &|id| self.wanted(id, c, c)).ok()?;
        // An empty producer reads nothing, so what its formula names may not be in memory.
        let stored = |id: &NodeId| {
            let home = self.home.get(id).filter(|&&u| u != c).and_then(|&u| self.units[u].as_ref());
            home.is_none_or(|unit| unit.lowered.stores.contains(id))
        };
        let needs = lowered.args.iter().any(|id| producer.cluster.members.contains_key(id) || !stored(id));
        let more = cost::seconds(graph, caps, &lowered) - cost::seconds(graph, caps, &consumer.lowered);
        (!needs && more < cost::START_SECONDS).then_some(Unit { cluster, lowered })
    }

    /// Joins unit `c`, if all that it does is to reduce over rows, with one that visits those rows anyway.
    fn join_rows(&mut self, c: usize) {
        let Some(unit) = &self.units[c] else { return };
        if !unit.cluster.only_reduces(self.scope.graph) {
            return;
        }
        let all = self.scope.graph.nodes[unit.cluster.first() as usize].inputs[0];
        let numel = self.scope.graph.nodes[all as usize].shape.numel();
        let whole = |id: &NodeId| self.scope.graph.nodes[*id as usize].shape.numel() == numel;
        let near = unit.lowered.reads.iter().map(|r| r.0).filter(whole);
        let near: Vec<usize> =
            near.flat_map(|id| self.readers.get(&id).into_iter().flatten()).copied().filter(|&a| a != c).collect();
        let found = near.into_iter().rev().take(SIBLINGS_MAX).find_map(|a| {
            let (rows, columns) = (self.units[a].as_ref()?, self.units[c].as_ref()?);
            let (cluster, place) = fit::beside(self.scope.graph, &rows.cluster, &columns.cluster)?;
            // Rows and columns of a square are on equal spaces: what both read tells which is which.
            let mut reads = columns.lowered.reads.iter().filter(|(id, _)| whole(id));
            let along = reads.any(|(id, map)| rows.lowered.reads.contains(&(*id, place.then(map))));
            if !along || !self.may_share(a, c) {
                return None;
            }
            let lowered = cluster.lower(self.scope, &|id| self.wanted(id, a, c)).ok()?;
            Some((a, rows.cluster.first(), Unit { cluster, lowered }))
        });
        if let (Some((a, first, joined)), column) = (found, self.units[c].as_ref().map(|u| u.cluster.first())) {
            self.take(a);
            self.take(c);
            self.put(a, joined);
            self.joins.extend(column.map(|column| (column, first, "as reductions over its rows")));
        }
    }

    /// Joins unit `b` with earlier ones that read what it reads.
    fn join_siblings(&mut self, b: usize) {
        let Some(unit) = &self.units[b] else { return };
        let reads: Vec<NodeId> = self.shared(unit).collect();
        let mut near: Vec<usize> = Vec::new();
        for id in reads {
            let earlier = self.readers.get(&id).into_iter().flatten().copied().filter(|&a| a < b);
            near.extend(earlier.collect::<Vec<_>>().into_iter().rev().take(SIBLINGS_MAX));
        }
        near.sort_unstable();
        near.dedup();
        for a in near {
            if let Some(unit) = self.join_a_sibling(a, b) {
                let firsts = [a, b].map(|u| self.units[u].as_ref().map(|u| u.cluster.first()));
                self.take(a);
                self.take(b);
                self.put(b, unit);
                if let [Some(a), Some(b)] = firsts {
                    self.joins.push((a, b, "side by side, reading the same data"));
                }
            }
        }
    }

    /// What a unit reads that is worth reading together: also tables that are computed. Of a leaf, each may look up
    /// other places.
    fn shared<'b>(&'b self, unit: &'b Unit) -> impl Iterator<Item = NodeId> + 'b {
        let computed = |id: &NodeId| !matches!(self.scope.graph.nodes[*id as usize].op, Op::Leaf(_));
        let tables = unit.lowered.gathered.iter().copied().filter(computed);
        unit.lowered.reads.iter().map(|r| r.0).chain(tables)
    }

    fn join_a_sibling(&self, a: usize, b: usize) -> Option<Unit> {
        let [x, y] = [self.units[a].as_ref()?, self.units[b].as_ref()?];
        let mut reads = self.shared(x);
        if !fit::side_by_side(&x.cluster, &y.cluster)
            || !reads.any(|id| y.lowered.args.contains(&id))
            || !self.along(x, y)
            || !self.may_share(a, b)
        {
            return None;
        }
        let cluster = fit::union(&x.cluster, &y.cluster, &x.cluster.space);
        let lowered = cluster.lower(self.scope, &|id| self.wanted(id, a, b)).ok()?;
        Some(Unit { cluster, lowered })
    }

    /// False for reductions over the rows and over the columns of a square, whose spaces are equal: those read nothing at
    /// the same places.
    fn along(&self, x: &Unit, y: &Unit) -> bool {
        let Space::Loop { row, .. } = &x.cluster.space else { return true };
        let mut reads = x.lowered.reads.iter();
        let mut tables = x.lowered.gathered.iter();
        row.is_empty()
            || reads.any(|read| y.lowered.reads.contains(read))
            || tables.any(|id| y.lowered.gathered.contains(id))
    }

    /// True iff two units may be one kernel: of one stage, short enough, and neither depends on the other.
    fn may_share(&self, a: usize, b: usize) -> bool {
        let [Some(x), Some(y)] = [a, b].map(|u| self.units[u].as_ref()) else { return false };
        x.cluster.stage(self.scope.graph) == y.cluster.stage(self.scope.graph)
            && n_steps(x) + n_steps(y) <= STEPS_MAX
            && !self.reaches(a, b, false)
            && !self.reaches(b, a, false)
    }

    /// True iff a root must be stored once `p` and `c` are one.
    fn wanted(&self, id: NodeId, p: usize, c: usize) -> bool {
        let elsewhere = |&u: &usize| u != p && u != c;
        self.outputs.contains(&id) || self.readers.get(&id).is_some_and(|readers| readers.iter().any(elsewhere))
    }

    /// True iff `to` depends on `from`; with `indirectly`, through at least one other unit.
    fn reaches(&self, from: usize, to: usize, indirectly: bool) -> bool {
        // A cluster, and what depends on it, has a member that was not recorded before the cluster's first.
        let first = self.units[from].as_ref().map_or(0, |u| u.cluster.first());
        let later = |u: &usize| self.units[*u].as_ref().is_some_and(|u| u.cluster.last() >= first);
        let mut seen = HashSet::default();
        let mut stack: Vec<usize> = self.producers(to).filter(|&u| !(indirectly && u == from)).filter(&later).collect();
        while let Some(u) = stack.pop() {
            if u == from {
                return true;
            }
            if seen.insert(u) {
                stack.extend(self.producers(u).filter(&later));
            }
        }
        false
    }

    fn producers(&self, u: usize) -> impl Iterator<Item = usize> {
        let args = self.units[u].iter().flat_map(|unit| &unit.lowered.args);
        args.filter_map(|id| self.home.get(id).copied()).filter(move |&p| p != u)
    }
}

/// Steps of a kernel.
fn n_steps(unit: &Unit) -> usize {
    match &unit.lowered.kernel {
        Kernel::Loop(k) => k.body.instrs.len(),
        Kernel::Dot(k) => k.epilogue.instrs.len(),
        Kernel::Scatter(_) | Kernel::Attention(_) | Kernel::Scan(_) | Kernel::Sort(_) | Kernel::Group(_) => 0,
    }
}

/// Parts of a kernel's space that have loads of their own.
fn n_pieces(unit: &Unit) -> usize {
    let Kernel::Loop(kernel) = &unit.lowered.kernel else { return 0 };
    let mut parts: Vec<&[Bound]> = Vec::new();
    for instr in &kernel.body.instrs {
        if let Instr::Load { valid, .. } = instr
            && !valid.is_empty()
            && !parts.contains(&&**valid)
        {
            parts.push(valid);
        }
    }
    parts.len()
}

fn refused(scope: &Scope, id: NodeId, why: &str) -> Error {
    let node = &scope.graph.nodes[id as usize];
    let at = node.place();
    let (op, device) = (node.op.name(), &scope.caps.name);
    let message = format!("{op} {}{}{at} cannot run on {device}: {why}", node.dtype, node.shape);
    Error::new(ErrorKind::Unsupported, message)
}
