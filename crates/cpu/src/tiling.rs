//! How the rows of a loop become tiles: sizes, from the kernel alone.

use kiln_ir::Index;
use kiln_ir::kernel::{Body, Instr, Loop};

use crate::lower::BUSY;
use crate::program::{Program, Rowed};
use crate::space::{Runs, stride};

/// Lanes of a tile: 4 KiB of `f32`, so that a handful of registers stay in the nearest cache.
pub(crate) const TILE: usize = 1024;

/// Lanes of a cache line: those of a tile that ends with one may lie in an argument's memory.
pub(crate) const LINE: usize = 16;

/// Lanes of a tile that spares a second computation of its points; the next cache holds those.
pub(crate) const WHOLE_TILE: usize = 8192;

/// Lanes of a tile whose points are only read where they lie, side by side.
const READ_TILE: usize = 32768;

/// The same of whole rows, one after the other, since memory waits while a tile is begun: sums of 8192 rows of 2048 take 5 %
/// less time so than with a quarter of it, which take 1.5 ms where a sixteenth takes 1.7.
const READ_ROWS: usize = 131_072;

/// Larger tiles, at least: they keep some tens of threads busy.
const TILES: usize = 64;

/// Rows side by side in a tile that holds them whole and only reads them, at least: of 300 rows of 8000, side by side in
/// memory, sums take 0.4 ms where tiles are as wide or not whole, and 4.8 in tiles of 27.
const WIDE: usize = 128;

/// Rows side by side in a tile; if there are as many, a tile is one point of each, as it lies in memory.
const BLOCK: usize = 1024;

/// Rows side by side in a tile that holds them whole.
const SHORT_BLOCK: usize = 256;

/// How much larger such a tile is where little is computed: then few registers are in use. A pool takes 870 µs instead
/// of 1030.
const FEW_REGS: usize = 2;

/// Lanes of a tile that is updated in one walk: each argument's part is many pages, and a step's cost is none.
const UPDATE_TILE: usize = 16384;

/// Lanes of a tile of little arithmetic that looks something up: while a line is copied, the next one is asked for.
const LOOKUP_TILE: usize = 4096;

/// Single points that are folded in turn before the tree takes them: a sum then costs no more than reading does, and
/// errors grow as over so many points.
pub(crate) const IN_TURN: usize = 8;

/// Points of a block that are worth a group of their own.
const GROUP: usize = 1 << 16;

/// Lanes of a tile of several rows, or of whole ones of what comes again, at most.
const MANY: usize = 4 * TILE;

/// The sizes of a loop's tiles.
#[derive(Clone, Copy)]
pub(crate) struct Tiling {
    /// Rows of a block.
    pub(crate) block: usize,
    /// Points of a row in a tile.
    pub(crate) chunk: usize,
    /// Points of a row in a group; all of them unless long rows are cut.
    pub(crate) group: usize,
    /// True iff a tile holds whole rows.
    pub(crate) whole: bool,
    /// What all tiles hold whole ones of, if something is loaded along it only.
    pub(crate) again: Option<Again>,
}

/// What comes again in each tile: the last axes of a loop.
#[derive(Clone, Copy)]
pub(crate) struct Again {
    /// The first of these axes.
    pub(crate) first: usize,
    /// How many points they have.
    points: usize,
}

impl Tiling {
    pub(crate) fn new(kernel: &Loop, space: &Rowed) -> Tiling {
        let (rows, points) = (space.n_rows().max(1), space.n_points().max(1));
        let columns = kernel.body.reduces_columns();
        let again = columns || computes_again(&kernel.body, kernel.outer.len(), kernel.outer.len() + kernel.row.len());
        // Nothing is in registers where elements are only read and folded, whatever is computed once a row.
        let only_read = only_reads(kernel);
        let wide = if !space.inner && computes_little(&kernel.body) { FEW_REGS } else { 1 };
        let room = if again || only_read { WHOLE_TILE } else { TILE * wide };
        // What is only read is best read as it lies: points of all rows side by side, or of wide parts of them.
        let lies = only_read && !space.inner && rows <= READ_TILE / IN_TURN;
        // A tile holds whole rows if they fit, with at least a cache line of them side by side.
        let least = match () {
            _ if space.inner => 1,
            _ if lies => rows,
            _ if only_read => rows.min(WIDE),
            _ => rows.min(16),
        };
        let whole = points * least <= room;
        debug_assert!(!columns || whole && space.inner, "tiles hold whole rows");
        let most = if kernel.row.is_empty() { TILE } else { SHORT_BLOCK * wide };
        let block = match (whole, space.inner) {
            (true, true) if only_read => (READ_ROWS / points).min(rows / TILES).max(room / points).clamp(1, rows),
            (true, true) if again && 2 * points <= TILE => (several(rows * points) / points).clamp(1, rows),
            (true, true) => (TILE / points).clamp(1, rows),
            (true, false) => rows.min(most).min((room / points).max(1)).max(least),
            (false, true) => 1,
            (false, false) if lies => rows,
            (false, false) => rows.min(BLOCK),
        };
        let again = again_in(kernel, whole && space.inner && block > 1);
        let block = match again {
            _ if whole && space.inner => in_lines(block, points, rows),
            Some(again) => again.block(TILE),
            None => block,
        };
        let chunk = match (whole, space.inner) {
            (true, _) => points,
            (false, true) => part_of_run(kernel).min(points),
            (false, false) => ((if lies { READ_TILE } else { TILE }) / block).max(1).min(points),
        };
        let n_blocks = rows.div_ceil(block);
        let groups = (block * points / GROUP).min(64 / n_blocks.min(64)).max(1);
        let group = if whole || groups == 1 { points } else { points.div_ceil(groups).next_multiple_of(chunk) };
        Tiling { block, chunk, group, whole, again }
    }

