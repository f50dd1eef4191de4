//! Questions to kernels' bodies, and changes of their index space: what every backend's lowering begins with.

use crate::index::Index;
use crate::kernel::{Body, Dot, Instr, Loop, Store, Value};
use crate::{DType, PointOp, ReduceOp};

impl Instr {
    /// The earlier values that it reads.
    pub fn operands(&self) -> Vec<Value> {
        match self {
            Instr::Load { gather, .. } => gather.iter().map(|g| g.0).collect(),
            Instr::Op(op, args) => args[..op.row().arity].to_vec(),
            Instr::Cast(_, v) | Instr::Reduce(_, v) | Instr::ColumnReduce(_, v) => vec![*v],
            Instr::Const(..) | Instr::Scalar(..) | Instr::Coord(_) | Instr::Inside(_) | Instr::Acc => Vec::new(),
        }
    }

    /// Replaces the number of each earlier value that it reads.
    pub fn map_operands(&mut self, f: &dyn Fn(Value) -> Value) {
        match self {
            Instr::Load { gather, .. } => gather.iter_mut().for_each(|(v, _)| *v = f(*v)),
            Instr::Op(_, args) => *args = args.map(f),
            Instr::Cast(_, v) | Instr::Reduce(_, v) | Instr::ColumnReduce(_, v) => *v = f(*v),
            Instr::Const(..) | Instr::Scalar(..) | Instr::Coord(_) | Instr::Inside(_) | Instr::Acc => {}
        }
    }

    /// Its index expressions: an address and its bounds.
    pub fn indices(&self) -> Vec<&Index> {
        match self {
            Instr::Load { index, valid, .. } => std::iter::once(index).chain(valid.iter().map(|b| &b.index)).collect(),
            Instr::Coord(index) => vec![index],
            Instr::Inside(bounds) => bounds.iter().map(|b| &b.index).collect(),
            Instr::Const(..)
            | Instr::Scalar(..)
            | Instr::Op(..)
            | Instr::Cast(..)
            | Instr::Reduce(..)
            | Instr::ColumnReduce(..)
            | Instr::Acc => Vec::new(),
        }
    }

    /// Replaces each of its index expressions.
    pub fn map_indices(&mut self, f: &dyn Fn(&Index) -> Index) {
        match self {
            Instr::Load { index, valid, .. } => {
                *index = f(index);
                valid.iter_mut().for_each(|b| b.index = f(&b.index));
            }
            Instr::Coord(index) => *index = f(index),
            Instr::Inside(bounds) => bounds.iter_mut().for_each(|b| b.index = f(&b.index)),
            Instr::Const(..)
            | Instr::Scalar(..)
            | Instr::Op(..)
            | Instr::Cast(..)
            | Instr::Reduce(..)
            | Instr::ColumnReduce(..)
            | Instr::Acc => {}
        }
    }
}

impl Body {
    /// The index expressions of all steps and stores.
    pub fn indices(&self) -> impl Iterator<Item = &Index> {
        self.instrs.iter().flat_map(Instr::indices).chain(self.stores.iter().map(|s| &s.index))
    }

    /// For each step, whether a store needs it, or the value of the last step if that is wanted.
    pub fn live(&self, last: bool) -> Vec<bool> {
        let mut live = vec![false; self.instrs.len()];
        self.stores.iter().for_each(|s| live[s.value as usize] = true);
        if let Some(value) = live.last_mut() {
            *value |= last;
        }
        for (i, instr) in self.instrs.iter().enumerate().rev() {
            if live[i] {
                instr.operands().into_iter().for_each(|v| live[v as usize] = true);
            }
        }
        live
    }

    /// The steps that stores need, and no others.
    pub fn pruned(&self) -> Body {
        let live = self.live(false);
        let mut out = Body::default();
        let mut now: Vec<Value> = vec![0; self.instrs.len()];
        for (v, instr) in self.instrs.iter().enumerate().filter(|(v, _)| live[*v]) {
            let mut instr = instr.clone();
            instr.map_operands(&|v| now[v as usize]);
            now[v] = out.push(instr, self.types[v]);
        }
        out.stores = self.stores.iter().map(|s| Store { value: now[s.value as usize], ..s.clone() }).collect();
        out
    }

    /// Replaces every index expression.
    pub fn map_indices(&mut self, f: &dyn Fn(&Index) -> Index) {
        self.instrs.iter_mut().for_each(|i| i.map_indices(f));
        self.stores.iter_mut().for_each(|s| s.index = f(&s.index));
    }

