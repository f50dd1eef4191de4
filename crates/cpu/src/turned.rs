//! Maps that read across what they store, as transpositions do: tiles along both axes, so that the cache lines of all
//! arguments are used whole.
//!
//! What only moves words goes block by block, from memory to memory: a block is a cache line each way, and stays in
//! registers and the nearest cache. 4096 × 4096 numbers take half as long again as copying them past the caches does.

use kiln_ir::kernel::{Instr, Loop};

use crate::exec::{Env, Loan, Tile, Worker};
use crate::loops::LoopExe;
use crate::lower::is_lane;
use crate::program::{Micro, Program};
use crate::space::{Span, stride};
use crate::task::for_each;
use crate::tiling::LINE;

/// How a map is done where some argument is dense along another axis than the last.
pub(crate) struct Turned {
    /// That axis.
    axis: usize,
    /// True iff words are moved, and that is all.
    moves: bool,
}

/// Points along both axes of a turned tile of little arithmetic: one reads some lines far apart, but each for a kilobyte,
/// and the tile stays in the outer cache of a core.
const SIDE: usize = 256;

/// How far a tile of which words are only moved goes: along the lines that are read, and over how many of these.
const MOVED: [usize; 2] = [1024, 64];

/// Turned tiles that keep many threads busy.
const TILES: usize = 32;

impl Turned {
    /// The way of a map, if it is one.
    pub(crate) fn new(kernel: &Loop, program: &Program) -> Option<Turned> {
        Turned::axis(kernel).map(|axis| Turned { axis, moves: moves(program) })
    }

    /// The axis along which what a map reads is dense, if it is not the last.
    pub(crate) fn axis(kernel: &Loop) -> Option<usize> {
        let last = kernel.outer.len().checked_sub(1)?;
        if !kernel.row.is_empty() || kernel.outer[last] < LINE {
            return None;
        }
        let across = |instr: &Instr| {
            let Instr::Load { index, gather: None, valid, .. } = instr else { return None };
            let far = valid.is_empty() && index.affine(last + 1).is_some_and(|strides| strides[last].abs() > 1);
            (0..last).rev().filter(|&axis| kernel.outer[axis] >= LINE && far).find(|&a| stride(index, a) == Some(1))
        };
        kernel.body.instrs.iter().find_map(across)
    }
}

/// True iff a program stores what it loads.
fn moves(program: &Program) -> bool {
    let ([pass], [put]) = (&program.passes[..], &program.puts[..]) else { return false };
    let [Micro::Load { arg, dst, .. }] = pass.points[..] else { return false };
    let (from, to) = (program.dtypes[arg], program.dtypes[put.arg]);
    dst == put.src && from == to && is_lane(from) && from.size_bytes() == size_of::<u32>()
}

impl LoopExe {
    /// Tiles along the last axis and another one, which is walked first: its neighbours share pages, if not lines.
    pub(crate) fn run_turned(&self, turned: &Turned, env: Env, parallel: bool) {
        let (axis, dims) = (turned.axis, &self.space.outer);
        let (high, wide) = (dims[axis], dims[dims.len() - 1]);
        let pitch: usize = dims[axis + 1..].iter().product();
        let [line, most] = self.turned_tile(turned, high, wide);
        let (line, most) = (line.min(high), most.min(wide));
        let (n_rows, n_between, n_columns) = (high.div_ceil(line), pitch / wide, wide.div_ceil(most));
        let n = self.space.n_rows() / (high * wide) * n_rows * n_columns;
        let init = || Loan::new(&self.program, line * most, env);
        for_each(parallel, n, line * most * self.program.weight(), init, |worker, i| {
            let (i, row) = (i / n_rows, i % n_rows * line);
            let (i, column) = (i / n_columns, i % n_columns * most);
            let (before, between) = (i / n_between, i % n_between);
            let (count, len) = (line.min(high - row), most.min(wide - column));
            let start = (before * high + row) * pitch + between * wide + column;
            // As so many lines, also where those adjoin.
            if turned.moves && worker.turn(&self.program, Span { start, len, count, pitch }, &env) {
                return;
            }
            let span = Span::new(start, len, count, pitch);
            let tile = Tile { span, ..Tile::flat(0, len * count) };
            worker.run(&self.program, &self.program.passes[0].points, &tile, &env);
            worker.put(&self.program, &self.program.puts, tile.span, &env);
        });
    }

    /// How far a turned tile goes along the other axis, and along the last one.
    fn turned_tile(&self, turned: &Turned, high: usize, wide: usize) -> [usize; 2] {
        if turned.moves {
            return MOVED;
        }
        // Where much is computed, all of its registers are in the nearest cache.
        if self.program.weight() > 2 {
            return [LINE, 8 * LINE];
        }
        let n_tiles = |side: usize| self.space.n_rows() / (high * wide) * high.div_ceil(side) * wide.div_ceil(SIDE);
        let sides = std::iter::successors(Some(SIDE), |side| Some(side / 2).filter(|&side| side >= LINE));
        [sides.clone().find(|&side| n_tiles(side) >= TILES).unwrap_or(LINE), SIDE]
    }
}

impl Worker {
    /// Moves the words of a tile; false iff they do not lie in even lines there.
    fn turn(&mut self, program: &Program, span: Span, env: &Env) -> bool {
        let ([Micro::Load { site, arg, .. }], [put]) = (&program.passes[0].points[..], &program.puts[..]) else {
            unreachable!("a program that moves")
        };
        self.streamed |= put.streams;
        site.turn(&put.site, [env.args[*arg], env.args[put.arg]], span, put.streams, &mut self.walker)
    }
}