    /// The same for a program that is better walked far at a time.
    pub(crate) fn for_walks(self, kernel: &Loop, program: &Program) -> Tiling {
        let looks_up = kernel.body.instrs.iter().any(|i| matches!(i, Instr::Load { gather: Some(_), .. }));
        let most = match () {
            _ if program.is_update() => UPDATE_TILE,
            _ if kernel.row.is_empty() && looks_up && computes_little(&kernel.body) => LOOKUP_TILE,
            _ => return self,
        };
        let rows: usize = kernel.outer.iter().product();
        let block = self.again.map_or(most, |again| again.block(most));
        Tiling { block: rows.clamp(1, block), ..self }
    }
}

impl Again {
    /// Points of a tile, of about so many.
    fn block(self, most: usize) -> usize {
        let least = in_whole_lines(self.points);
        most / least.min(most) * least
    }
}

/// How many points rows of so many have, as few of them as fill cache lines.
fn in_whole_lines(points: usize) -> usize {
    (1..=LINE).map(|rows| rows * points).find(|n| n.is_multiple_of(LINE)).expect("a line's worth of rows")
}

/// What comes again: the rows that tiles hold, or as many points of a map as something is loaded along.
fn again_in(kernel: &Loop, rows: bool) -> Option<Again> {
    let dims = [&kernel.outer[..], &kernel.row].concat();
    let loaded = |first: usize| {
        let within = |index: &Index| (first..dims.len()).any(|axis| index.uses(&|a| a == axis));
        let before = |index: &Index| index.uses(&|axis| axis < first);
        kernel.body.instrs.iter().any(|instr| match instr {
            Instr::Load { index, valid, gather: None, .. } => {
                within(index) && !before(index) && !valid.iter().any(|bound| before(&bound.index))
            }
            _ => false,
        })
    };
    let points = |first: usize| dims[first..].iter().product();
    let firsts = match (rows, kernel.row.is_empty()) {
        (true, _) => kernel.outer.len()..kernel.outer.len() + 1,
        (false, true) => 1..dims.len(),
        (false, false) => return None,
    };
    let all: usize = points(0);
    let fits = |again: &Again| {
        let least = in_whole_lines(again.points);
        rows || all > 0 && least <= MANY && 4 * least <= all
    };
    firsts.filter(|&first| loaded(first)).map(|first| Again { first, points: points(first) }).find(fits)
}

/// True iff rows of so many points fill cache lines, each by itself or as many as a tile holds.
pub(crate) fn fills_lines(points: usize) -> bool {
    points.is_multiple_of(LINE) || in_whole_lines(points) <= MANY
}

/// About as many rows of a tile, of which all fill cache lines: lanes are then computed with and stored where they lie.
fn in_lines(block: usize, points: usize, rows: usize) -> usize {
    let least = in_whole_lines(points) / points;
    match block / least * least {
        0 if least <= rows && least * points <= MANY => least,
        0 => block,
        block => block,
    }
}

/// Points of a row in a tile that no run ends in, if that is not much less than there is room for: its lanes are then
/// computed with and stored where they lie.
fn part_of_run(kernel: &Loop) -> usize {
    let (outer, dims) = (kernel.outer.len(), [&kernel.outer[..], &kernel.row].concat());
    let loads = kernel.body.instrs.iter().filter_map(|instr| match instr {
        Instr::Load { index, gather: None, .. } => Some(index),
        _ => None,
    });
    let indices = loads.chain(kernel.body.stores.iter().map(|store| &store.index));
    let runs = indices.map(|index| Runs::new(&dims, &[index], |axis| axis >= outer));
    let lying = runs.filter(|run| run.steps == [1]).map(|run| run.len);
    let fits = |len: usize| (TILE / 2..=TILE).rev().find(|n| n.is_multiple_of(LINE) && len.is_multiple_of(*n));
    lying.filter_map(fits).min().unwrap_or(TILE)
}

