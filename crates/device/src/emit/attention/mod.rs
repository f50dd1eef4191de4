//! Attention and its gradients, whose scores are never in memory: what they have in common, and who computes them.
//!
//! The hard idea is that all passes are one walk. A row of its *own* side meets every row of the *other* side, the
//! two give a score, the score a weight, and weighted rows of the other side are summed. The output and the gradient
//! of `q` walk from the queries, the gradients of `k` and `v` from the keys; only the weights differ. Reading order:
//! this file, `walk` (what rows do when they meet), then who walks: `plain` (an invocation alone), `tiled` (a workgroup
//! with tiles in its memory, which `tile` chooses, `stage` fills, `weights` has what is summed in, and `exchange` uses for
//! what invocations share).

mod exchange;
mod plain;
mod stage;
mod tile;
mod tiled;
mod walk;
mod weights;

use kiln_ir::attention::Part;
use kiln_ir::kernel::{Arg, Attention, Body, Instr, Value};
use kiln_ir::{DType, Reject};

use super::body::{Scope, stored};
use super::code::{Code, literal, per_word};
use super::fours::Fours;
use super::index::Axes;
use super::module::{Module, n_scalars};
use super::{Schedule, Shader, Target, check_body, space};
use tile::Tile;

/// Operands, in the order in which the kernel has them.
pub(crate) const QUERY: usize = 0;
pub(crate) const KEY: usize = 1;
pub(crate) const VALUE: usize = 2;
pub(crate) const BIAS: usize = 3;
pub(crate) const LOGSUM: usize = 4;
pub(crate) const DELTA: usize = 5;
pub(crate) const COTANGENT: usize = 6;

/// What the operands are called.
pub(crate) const NAMES: [&str; 7] = ["query", "key", "value", "bias", "logsum", "delta", "cotangent"];

/// Which of batch, t, s, d, e and 1 are each operand's dims.
const SPACES: [[usize; 3]; 7] = [[0, 1, 3], [0, 2, 3], [0, 2, 4], [0, 1, 2], [0, 1, 5], [0, 1, 5], [0, 1, 4]];

/// Columns of a row of which an invocation's registers hold their part.
const MAX_WIDTH: usize = 128;

/// Queries or keys: their number, and the operands that have a row for each.
pub(crate) struct Side {
    /// How many there are.
    pub(crate) rows: usize,
    /// What the score is a product of.
    pub(crate) scored: usize,
    /// What the slope of a weight is a product of.
    pub(crate) sloped: usize,
}

/// What rows of the other side are weighted with.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Weight {
    /// `p`: the share of the softmax.
    Share,
    /// `ds`: the cotangent of the product that the score comes from.
    Slope,
}

/// A result that is a sum over the other side.
pub(crate) struct Sum {
    /// What it is called.
    pub(crate) name: &'static str,
    /// Columns.
    pub(crate) width: usize,
    /// Which rows are summed.
    pub(crate) operand: usize,
    /// Times what.
    pub(crate) weight: Weight,
    arg: u32,
}

/// An attention whose axes were merged, as a walk from one side along the other.
pub(crate) struct Flash<'a> {
    /// Product of the batch dims.
    pub(crate) batch: usize,
    /// The side that has the results.
    pub(crate) own: Side,
    /// The side that is summed over.
    pub(crate) other: Side,
    /// True iff the own side is the queries.
    pub(crate) from_queries: bool,
    /// True iff a key later than the query is hidden.
    pub(crate) causal: bool,
    /// True iff a bias is added to the score.
    pub(crate) biased: bool,
    /// Sums that are kept.
    pub(crate) sums: Vec<Sum>,
    /// Where the logarithm of each row's sum goes.
    pub(crate) logsum: Option<u32>,
    groups: [Vec<usize>; 6],
    operands: Vec<Body>,
    args: &'a [Arg],
}

