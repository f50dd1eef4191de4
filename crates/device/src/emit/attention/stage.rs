//! How a tile's rows come into workgroup memory: for products turned, for sums as they lie.
//!
//! The hard idea is that loads wait in registers, several at once, before any of them is stored; those of the first rows
//! of a sum are asked for before the weights are computed, those of the next before the last are multiplied.

use super::super::code::Code;
use super::NAMES;
use super::tiled::Walk;

/// Quads that an invocation brings at once: they wait in registers.
const AT_ONCE: usize = 8;

impl Walk<'_> {
    /// Rows of a role's operands into its part of the stage: whether of the own side, from which column on, where in the
    /// part, how many columns.
    pub(super) fn bring(&self, code: &mut Code, sides: &[(bool, &str, usize, usize)], (start, size): (usize, usize)) {
        let (x, tile) = (self.x, self.tile);
        let each = |code: &mut Code, role: usize, part: &str| {
            for &(own, c, at, width) in sides {
                let side = if own { &x.own } else { &x.other };
                let operand = [side.scored, side.sloped][role];
                let (rows, first) = if own { (tile.extents()[0], "first") } else { (tile.extents()[1], "at") };
                let place =
                    if tile.joint { self.of_role(start + at, size) } else { format!("{}u", start + role * size + at) };
                self.bring_rows(code, operand, (rows, first), (&format!("{part}{c}"), width), &place);
            }
        };
        match tile.joint {
            true => each(code, 0, &format!("role * {}u + ", tile.multiplied())),
            false => self.by_role(code, |code, role| each(code, role, "")),
        }
    }

    /// Rows of an operand into the stage, turned: columns one after the other. Neighbouring invocations load
    /// neighbouring columns, a few, so that what they store is spread over the memory's banks.
    fn bring_rows(
        &self,
        code: &mut Code,
        operand: usize,
        (rows, first): (usize, &str),
        (c, width): (&str, usize),
        start: &str,
    ) {
        let pitch = rows / 4 + 1;
        let beside = (width / 4).min(if width.is_multiple_of(16) { 4 } else { 2 });
        let below = self.tile.team() / beside;
        code.open("");
        code.line(format!("let at_row = inner / {beside}u;"));
        code.line(format!("let at_column = inner % {beside}u * 4u;"));
        code.line(format!("let place = {start} + at_column * {pitch}u + at_row / 4u;"));
        code.line("let lane = at_row % 4u;");
        let slots: Vec<(usize, usize)> = (0..width / (4 * beside))
            .flat_map(|q| (0..rows / below).map(move |r| (4 * beside * q, below * r)))
            .collect();
        for (chunk, slots) in slots.chunks(AT_ONCE).enumerate() {
            let fours = || (AT_ONCE * chunk..).zip(slots);
            for (n, (column, row)) in fours() {
                let call = format!("{}4(b, {first} + at_row + {row}u, {c}at_column + {column}u)", NAMES[operand]);
                code.line(format!("let four{n} = {call};"));
            }
            for (n, (column, row)) in fours() {
                for k in 0..4 {
                    code.line(format!("stage[place + {}u][lane] = four{n}[{k}];", (column + k) * pitch + row / 4));
                }
            }
        }
        code.close();
    }

    /// Quads of the other side's rows, in whose order the weights are.
    pub(super) fn quads(&self) -> usize {
        (if self.tile.joint { self.tile.summed() } else { self.tile.extents()[1] }) / 4
    }

    /// The call that brings a quad of a row that is summed; rows are in the order of the weights.
    fn summed(&self, operand: usize, row: &str, quad: &str) -> String {
        let quads = self.quads();
        let half = if self.tile.halves() { format!("role * {}u + ", self.tile.summed()) } else { String::new() };
        let (first, row) = match self.tile.joint {
            true => (format!("at + {half}"), format!("({row})")),
            false => ("at + ".to_string(), format!("({half}{row})")),
        };
        format!("{}4(b, {first}{row} % {quads}u * 4u + {row} / {quads}u, {quad} * 4u)", NAMES[operand])
    }

    /// The places among the rows of a part that an invocation fills, each guarded where not all have one.
    fn slots(&self, code: &mut Code, mut each: impl FnMut(&mut Code, usize)) {
        let (team, rows) = (self.tile.team(), self.tile.rows());
        for i in 0..self.tile.waiting() {
            let all = (i + 1) * team <= rows;
            if !all {
                code.open(format!("if (inner < {}u)", rows - i * team));
            }
            each(code, i);
            if !all {
                code.close();
            }
        }
    }

    /// Begins to bring the rows from `part` on.
    pub(super) fn fetch(&self, code: &mut Code, part: &str) {
        let (team, quads) = (self.tile.team(), self.tile.quads);
        self.by_sum(code, |code, sum| {
            self.slots(code, |code, i| {
                let (row, quad) = match team.is_multiple_of(quads) {
                    true => (format!("inner / {quads}u + {}u", i * team / quads), format!("inner % {quads}u")),
                    false => {
                        let slot = format!("(inner + {}u)", i * team);
                        (format!("{slot} / {quads}u"), format!("{slot} % {quads}u"))
                    }
                };
                code.line(format!("next{i} = {};", self.summed(sum.operand, &format!("{part}{row}"), &quad)));
            });
        });
    }

    /// Stages what was brought.
    pub(super) fn put(&self, code: &mut Code) {
        let tile = self.tile;
        let start = self.of_role(tile.start() + tile.sums * tile.weights(), tile.rows());
        code.line(format!("let rows_at = {start};"));
        self.slots(code, |code, i| {
            code.line(format!("stage[rows_at + inner + {}u] = next{i};", i * tile.team()));
        });
    }
}
