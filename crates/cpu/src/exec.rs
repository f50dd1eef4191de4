//! A worker: the registers of one thread, and the interpreter of [`Micro`] steps over a tile.
//!
//! Interpretation costs a few nanoseconds a step and tile; the work is in the vector kernels. The hard idea is where
//! lanes are: a register may stand for an argument's memory, read where it lies or written as it is computed, or for a
//! single value. Steps see [`Operand`] and [`Out`] and need not know. While there is something to compute, the next
//! tile's memory is asked for.

use std::cell::RefCell;

use kiln_ir::ops::Typing;
use kiln_ir::{DType, PointOp};

use crate::ahead::Wanted;
use crate::cast::cast;
use crate::columns::Column;
use crate::fused::{MOST, fused};
use crate::memory::View;
use crate::point::point;
use crate::program::{Micro, Program, Put, Reduction, RegId};
use crate::reduce::{Partial, Rows, reduce_tile, sum_products};
use crate::simd::{Operand, Out, Reg, fence};
use crate::site::Walker;
use crate::space::Span;
use crate::spread::{expand, fill, repeat};
use crate::tree::Tree;
use crate::walks::PIECE;

/// What a kernel runs on.
#[derive(Clone, Copy)]
pub(crate) struct Env<'a> {
    /// One view per argument.
    pub(crate) args: &'a [View],
    /// The kernel's scalar words.
    pub(crate) scalars: &'a [u32],
    /// Memory that the kernel's tasks share while it runs, as much as it asked for.
    pub(crate) scratch: View,
    /// The sums that an epilogue finishes.
    pub(crate) sums: View,
}

/// Where the lanes of a register are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Held {
    /// In the register.
    Lanes,
    /// In the register, and all the same.
    One,
    /// In an argument's memory: so many bytes from there on.
    Lent { arg: usize, at: usize, bytes: usize },
    /// Among the sums that an epilogue finishes: so many bytes from there on.
    Sums { at: usize, bytes: usize },
}

/// The working memory of one thread.
#[derive(Default)]
pub(crate) struct Worker {
    pub(crate) regs: Vec<Reg>,
    pub(crate) held: Vec<Held>,
    /// What the next tile will touch.
    pub(crate) wanted: Wanted,
    pub(crate) walker: Walker,
    pub(crate) trees: Vec<Tree>,
    /// One for each reduction of a pass.
    pub(crate) partials: Vec<Partial>,
    /// One for each reduction over rows.
    pub(crate) columns: Vec<Column>,
    /// True iff it has stored past the caches.
    streamed: bool,
}

thread_local! {
    #[expect(clippy::vec_box, reason = "a worker changes hands for each kernel, and is large")]
    static IDLE: RefCell<Vec<Box<Worker>>> = const { RefCell::new(Vec::new()) };
}

/// A worker on loan from its thread.
pub(crate) struct Loan(Option<Box<Worker>>);

impl Loan {
    /// A worker with room for a program's tiles, its setup done.
    pub(crate) fn new(program: &Program, lanes: usize, env: Env) -> Loan {
        let mut loan = Loan::bare();
        loan.prepare(program, lanes, env);
        loan
    }

    /// A worker for no program in particular.
    pub(crate) fn bare() -> Loan {
        Loan(Some(IDLE.with_borrow_mut(Vec::pop).unwrap_or_default()))
    }
}

impl Drop for Loan {
    fn drop(&mut self) {
        if std::mem::take(&mut self.streamed) {
            fence();
        }
        IDLE.with_borrow_mut(|idle| idle.extend(self.0.take()));
    }
}

impl std::ops::Deref for Loan {
    type Target = Worker;
    fn deref(&self) -> &Worker {
        self.0.as_deref().expect("present until dropped")
    }
}

impl std::ops::DerefMut for Loan {
    fn deref_mut(&mut self) -> &mut Worker {
        self.0.as_deref_mut().expect("present until dropped")
    }
}

/// One tile: which points, how many lanes, and how its rows lie.
#[derive(Clone, Copy)]
pub(crate) struct Tile {
    pub(crate) span: Span,
    pub(crate) lanes: usize,
    pub(crate) rows: Rows,
    /// Where the sums of an epilogue's points begin.
    pub(crate) sums: Option<usize>,
}

