//! A worker: the registers of one thread, and the interpreter of [`Micro`] steps over a tile.
//!
//! Interpretation costs a few nanoseconds a step and tile; the work is in the vector kernels. The hard idea is where
//! lanes are: a register may stand for an argument's memory, read where it lies or written as it is computed, or for a
//! single value. Steps see [`Operand`] and [`Out`] and need not know. While there is something to compute, the next
//! tile's memory is asked for.

use std::cell::RefCell;

use kiln_ir::DType;

use crate::ahead::Wanted;
use crate::cast::cast;
use crate::columns::Column;
use crate::fused::{MOST, fused};
use crate::memory::View;
use crate::point::point;
use crate::program::{Micro, Program, Put, Reduction, RegId};
use crate::reduce::{Partial, Rows, reduce_tile, sum_products, takes_one};
use crate::simd::{Operand, Out, Reg, fence};
use crate::site::Walker;
use crate::space::Span;
use crate::spread::{expand, fill, repeat};
use crate::tiling::LINE;
use crate::tree::Tree;
use crate::walks::PIECE;
use crate::ways::Ways;

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
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Held {
    /// In the register.
    Lanes,
    /// In the register, and all the same.
    One,
    /// In an argument's memory, or among the sums that an epilogue finishes.
    Lent(View),
}

/// The working memory of one thread.
#[derive(Default)]
pub(crate) struct Worker {
    pub(crate) regs: Vec<Reg>,
    pub(crate) held: Vec<Held>,
    pub(crate) ways: Ways,
    /// What the next tile will touch.
    pub(crate) wanted: Wanted,
    pub(crate) walker: Walker,
    pub(crate) trees: Vec<Tree>,
    /// One for each reduction of a pass.
    pub(crate) partials: Vec<Partial>,
    /// One for each reduction over rows.
    pub(crate) columns: Vec<Column>,
    /// True iff it has stored past the caches.
    pub(crate) streamed: bool,
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
        self.settle();
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
    pub(crate) fn first_lanes(&self) -> Tile {
        let n = self.lanes.min(LINE);
        Tile { span: Span::range(self.span.start, n), lanes: n, rows: Rows { points: LINE, ..self.rows }, ..*self }
    }

    /// True iff the lanes fill cache lines: vector kernels touch no others then.
    pub(crate) fn is_whole(&self) -> bool {
        self.lanes.is_multiple_of(LINE)
    }
}

impl Worker {
    /// Lets other threads see what it stored past the caches.
    pub(crate) fn settle(&mut self) {
        if std::mem::take(&mut self.streamed) {
            fence();
        }
    }

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
        self.ways.clear();
        self.held.resize(program.n_regs, Held::Lanes);
        let setup = Tile { span: Span::range(0, 1), ..Tile::flat(0, lanes) };
        self.run(program, &program.setup, &setup, &env);
        program.setup.iter().for_each(|micro| self.held[micro.dst()] = Held::One);
        self.run(program, &program.again, &Tile::flat(0, lanes), &env);
    }

    /// Computes a step's lanes.
    pub(crate) fn step(
        &mut self,
        program: &Program,
        micro: &Micro,
        tile: &Tile,
        env: &Env,
        dst: &mut Out,
        own: Option<usize>,
    ) {
        let (regs, held, walker, wanted) = (&self.regs, &self.held, &mut self.walker, &mut self.wanted);
        let read = |slot: RegId| operand(regs, held, slot);
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
                point(*op, *dtype, tile.lanes, dst, &all(args), wanted.spread(n_pieces, false))
            }
            Micro::Fused { op, args, .. } => {
                let own = own.unwrap_or(MOST);
                let read = |k: usize| if k == own { Operand::own() } else { read(args[k]) };
                let ahead = wanted.spread(n_pieces, op.is_slow());
                fused(*op, tile.lanes, dst, &[read(0), read(1), read(2), read(3), read(4)], ahead);
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

    /// Reduces what a tile has computed, into one of the partial results; `more` iff what is there goes on.
    pub(crate) fn reduce(&mut self, r: &Reduction, shape: &Rows, more: bool, to: usize) {
        self.lay_out(r, shape);
        let Worker { regs, held, wanted, partials, .. } = self;
        reduce(regs, held, wanted, r, shape, more, &mut partials[to]);
    }

    /// Reduces what a tile of whole rows has computed, into a register.
    pub(crate) fn reduce_rows(&mut self, r: &Reduction, shape: &Rows, bytes: usize) {
        self.reduce(r, shape, false, 0);
        self.regs[r.dst].copy_from(self.partials[0].result(r.op), bytes);
    }

    /// Reduces what a tile has computed across its rows, into what a column has so far.
    pub(crate) fn reduce_column(&mut self, r: &Reduction, shape: &Rows, more: bool, to: usize) {
        self.lay_out(r, shape);
        let Worker { regs, held, wanted, columns, .. } = self;
        reduce(regs, held, wanted, r, shape, more, &mut columns[to].partial);
    }

    /// Lays out what a reduction reads, where it is a single value.
    fn lay_out(&mut self, r: &Reduction, shape: &Rows) {
        for slot in [r.src, r.by.unwrap_or(r.src)] {
            if self.held[slot] == Held::One && !(r.squares && slot != r.src && takes_one(shape)) {
                repeat(r.dtype, shape.rows * shape.points, &mut self.regs[slot].out());
                self.held[slot] = Held::Lanes;
            }
        }
    }

    /// Stores what a tile has computed.
    pub(crate) fn put<'a>(
        &mut self,
        program: &Program,
        puts: impl IntoIterator<Item = &'a Put>,
        span: Span,
        env: &Env,
    ) {
        for put in puts {
            let there = program.direct[put.src].is_some_and(|own| std::ptr::eq(&program.puts[own], put));
            if there && matches!(self.held[put.src], Held::Lent(_)) {
                continue;
            }
            let src = operand(&self.regs, &self.held, put.src);
            self.streamed |= put.streams;
            put.site.store(program.dtypes[put.arg], env.args[put.arg], span, src, put.streams, &mut self.walker);
        }
    }
}

#[inline(always)]
fn reduce(
    regs: &[Reg],
    held: &[Held],
    wanted: &mut Wanted,
    r: &Reduction,
    shape: &Rows,
    more: bool,
    out: &mut Partial,
) {
    let mut ahead = wanted.spread((shape.rows * shape.points).div_ceil(PIECE), false);
    let src = operand(regs, held, r.src);
    match r.by {
        Some(by) => sum_products(r, &[src, operand(regs, held, by)], shape, more, out, &mut ahead),
        None => reduce_tile(r, &src, shape, more, out, &mut ahead),
    }
}

/// A register's lanes.
#[inline(always)]
pub(crate) fn operand<'a>(regs: &'a [Reg], held: &[Held], slot: RegId) -> Operand<'a> {
    operand_at(regs, held[slot], slot)
}

/// A register's lanes, where it had them at some time.
#[inline(always)]
pub(crate) fn operand_at(regs: &[Reg], held: Held, slot: RegId) -> Operand<'_> {
    match held {
        Held::Lanes => regs[slot].operand(),
        Held::One => regs[slot].operand().repeated(),
        Held::Lent(there) => Operand::lent(there.slice(0, there.len::<u8>())),
    }
}
