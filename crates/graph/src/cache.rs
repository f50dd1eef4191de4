//! Plans that were made, found again by the structure of their graph.

use std::hash::{Hash, Hasher};
use std::sync::Arc;
use std::sync::atomic::AtomicU32;

use kiln_ir::{Executable, Expr, ExprNode, Op, Tape};
use rustc_hash::FxHashMap as HashMap;

use crate::capture::Captured;
use crate::difference::{difference, family};
use crate::known::Known;
use crate::plan::Plan;

/// How many plans a device keeps.
const PLANS_MAX: usize = 64;

/// Compiled kernels that a device keeps, but for those of its plans.
const KERNELS_MAX: usize = 4096;

/// Plans of programs that differ in dims only, after which people are told.
const FAMILY_MAX: usize = 8;

/// A plan that the backend has recorded.
pub(crate) struct Ready {
    pub(crate) plan: Arc<Plan>,
    pub(crate) tape: Tape,
    /// How many plans its device made before.
    pub(crate) number: usize,
    pub(crate) n_runs: AtomicU32,
}

struct Entry {
    known: Arc<Known>,
    donatable: Vec<bool>,
    ready: Arc<Ready>,
    family: u64,
    last_use: u64,
}

impl Entry {
    /// True iff the plan is of this program.
    fn is_of(&self, program: &Captured) -> bool {
        Arc::ptr_eq(&self.known, &program.known) && self.donatable == program.filling.donatable
    }
}

/// The plans and kernels of one device.
#[derive(Default)]
pub(crate) struct Plans {
    entries: Vec<Entry>,
    /// Compiled kernels by their keys.
    pub(crate) kernels: HashMap<u128, Executable>,
    /// For each family of programs, how many plans it took for new dims.
    families: HashMap<u64, usize>,
    /// The plan that ran last.
    pub(crate) last: Option<Arc<Plan>>,
    pub(crate) n_planned: usize,
    pub(crate) n_compiled: usize,
    clock: u64,
}

impl Plans {
    /// The plan of an equal program, if there is one.
    pub(crate) fn find(&mut self, program: &Captured) -> Option<Arc<Ready>> {
        self.clock += 1;
        let entry = self.entries.iter_mut().find(|e| e.is_of(program))?;
        entry.last_use = self.clock;
        self.last = Some(entry.ready.plan.clone());
        Some(entry.ready.clone())
    }

    /// A plan ran that its owner had kept.
    pub(crate) fn ran(&mut self, ready: &Ready) {
        self.last = Some(ready.plan.clone());
    }

    /// Why a program is new: in what it differs from the last one of its family, or from the last one; and whether
    /// its family takes more plans than it should.
    pub(crate) fn news(&mut self, program: &Captured) -> (Option<String>, bool) {
        let (graph, donatable) = (program.graph(), &program.filling.donatable[..]);
        let family = family(graph);
        let nearest = self.entries.iter().max_by_key(|e| (e.family == family, e.last_use));
        let Some(nearest) = nearest else { return (None, false) };
        let difference = difference((&nearest.known.graph, &nearest.donatable), (graph, donatable));
        let n = self.families.entry(family).or_insert(0);
        *n += usize::from(difference.of_dims && nearest.family == family);
        (Some(difference.text), difference.of_dims && *n == FAMILY_MAX)
    }

    /// Keeps a plan; the one that was not used for longest goes.
    pub(crate) fn keep(&mut self, program: &Captured, ready: Arc<Ready>) {
        let oldest = |entries: &[Entry]| (0..entries.len()).min_by_key(|&n| entries[n].last_use);
        // Another thread may have planned the same program meanwhile; the newer of two such plans is never found.
        if self.entries.len() >= PLANS_MAX
            && let Some(oldest) = oldest(&self.entries)
        {
            self.entries.swap_remove(oldest);
        }
        // A kernel that no plan holds may go; so may counts, which then start anew.
        if self.kernels.len() > KERNELS_MAX {
            self.kernels.retain(|_, kernel| kernel.is_shared());
        }
        if self.families.len() > KERNELS_MAX {
            self.families.clear();
        }
        self.last = Some(ready.plan.clone());
        let (known, donatable) = (program.known.clone(), program.filling.donatable.clone());
        let family = family(&known.graph);
        self.entries.push(Entry { known, donatable, ready, family, last_use: self.clock });
    }
}

/// Equality of ops, with literals compared by bits.
pub(crate) fn same_op(a: &Op, b: &Op) -> bool {
    match (a, b) {
        (Op::Map(e), Op::Map(f)) => Arc::ptr_eq(e, f) || same_steps(e, f),
        (Op::Const(v), Op::Const(w)) => v.to_bits() == w.to_bits(),
        (op, other) => op == other,
    }
}

/// Equality of formulas, with literals compared by bits.
pub(crate) fn same_steps(a: &Expr, b: &Expr) -> bool {
    let same = |(x, y): (&ExprNode, &ExprNode)| match (x, y) {
        (ExprNode::Const(v), ExprNode::Const(w)) => v.to_bits() == w.to_bits(),
        _ => x == y,
    };
    a.nodes.len() == b.nodes.len() && a.nodes.iter().zip(&b.nodes).all(same)
}

/// Feeds a step of a formula to a hash.
pub(crate) fn hash_step<H: Hasher>(step: &ExprNode, h: &mut H) {
    match step {
        ExprNode::Input(i) => i.hash(h),
        ExprNode::Const(v) => v.to_bits().hash(h),
        ExprNode::Op(op, args) => (op, args).hash(h),
        ExprNode::Cast(to, a) => (to, a).hash(h),
    }
}