impl Tile {
    /// Consecutive points without rows.
    pub(crate) fn flat(start: usize, n: usize) -> Tile {
        let rows = Rows { inner: false, rows: n, points: 1, first: 0 };
        Tile { span: Span::range(start, n), lanes: n, rows, sums: None }
    }

    /// Points of rows that lie in a span.
    pub(crate) fn of_rows(span: Span, rows: Rows) -> Tile {
        Tile { span, lanes: rows.rows * rows.points, rows, sums: None }
    }

    /// The tile as far as a cache line of lanes goes.
    fn first_lanes(self) -> Tile {
        let n = self.lanes.min(16);
        Tile { span: Span::range(self.span.start, n), lanes: n, rows: Rows { points: 16, ..self.rows }, ..self }
    }

    /// True iff the lanes fill cache lines: vector kernels touch no others then.
    fn is_whole(self) -> bool {
        self.lanes.is_multiple_of(16)
    }
}

impl Worker {
    /// Makes room for a program's tiles and computes what no axis changes.
    pub(crate) fn prepare(&mut self, program: &Program, lanes: usize, env: Env) {
        let bytes = (lanes.next_multiple_of(16) * program.lane_bytes).max(64);
        self.regs.resize_with(self.regs.len().max(program.n_regs), Reg::default);
        self.regs[..program.n_regs].iter_mut().for_each(|r| r.reserve_bytes(bytes));
        let most = program.passes.iter().map(|pass| pass.reductions.len()).max().unwrap_or(0);
        self.partials.resize_with(self.partials.len().max(most), Partial::default);
        self.partials[..most].iter_mut().for_each(|partial| partial.reserve(bytes));
        self.columns.iter_mut().for_each(Column::clear);
        self.held.clear();
        self.wanted.clear();
        self.held.resize(program.n_regs, Held::Lanes);
        let setup = Tile { span: Span::range(0, 1), ..Tile::flat(0, lanes) };
        self.run(program, &program.setup, setup, env);
        program.setup.iter().for_each(|micro| self.held[micro.dst()] = Held::One);
    }

    /// Runs steps over a tile.
    pub(crate) fn run(&mut self, program: &Program, micros: &[Micro], tile: Tile, env: Env) {
        for micro in micros {
            if let Micro::Adam(adam) = micro {
                if !self.adam(program, adam, tile, env) {
                    self.run(program, &adam.steps, tile, env);
                }
                continue;
            }
            if tile.lanes == 1 && self.single(micro) || tile.rows.is_single() && self.once(program, micro) {
                continue;
            }
            let slot = micro.dst();
            if let Micro::Load { .. } | Micro::Acc { .. } = micro
                && let Some(lent) = self.lend(program, micro, tile, env)
            {
                self.held[slot] = lent;
                continue;
            }
            let target = if program.direct[slot].is_some() { self.target(program, micro, tile) } else { None };
            let mut reg = std::mem::take(&mut self.regs[slot]);
            self.held[slot] = match target {
                Some((Held::Lent { arg, at, bytes }, own)) => {
                    // SAFETY: the points of this tile are this task's to store, and no operand of this step or of a
                    // later one is read from there, but for one that the step reads through the result itself.
                    let mut dst = Out::lent(unsafe { env.args[arg].slice_mut(at, bytes) });
                    self.step(program, micro, tile, env, &mut dst, own);
                    Held::Lent { arg, at, bytes }
                }
                _ => {
                    let one = program.single[slot] && self.is_one(micro, tile);
                    let tile = if one { tile.first_lanes() } else { tile };
                    self.step(program, micro, tile, env, &mut reg.out(), None);
                    if one { Held::One } else { Held::Lanes }
                }
            };
            self.regs[slot] = reg;
        }
    }

    /// Does a step for a tile of one lane, as what is once a row of a tile: vectors cost more. What is more than rounded
    /// once is done by its row's reference.
    fn single(&mut self, micro: &Micro) -> bool {
        let Micro::Op { op, dtype: DType::F32, args, dst } = micro else { return false };
        let value = |slot: RegId| self.regs[slot].lanes::<f32>()[0];
        let [x, y] = [value(args[0]), value(args[1])];
        let result = match op {
            PointOp::Add => x + y,
            PointOp::Sub => x - y,
            PointOp::Mul => x * y,
            PointOp::Div => x / y,
            PointOp::Neg => -x,
            _ if matches!(op.row().typing, Typing::Number | Typing::Float) => {
                (op.row().reference)(DType::F32, [x, y, value(args[2])].map(f64::from)) as f32
            }
            _ => return false,
        };
        self.regs[*dst].lanes_mut::<f32>()[0] = result;
        self.held[*dst] = Held::Lanes;
        true
    }