/// Lanes of a tile of several rows that are gone over again, of so many points in all: what rows have in common is laid
/// out point by point, and steps cost less the further they go. Layer normalisation of 2048 rows of 384, and its
/// gradients, take 1.3 ms so, and 1.7 with a quarter of it; where one row fills a tile, several take half as long again.
fn several(points: usize) -> usize {
    (points / TILES).clamp(TILE, MANY)
}

/// True iff few steps are computed, so that few registers are in use, and memory has more to do than the processor.
pub(crate) fn computes_little(body: &Body) -> bool {
    body.instrs.iter().filter(|i| matches!(i, Instr::Op(..))).count() < BUSY
}

/// True iff points are only loaded; in rows, what is computed once for each counts for little.
fn only_reads(kernel: &Loop) -> bool {
    let outer = kernel.outer.len();
    let varies = kernel.body.varies_in_row(outer, outer + kernel.row.len());
    let mut points = kernel.body.instrs.iter().zip(varies).filter(|(_, varies)| *varies || kernel.row.is_empty());
    points.all(|(instr, _)| matches!(instr, Instr::Load { .. }))
}

/// True iff a second pass would compute points again, rather than only rows.
fn computes_again(body: &Body, outer: usize, rank: usize) -> bool {
    let varies = body.varies_in_row(outer, rank);
    let stored = body.stores.iter().any(|s| varies[s.value as usize] || s.index.uses(&|a| (outer..rank).contains(&a)));
    let reductions = body.instrs.iter().filter(|i| matches!(i, Instr::Reduce(..))).count();
    stored || reductions > 1
}

/// Rows this short are reduced side by side, as lanes, wherever there are enough of them.
pub(crate) const SHORT_ROW: usize = 16;

/// True iff the points of a row should be neighbours in a tile: unless rows are short, where the loads and
/// stores of most bytes step by one element along the row rather than across rows.
pub(crate) fn inner_is_dense(kernel: &Loop) -> bool {
    let outer = kernel.outer.len();
    let numel = |dims: &[usize]| dims.iter().product::<usize>();
    if numel(&kernel.row) <= SHORT_ROW && numel(&kernel.outer) >= 4 * SHORT_ROW {
        return false;
    }
    let last = |dims: &[usize]| dims.iter().rposition(|&d| d > 1);
    let (Some(across), Some(along)) = (last(&kernel.outer), last(&kernel.row).map(|a| a + outer)) else { return true };
    let (mut votes, mut against) = (0, 0);
    let mut vote = |arg: u32, index: &Index| {
        let arg = &kernel.args[arg as usize];
        let weight = arg.numel * arg.dtype.size_bytes();
        votes += if stride(index, along).is_some_and(|s| s.abs() == 1) { weight } else { 0 };
        against += if stride(index, across).is_some_and(|s| s.abs() == 1) { weight } else { 0 };
    };
    for instr in &kernel.body.instrs {
        if let Instr::Load { arg, index, .. } = instr {
            vote(*arg, index);
        }
    }
    kernel.body.stores.iter().for_each(|s| vote(s.arg, &s.index));
    votes >= against
}

#[cfg(test)]
mod tests {
    use super::*;
    use kiln_ir::kernel::Store;
    use kiln_ir::{Atom, DType};

    /// Sums of each channel's numbers, which lie image by image.
    fn sums(dims: [usize; 3]) -> Loop {
        let [images, channels, points] = dims.map(|dim| dim as i64);
        let terms = [points, channels * points, 1].into_iter().zip((0..3).map(Atom::Var)).collect();
        let load = Instr::Load { arg: 0, index: Index { constant: 0, terms }, valid: Vec::new(), gather: None };
        let body = Body {
            instrs: vec![load],
            types: vec![DType::F32],
            stores: vec![Store { arg: 1, index: Index::var(0), value: 0 }],
        };
        Loop { outer: vec![channels as usize], row: vec![images as usize, points as usize], args: Vec::new(), body }
    }

    #[test]
    fn rows_of_a_tile_fill_lines() {
        for ([block, points, rows], n) in [
            ([20, 50, 1000], 16),
            ([20, 197, 1000], 16),
            ([5, 197, 1000], 16),
            ([16, 64, 1000], 16),
            ([1, 500, 1000], 4),
            ([1, 577, 1000], 1),
            ([3, 197, 3], 3),
        ] {
            assert_eq!(in_lines(block, points, rows), n, "{block} of {rows} rows of {points}");
        }
    }

    #[test]
    fn tiles_of_long_rows_end_where_runs_do() {
        // Runs of 28 · 28 and 56 · 56 points; shorter ones, and those that no whole lines divide, end in tiles.
        for (points, part) in [(784, 784), (3136, 784), (4096, TILE), (196, TILE), (1001, TILE), (10, TILE)] {
            assert_eq!(part_of_run(&sums([64, 32, points])), part, "runs of {points}");
        }
    }
}