    /// Replaces the number of each argument.
    pub fn map_args(&mut self, f: &dyn Fn(u32) -> u32) {
        for instr in &mut self.instrs {
            if let Instr::Load { arg, .. } = instr {
                *arg = f(*arg);
            }
        }
        self.stores.iter_mut().for_each(|s| s.arg = f(s.arg));
    }

    /// The body with axis `a` of its space renamed to `to(a)`, the gathered coordinate's too.
    pub fn renamed(&self, to: &dyn Fn(usize) -> usize) -> Body {
        let mut body = self.clone();
        body.map_indices(&|index| index.rename(to));
        body
    }

    /// Appends another body's steps and stores, `acc` in place of its sum; gives the other's values as they are
    /// numbered now.
    ///
    /// # Panics
    /// If the other reads a sum and there is no `acc`.
    pub fn append(&mut self, other: &Body, acc: Option<Value>) -> Vec<Value> {
        let mut values: Vec<Value> = Vec::with_capacity(other.instrs.len());
        for (instr, &dtype) in other.instrs.iter().zip(&other.types) {
            if let (Instr::Acc, Some(acc)) = (instr, acc) {
                values.push(acc);
                continue;
            }
            assert!(*instr != Instr::Acc, "only an epilogue reads the sum");
            let mut instr = instr.clone();
            instr.map_operands(&|v| values[v as usize]);
            values.push(self.push(instr, dtype));
        }
        self.stores.extend(other.stores.iter().map(|s| Store { value: values[s.value as usize], ..s.clone() }));
        values
    }
}

impl Dot {
    /// The same contraction with its operands in each other's place.
    pub fn turned(&self) -> Dot {
        let (b, m, n, k) = (self.batch.len(), self.m.len(), self.n.len(), self.k.len());
        // Two groups of axes behind those of the batch change places; a gathered coordinate stays behind them.
        let swap = |first: usize, second: usize| {
            move |axis: usize| match axis {
                _ if axis < b || axis >= b + first + second => axis,
                _ if axis < b + first => axis + second,
                _ => axis - first,
            }
        };
        Dot {
            batch: self.batch.clone(),
            m: self.n.clone(),
            n: self.m.clone(),
            k: self.k.clone(),
            args: self.args.clone(),
            lhs: self.rhs.renamed(&swap(k, n)),
            rhs: self.lhs.renamed(&swap(m, k)),
            epilogue: self.epilogue.renamed(&swap(m, n)),
        }
    }

    /// The same contraction as products summed along rows: for shapes too thin to share operands.
    pub fn as_loop(&self) -> Loop {
        let (b, m, n, k) = (self.batch.len(), self.m.len(), self.n.len(), self.k.len());
        let nothing = self.k.contains(&0);
        // A loop reduces iff it has a row; an empty list of axes still is one product. A sum of nothing needs none.
        let row = match k {
            _ if nothing => Vec::new(),
            0 => vec![1],
            _ => self.k.clone(),
        };
        let rank = b + m + n + row.len();
        let lhs = |axis: usize| match axis {
            _ if axis < b + m => axis,
            _ if axis < b + m + k => axis + n,
            _ => rank,
        };
        let rhs = |axis: usize| match axis {
            _ if axis < b => axis,
            _ if axis < b + k => axis + m + n,
            _ if axis < b + k + n => axis + m - k,
            _ => rank,
        };
        let epilogue = |axis: usize| if axis < b + m + n { axis } else { rank };
        let mut body = Body::default();
        let value = |values: Vec<Value>| *values.last().expect("an operand has a value");
        let dtype = self.lhs.types.last().map_or(DType::F32, |t| t.compute());
        let sum = if nothing {
            body.push(Instr::Const(dtype, 0.0), dtype)
        } else {
            let x = value(body.append(&self.lhs.renamed(&lhs), None));
            let y = value(body.append(&self.rhs.renamed(&rhs), None));
            let product = body.push(Instr::Op(PointOp::Mul, [x, y, y]), dtype);
            body.push(Instr::Reduce(ReduceOp::Sum, product), dtype)
        };
        body.append(&self.epilogue.renamed(&epilogue), Some(sum));
        let outer = [&self.batch[..], &self.m, &self.n].concat();
        Loop { outer, row, args: self.args.clone(), body }
    }
}
