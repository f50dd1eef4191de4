//! Order: units so that each comes after those it needs, otherwise as recorded.

use std::collections::BTreeSet;

use kiln_ir::NodeId;
use rustc_hash::FxHashMap as HashMap;

use super::cluster::Lowered;

/// Who must run before whom.
pub(crate) struct Edges {
    /// For each unit, those that must run before it.
    pub(crate) before: Vec<Vec<usize>>,
}

impl Edges {
    /// Those that follow from who reads what whom stores.
    pub(crate) fn of<'a>(units: impl Iterator<Item = &'a Lowered> + Clone) -> Edges {
        let mut home = HashMap::default();
        for (u, unit) in units.clone().enumerate() {
            home.extend(unit.stores.iter().map(|&id| (id, u)));
        }
        let producers = |(u, unit): (usize, &Lowered)| {
            let mut before: Vec<usize> =
                unit.args.iter().filter_map(|id| home.get(id).copied()).filter(|&p| p != u).collect();
            before.sort_unstable();
            before.dedup();
            before
        };
        Edges { before: units.enumerate().map(producers).collect() }
    }

    /// Adds that `first` runs before `then`.
    pub(crate) fn add(&mut self, first: usize, then: usize) {
        if !self.before[then].contains(&first) {
            self.before[then].push(first);
        }
    }

    /// For each unit, those that must run after it.
    pub(crate) fn after(&self) -> Vec<Vec<usize>> {
        let mut after = vec![Vec::new(); self.before.len()];
        for (u, before) in self.before.iter().enumerate() {
            before.iter().for_each(|&p| after[p].push(u));
        }
        after
    }

    /// The edges after units became others: `place` names the one that each is in now.
    pub(crate) fn joined(&self, place: &[usize], n_units: usize) -> Edges {
        let mut edges = Edges { before: vec![Vec::new(); n_units] };
        for (u, before) in self.before.iter().enumerate() {
            edges.before[place[u]].extend(before.iter().map(|&p| place[p]));
        }
        for (u, before) in edges.before.iter_mut().enumerate() {
            before.sort_unstable();
            before.dedup();
            debug_assert!(!before.contains(&u), "what is one now needs itself");
        }
        edges
    }

    /// The units in order; of several that may come next, the one whose first node was recorded first.
    ///
    /// # Panics
    /// If units need each other in a circle.
    pub(crate) fn sorted(&self, first: impl Fn(usize) -> NodeId) -> Vec<usize> {
        let after = self.after();
        let mut waits: Vec<usize> = self.before.iter().map(Vec::len).collect();
        let mut ready: BTreeSet<(NodeId, usize)> =
            (0..waits.len()).filter(|&u| waits[u] == 0).map(|u| (first(u), u)).collect();
        let mut order = Vec::with_capacity(waits.len());
        while let Some((_, u)) = ready.pop_first() {
            order.push(u);
            for &next in &after[u] {
                waits[next] -= 1;
                if waits[next] == 0 {
                    ready.insert((first(next), next));
                }
            }
        }
        assert_eq!(order.len(), waits.len(), "plan: kernels depend on each other in a circle");
        order
    }
}

/// The items in this order.
pub(crate) fn permuted<T>(items: Vec<T>, order: &[usize]) -> Vec<T> {
    let mut items: Vec<Option<T>> = items.into_iter().map(Some).collect();
    order.iter().map(|&i| items[i].take().expect("an order names each item once")).collect()
}

/// For each of the units that others became, the least of their numbers.
pub(crate) fn least(numbers: &[NodeId], place: &[usize], n_units: usize) -> Vec<NodeId> {
    let mut least = vec![NodeId::MAX; n_units];
    numbers.iter().zip(place).for_each(|(&n, &at)| least[at] = least[at].min(n));
    least
}
