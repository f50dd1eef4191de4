//! The steps themselves: addresses over points or rows, and registers.

use kiln_ir::kernel::{Instr, Value};
use kiln_ir::{Bound, DType, Index};

use super::{Class, Formula, Lowering};
use crate::fused::Step;
use crate::program::{Micro, RegId};
use crate::site::Site;

/// Bounds over other axes.
fn renamed(bounds: &[Bound], to: &dyn Fn(usize) -> usize) -> Vec<Bound> {
    bounds.iter().map(|b| Bound { index: b.index.rename(to), ..*b }).collect()
}

impl Lowering<'_> {
    /// An address over the tile's points.
    pub(super) fn point_site(&self, index: &Index, bounds: &[Bound], gather: Option<(DType, usize, u64)>) -> Site {
        let to = |axis: usize| self.space.tile_axis(axis);
        let rank = self.space.outer.len() + self.space.row.len();
        let along = |axis: usize| {
            let own = (0..rank).find(|&a| self.space.tile_axis(a) == axis);
            gather.is_some_and(|g| own.is_some_and(|a| g.2 >> a & 1 == 1))
        };
        Site::new(&self.space.tile_dims(), &index.rename(&to), &renamed(bounds, &to), gather.map(|g| (g.0, g.1)), along)
    }

    /// An address over the rows, or over a single point.
    pub(super) fn row_site(
        &self,
        class: Class,
        index: &Index,
        bounds: &[Bound],
        gather: Option<(DType, usize, u64)>,
    ) -> Site {
        let rank = self.space.outer.len() + self.space.row.len();
        let dims: &[usize] = if class == Class::Uniform { &[] } else { &self.space.outer };
        let to = |axis: usize| if axis == rank { dims.len() } else { axis };
        let along = |axis: usize| gather.is_some_and(|g| g.2 >> axis & 1 == 1);
        Site::new(dims, &index.rename(&to), &renamed(bounds, &to), gather.map(|g| (g.0, g.1)), along)
    }

    pub(super) fn site(
        &self,
        class: Class,
        index: &Index,
        bounds: &[Bound],
        gather: Option<(DType, usize, u64)>,
    ) -> Box<Site> {
        Box::new(match class {
            Class::Point => self.point_site(index, bounds, gather),
            Class::Row | Class::Uniform | Class::Column => self.row_site(class, index, bounds, gather),
        })
    }

    /// The step `i` for one class, with a register for its value.
    pub(super) fn micro(&mut self, i: usize, class: Class) -> (RegId, Micro) {
        let own = class != Class::Point || self.direct(i).is_some() || self.again[i];
        let dst = if own { self.fresh() } else { self.alloc() };
        let types = &self.body.types;
        let read = |v: Value| {
            let expanded = if class == Class::Point { self.expanded[v as usize] } else { None };
            expanded.or(self.reg[v as usize]).expect("operands are computed in order")
        };
        let micro = match &self.body.instrs[i] {
            Instr::Load { arg, index, gather: None, .. } if self.of_no_point(*arg, index) => {
                Micro::Fill { dtype: types[i].compute(), value: 0.0, dst }
            }
            Instr::Load { arg, index, valid, gather } => {
                let by = gather.map(|(v, n)| (types[v as usize].compute(), n, self.axes[v as usize]));
                let site = self.site(class, index, valid, by);
                let (arg, gather) = (*arg as usize, gather.map(|g| read(g.0)));
                Micro::Load { site, arg, gather, lend: self.may_lend(i, class, arg), dst }
            }
            Instr::Const(dtype, v) => Micro::Fill { dtype: dtype.compute(), value: dtype.round(*v), dst },
            Instr::Scalar(dtype, word) => Micro::Scalar { dtype: *dtype, word: *word as usize, dst },
            Instr::Coord(index) => Micro::Coord { site: self.site(class, index, &[], None), dst },
            Instr::Inside(bounds) => Micro::Inside { site: self.site(class, &Index::constant(0), bounds, None), dst },
            Instr::Op(..) if self.joined[i].is_some() => {
                let Some(Formula { step: Step::Fused(op), args }) = &self.joined[i] else {
                    unreachable!("what is joined is a formula")
                };
                // Formulas over fewer operands do not read the rest.
                let args = std::array::from_fn(|k| read(args[k.min(args.len() - 1)]));
                Micro::Fused { op: *op, args, dst }
            }
            Instr::Op(op, args) => {
                let arity = op.row().arity;
                let dtype = types[args[arity - 1] as usize].compute();
                Micro::Op { op: *op, dtype, args: [0, 1, 2].map(|k: usize| read(args[k.min(arity - 1)])), dst }
            }
            Instr::Cast(to, v) => Micro::Cast { from: types[*v as usize].compute(), to: *to, src: read(*v), dst },
            Instr::Acc => Micro::Acc { dtype: types[i].compute(), dst },
            Instr::Reduce(..) | Instr::ColumnReduce(..) => unreachable!("a reduction ends a pass"),
        };
        self.reg[i] = Some(dst);
        (dst, micro)
    }

    /// True iff rows are empty and this element does not exist: an address of no point may seem the same along the row.
    pub(super) fn of_no_point(&self, arg: u32, index: &Index) -> bool {
        let (least, greatest) = index.range(&[&*self.space.outer, &self.space.row].concat());
        self.space.n_points() == 0 && (least < 0 || greatest >= self.args[arg as usize].numel as i64)
    }

    /// The register that has a value at every point of a tile.
    pub(super) fn as_points(&mut self, v: usize, pass: usize) -> RegId {
        let reg = self.reg[v].expect("computed in order");
        if self.class[v] != Class::Row {
            return reg;
        }
        if let Some(dst) = self.expanded[v] {
            return dst;
        }
        let dst = self.fresh();
        let dtype = self.body.types[v].compute();
        debug_assert!(self.level[v] <= pass, "a row's value is there when its points need it");
        self.out.passes[self.level[v]].rows.push(Micro::Expand { dtype, src: reg, dst });
        self.expanded[v] = Some(dst);
        dst
    }

    pub(super) fn fresh(&mut self) -> RegId {
        self.out.n_regs += 1;
        self.out.n_regs - 1
    }

    pub(super) fn alloc(&mut self) -> RegId {
        self.free.pop().unwrap_or_else(|| self.fresh())
    }
}