    /// Repeats what is once a row in a tile of one row: its value is that of all lanes.
    fn once(&mut self, program: &Program, micro: &Micro) -> bool {
        let Micro::Expand { src, dst, .. } = *micro else { return false };
        if !program.single[dst] {
            return false;
        }
        debug_assert!(matches!(self.held[src], Held::Lanes | Held::One), "what is once a row is in its register");
        let value = self.regs[src].first_line();
        self.regs[dst].set_first_line(value);
        self.held[dst] = Held::One;
        true
    }

    /// True iff a step gives the same at every point of a tile.
    fn is_one(&mut self, micro: &Micro, tile: Tile) -> bool {
        let one = |slot: &RegId| self.held[*slot] == Held::One;
        match micro {
            Micro::Op { args, .. } => args.iter().all(one),
            Micro::Fused { args, .. } => args.iter().all(one),
            Micro::Cast { src, .. } => one(src),
            Micro::Load { site, gather: None, .. } => tile.is_whole() && site.is_constant(tile.span, &mut self.walker),
            _ => false,
        }
    }

    /// What a load gives without moving anything, where a tile's elements lie as its lanes would; sums always do.
    pub(crate) fn lend(&mut self, program: &Program, micro: &Micro, tile: Tile, env: Env) -> Option<Held> {
        if !tile.is_whole() {
            return None;
        }
        if let (Micro::Acc { dtype, dst }, Some(at)) = (micro, tile.sums) {
            let size = dtype.size_bytes();
            let sums = Held::Sums { at: at * size, bytes: tile.lanes * size };
            return program.direct[*dst].is_none().then_some(sums);
        }
        let Micro::Load { site, arg, gather, lend: true, .. } = micro else { return None };
        let gather = gather.map(|g| operand(&self.regs, &self.held, g, env));
        let at = site.dense(tile.span, gather, &mut self.walker)?;
        let size = program.dtypes[*arg].size_bytes();
        let (at, bytes) = (at * size, tile.lanes * size);
        self.want_next(program, *arg, at, bytes);
        Some(Held::Lent { arg: *arg, at, bytes })
    }

    /// Notes that the bytes after these will be needed with the next tile.
    fn want_next(&mut self, program: &Program, arg: usize, at: usize, bytes: usize) {
        if program.busy {
            self.wanted.note(arg, at + bytes, bytes);
        }
    }

    /// The memory into which a tile's value is stored, where its elements lie as its lanes do; and which operand of the
    /// step is what is there before.
    pub(crate) fn target(&mut self, program: &Program, micro: &Micro, tile: Tile) -> Option<(Held, Option<usize>)> {
        let put = &program.puts[program.direct[micro.dst()]?];
        if !tile.is_whole() {
            return None;
        }
        let at = put.site.dense(tile.span, None, &mut self.walker)?;
        let size = program.dtypes[put.arg].size_bytes();
        let (at, bytes) = (at * size, tile.lanes * size);
        let there = Held::Lent { arg: put.arg, at, bytes };
        let found = |slot: &RegId| self.held[*slot] == there;
        if let Micro::Fused { op, args, .. } = micro
            && let Some(own) = args[..op.arity()].iter().position(found)
        {
            let alone = args[..op.arity()].iter().filter(|slot| found(slot)).count() == 1;
            return (alone && op.own() == Some(own)).then_some((there, Some(own)));
        }
        if put.updates {
            return None;
        }
        self.want_next(program, put.arg, at, bytes);
        Some((there, None))
    }