/// The attention in WGSL.
pub(crate) fn emit(k: &Attention, target: &Target) -> Result<Shader, Reject> {
    let flash = Flash::new(k)?;
    let tile = match target.schedule {
        Schedule::Plain => None,
        Schedule::Auto if target.software => None,
        _ => Tile::choose(&flash, target),
    };
    let mut wide = vec![false; k.args.len()];
    let (how, code, workgroups, turns) = match &tile {
        Some(tile) => {
            wide = flash.in_strips();
            tiled::emit(&flash, tile, target, &wide)
        }
        None => plain::emit(&flash, target),
    };
    if turns > target.max_turns {
        return Err(Reject::Unsupported("an attention longer than a software adapter's loops"));
    }
    let parts: Vec<&str> = k.stores.iter().map(|(part, _)| part.name()).collect();
    let x = &k.extents;
    let causal = if k.causal { " causal" } else { "" };
    let name = format!("{}{causal} {:?}·[{}, {}]x[{}, {}]", parts.join("+"), x.batch, x.t, x.d, x.s, x.e);
    let scalars = n_scalars(&k.operands.iter().collect::<Vec<_>>());
    Ok(Module::new([name, how], &k.args, code, workgroups).with(&wide, scalars).shader(target))
}

impl<'a> Flash<'a> {
    fn new(k: &'a Attention) -> Result<Flash<'a>, Reject> {
        let x = &k.extents;
        for body in &k.operands {
            // A row and its columns are numbered apart, so that no number is as great as the points are many.
            check_body(body, &k.args, &[])?;
            if body.types.last().is_none_or(|t| t.compute() != DType::F32) {
                return Err(Reject::Unsupported("an attention of integers"));
            }
        }
        if x.d > MAX_WIDTH || x.e > MAX_WIDTH {
            return Err(Reject::Unsupported("an attention with more than 128 columns"));
        }
        let has = |part: Part| k.stores.iter().any(|s| s.0 == part);
        let kinds = [has(Part::Out) || has(Part::LogSum), has(Part::GradQ), has(Part::GradK) || has(Part::GradV)];
        if kinds.iter().filter(|kind| **kind).count() != 1 {
            return Err(Reject::Unsupported("parts of an attention that walk from different sides"));
        }
        let widths = |part| match part {
            Part::Out | Part::GradV => x.e,
            Part::GradQ | Part::GradK => x.d,
            Part::LogSum => 1,
        };
        for &(part, arg) in &k.stores {
            let dtype = k.args[arg as usize].dtype;
            if dtype.compute() != DType::F32 {
                return Err(Reject::Unsupported("a store of a type that its argument does not hold"));
            }
            // An invocation that has a row has whole words only if rows begin at one.
            if !widths(part).is_multiple_of(per_word(dtype)) {
                return Err(Reject::Unsupported("narrow rows of an odd length"));
            }
        }
        let sum = |&(part, arg): &(Part, u32)| {
            let (name, operand, weight) = match part {
                Part::Out => ("out", VALUE, Weight::Share),
                Part::GradQ => ("grad_q", KEY, Weight::Slope),
                Part::GradK => ("grad_k", QUERY, Weight::Slope),
                Part::GradV => ("grad_v", COTANGENT, Weight::Share),
                Part::LogSum => return None,
            };
            Some(Sum { name, width: widths(part), operand, weight, arg })
        };
        let [own, other] =
            [Side { rows: x.t, scored: QUERY, sloped: COTANGENT }, Side { rows: x.s, scored: KEY, sloped: VALUE }];
        let from_queries = !kinds[2];
        let (own, other) = if from_queries { (own, other) } else { (other, own) };
        let mut sums: Vec<Sum> = k.stores.iter().filter_map(sum).collect();
        // The shares are there first.
        sums.sort_by_key(|sum| sum.weight == Weight::Slope);
        let mut operands = k.operands.clone();
        let mut groups = [x.batch.clone(), vec![x.t], vec![x.s], vec![x.d], vec![x.e], vec![1]];
        let mut bodies: Vec<(&mut Body, &[usize])> = Vec::new();
        for (body, space) in operands.iter_mut().zip(&SPACES) {
            bodies.push((body, space));
        }
        space::merge(&mut groups, &mut bodies);
        Ok(Flash {
            batch: x.batch.iter().product(),
            own,
            other,
            from_queries,
            causal: k.causal,
            biased: !matches!(&k.operands[BIAS].instrs[..], [Instr::Const(_, c)] if *c == 0.0),
            sums,
            logsum: k.stores.iter().find(|s| s.0 == Part::LogSum).map(|s| s.1),
            groups,
            operands,
            args: &k.args,
        })
    }

    /// True for the output and the logarithms of the sums: then weights are not known before the walk is over.
    pub(crate) fn forward(&self) -> bool {
        self.sums.iter().all(|sum| sum.name == "out")
    }

    /// True iff some sum's weights are slopes.
    pub(crate) fn slopes(&self) -> bool {
        self.sums.iter().any(|sum| sum.weight == Weight::Slope)
    }

    /// Columns of an operand.
    pub(crate) fn width(&self, operand: usize) -> usize {
        self.groups[SPACES[operand][2]].iter().product()
    }

    /// `1 / √d`, as a literal.
    pub(crate) fn scale(&self) -> String {
        literal(DType::F32, (self.width(QUERY).max(1) as f64).sqrt().recip())
    }

    /// The operands that the walk reads.
    pub(crate) fn reads(&self) -> Vec<usize> {
        let slopes = self.slopes();
        let summed = |operand| self.sums.iter().any(|sum| sum.operand == operand);
        let read = |operand: usize| match operand {
            QUERY | KEY => true,
            BIAS => self.biased,
            LOGSUM => !self.forward(),
            DELTA => slopes,
            _ => slopes || summed(operand),
        };
        (0..self.operands.len()).filter(|&operand| read(operand)).collect()
    }

    /// `fn query(b, row, column)` and its like, `fn logsum(b, row)`; 0 beyond the edge where blocks of so many rows
    /// and columns may be ragged.
    pub(crate) fn operand(&self, code: &mut Code, operand: usize, block: [usize; 2]) {
        let column = if SPACES[operand][2] == 5 { "" } else { ", column: u32" };
        code.open(format!("fn {}(b: u32, row: u32{column}) -> f32", NAMES[operand]));
        let checks = self.beyond(operand, block);
        if !checks.is_empty() {
            code.open(format!("if ({})", checks.join(" || ")));
            code.line("return 0.0f;");
            code.close();
        }
        let scope = self.scope(operand);
        let last = scope.body.instrs.len() as Value - 1;
        scope.steps(code, &self.numbers(operand), &[last], "");
        code.line(format!("return t{last};"));
        code.close();
        code.line("");
    }

    /// `fn query4(b, row, column)` and its like: four columns from one on, 0 beyond the edge as in [`Flash::operand`];
    /// `wide` are the arguments that are bound in strips.
    pub(crate) fn operand4(&self, code: &mut Code, operand: usize, block: [usize; 2], wide: &[bool]) {
        let name = NAMES[operand];
        let head = format!("fn {name}4(b: u32, row: u32, column: u32) -> vec4<f32>");
        let Some(mut fours) = self.fours(operand) else {
            self.operand(code, operand, block);
            code.open(head);
            let columns: Vec<String> = (0..4).map(|c| format!("{name}(b, row, column + {c}u)")).collect();
            code.line(format!("return vec4<f32>({});", columns.join(", ")));
            code.close();
            return code.line("");
        };
        fours.keep(wide);
        fours.function(code, &head, &self.beyond(operand, block), &self.numbers(operand));
    }

    /// When an element of a block of so many rows and columns is beyond the edge.
    fn beyond(&self, operand: usize, block: [usize; 2]) -> Vec<String> {
        let [_, row, column] = SPACES[operand];
        let numbers = [("row", row, block[0]), ("column", column, block[1])];
        let dim = |group: usize| self.groups[group].iter().product::<usize>();
        let whole = |dim: usize, block: usize| dim > 0 && dim.is_multiple_of(block);
        let ragged = numbers.iter().filter(|n| n.1 != 5 && !whole(dim(n.1), n.2));
        ragged.map(|(name, group, _)| format!("{name} >= {}u", dim(*group))).collect()
    }

    /// What numbers the groups of an operand's axes, and how many each has.
    fn numbers(&self, operand: usize) -> [(&'static str, usize); 3] {
        let [batch, row, column] = SPACES[operand].map(|group| self.groups[group].len());
        [("b", batch), ("row", row), ("column", column)]
    }

    fn scope(&self, operand: usize) -> Scope<'_> {
        let dims = SPACES[operand].map(|group| self.groups[group].clone()).concat();
        Scope { body: &self.operands[operand], args: self.args, axes: Axes::numbered(&dims) }
    }

    /// An operand four columns at a time, if it has a column for each of its rows' fours.
    fn fours(&self, operand: usize) -> Option<Fours<'_>> {
        let scope = self.scope(operand);
        let rank = scope.axes.dims.len();
        let columns = matches!(operand, QUERY | KEY | VALUE | COTANGENT) && self.numbers(operand)[2].1 > 0;
        columns.then(|| Fours::new(&scope, rank - 1)).flatten()
    }

    /// The arguments that can be bound in strips: nobody takes them otherwise.
    fn in_strips(&self) -> Vec<bool> {
        let mut wide = vec![true; self.args.len()];
        for operand in self.reads() {
            Fours::narrow(self.fours(operand).as_ref(), &self.operands[operand], &mut wide);
        }
        let stored = self.sums.iter().map(|sum| (sum.arg, sum.width));
        for (arg, width) in stored.chain(self.logsum.map(|arg| (arg, 1))) {
            wide[arg as usize] &= width.is_multiple_of(4) && self.args[arg as usize].dtype == DType::F32;
        }
        wide
    }

    /// `fn keep_out(b, row, first, x)` and its like: four columns of a result, of which the last may lie beyond the
    /// edge.
    pub(crate) fn keep(&self, code: &mut Code, sum: &Sum, wide: &[bool]) {
        let Sum { name, width, arg, .. } = *sum;
        let dtype = self.args[arg as usize].dtype;
        let per = per_word(dtype);
        code.open(format!("fn keep_{name}(b: u32, row: u32, first: u32, x: vec4<f32>)"));
        code.line(format!("let at = (b * {}u + row) * {width}u + first;", self.own.rows));
        if wide[arg as usize] {
            code.line(format!("a{arg}[at / 4u] = x;"));
            code.close();
            return code.line("");
        }
        let edge = if width.is_multiple_of(4) { String::new() } else { format!(" && first + c < {width}u") };
        if per == 1 {
            code.open(format!("for (var c = 0u; c < 4u{edge}; c++)"));
            code.line(format!("a{arg}[at + c] = {};", stored(dtype, "x[c]")));
        } else {
            code.open(format!("for (var c = 0u; c < 4u{edge}; c += 2u)"));
            let [low, high] = ["x[c]", "x[c + 1u]"].map(|x| stored(dtype, x));
            code.line(format!("a{arg}[(at + c) / 2u] = {low} | ({high} << 16u);"));
        }
        code.close();
        code.close();
        code.line("");
    }

    /// Workgroups for so many pieces of work: none where all results are empty, no more than a dispatch may have.
    pub(crate) fn workgroups(&self, pieces: usize, target: &Target) -> usize {
        let columns = self.sums.iter().map(|sum| sum.width).sum::<usize>() + usize::from(self.logsum.is_some());
        if columns == 0 { 0 } else { pieces.min(target.max_workgroups as usize) }
    }
}

/// The least finite float: a maximum starts there, so that two of them have a difference.
pub(crate) fn least() -> String {
    literal(DType::F32, f64::from(f32::MIN))
}

/// What the logarithm of an empty sum is.
pub(crate) fn greatest() -> String {
    literal(DType::F32, f64::from(f32::MAX))
}