    fn step(&mut self, program: &Program, micro: &Micro, tile: Tile, env: Env, dst: &mut Out, own: Option<usize>) {
        let (regs, held, walker, wanted) = (&self.regs, &self.held, &mut self.walker, &mut self.wanted);
        let read = |slot: RegId| operand(regs, held, slot, env);
        // Written out: `map` would send each operand through memory.
        let all = |args: &[RegId; 3]| [read(args[0]), read(args[1]), read(args[2])];
        let n_pieces = tile.lanes.div_ceil(PIECE);
        match micro {
            Micro::Load { site, arg, gather, .. } => {
                site.load(program.dtypes[*arg], env.args[*arg], tile.span, gather.map(read), dst, walker);
            }
            Micro::Fill { dtype, value, .. } => fill(*dtype, *value, tile.lanes, dst),
            Micro::Scalar { dtype, word, .. } => {
                let word = env.scalars[*word];
                let word = if *dtype == DType::Bool { (word != 0) as u32 } else { word };
                dst.lanes_mut::<u32>()[..tile.lanes].fill(word);
            }
            Micro::Coord { site, .. } => site.coord(tile.span, dst, walker),
            Micro::Inside { site, .. } => site.inside(tile.span, dst, walker),
            Micro::Op { op, dtype, args, .. } => {
                point(*op, *dtype, tile.lanes, dst, all(args), wanted.spread(n_pieces, false, env))
            }
            Micro::Fused { op, dtype, args, .. } => {
                let own = own.unwrap_or(MOST);
                let read = |k: usize| if k == own { Operand::own() } else { read(args[k]) };
                let ahead = wanted.spread(n_pieces, op.is_slow(), env);
                fused(*op, *dtype, tile.lanes, dst, &[read(0), read(1), read(2), read(3), read(4)], ahead);
            }
            Micro::Adam(_) => unreachable!("done as a whole"),
            Micro::Cast { from, to, src, .. } => cast(*from, *to, tile.lanes, dst, read(*src)),
            Micro::Spread { dtype, .. } => repeat(*dtype, tile.lanes, dst),
            Micro::Expand { dtype, src, .. } => expand(*dtype, tile.rows, read(*src), dst),
            Micro::Acc { dtype, .. } => {
                let at = tile.sums.expect("only a contraction's epilogue reads its sum");
                match dtype {
                    DType::F64 => dst.lanes_mut()[..tile.lanes].copy_from_slice(env.sums.slice::<u64>(at, tile.lanes)),
                    _ => dst.lanes_mut()[..tile.lanes].copy_from_slice(env.sums.slice::<u32>(at, tile.lanes)),
                }
            }
        }
    }

    /// Reduces what a tile has computed; `more` iff what is there goes on.
    pub(crate) fn reduce(&mut self, r: &Reduction, shape: Rows, more: bool, env: Env, out: &mut Partial) {
        for slot in std::iter::once(r.src).chain(r.by) {
            if self.held[slot] == Held::One {
                repeat(r.dtype, shape.rows * shape.points, &mut self.regs[slot].out());
                self.held[slot] = Held::Lanes;
            }
        }
        let read = |slot: RegId| operand(&self.regs, &self.held, slot, env);
        let mut ahead = self.wanted.spread((shape.rows * shape.points).div_ceil(PIECE), false, env);
        match r.by {
            Some(by) => sum_products(r.dtype, [read(r.src), read(by)], shape, more, out, &mut ahead),
            None => reduce_tile(r, read(r.src), shape, more, out, &mut ahead),
        }
    }

    /// Stores what a tile has computed.
    pub(crate) fn put(&mut self, program: &Program, puts: &[Put], span: Span, env: Env) {
        for put in puts {
            let there = program.direct[put.src].is_some_and(|own| std::ptr::eq(&program.puts[own], put));
            if there && matches!(self.held[put.src], Held::Lent { .. }) {
                continue;
            }
            let src = operand(&self.regs, &self.held, put.src, env);
            self.streamed |= put.streams;
            put.site.store(program.dtypes[put.arg], env.args[put.arg], span, src, put.streams, &mut self.walker);
        }
    }
}

#[inline(always)]
fn operand<'a>(regs: &'a [Reg], held: &[Held], slot: RegId, env: Env<'a>) -> Operand<'a> {
    operand_at(regs, held[slot], slot, env)
}

/// A register's lanes, where it had them at some time.
#[inline(always)]
pub(crate) fn operand_at<'a>(regs: &'a [Reg], held: Held, slot: RegId, env: Env<'a>) -> Operand<'a> {
    match held {
        Held::Lanes => regs[slot].operand(),
        Held::One => regs[slot].operand().repeated(),
        Held::Lent { arg, at, bytes } => Operand::lent(env.args[arg].slice(at, bytes)),
        Held::Sums { at, bytes } => Operand::lent(env.sums.slice(at, bytes)),
    }
}
