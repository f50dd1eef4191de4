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

    /// How many quads of the rows that are summed wait in an invocation's registers, if their number allows it.
    pub(super) fn waiting(&self) -> Option<usize> {
        let (team, quads) = (self.tile.team(), self.tile.quads.max(1));
        let n = self.tile.rows() / team;
        (team.is_multiple_of(quads) && self.tile.rows().is_multiple_of(team) && n <= AT_ONCE).then_some(n)
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

    /// Begins to bring the rows from `part` on.
    pub(super) fn fetch(&self, code: &mut Code, part: &str) {
        let Some(n) = self.waiting().filter(|_| self.tile.sums > 0) else { return };
        let (team, quads) = (self.tile.team(), self.tile.quads);
        if part.is_empty() {
            (0..n).for_each(|i| code.line(format!("var next{i} = vec4<f32>();")));
        }
        self.by_sum(code, |code, sum| {
            for i in 0..n {
                let row = format!("{part}inner / {quads}u + {}u", i * team / quads);
                code.line(format!("next{i} = {};", self.summed(sum.operand, &row, &format!("inner % {quads}u"))));
            }
        });
    }

    /// Stages the rows of a part.
    pub(super) fn put(&self, code: &mut Code, part: &str) {
        let tile = self.tile;
        let start = self.of_role(tile.start() + tile.sums * tile.weights(), tile.rows());
        code.line(format!("let rows_at = {start};"));
        if let Some(n) = self.waiting() {
            (0..n).for_each(|i| code.line(format!("stage[rows_at + inner + {}u] = next{i};", i * tile.team())));
            return;
        }
        code.open(format!("for (var slot = inner; slot < {}u; slot += {}u)", tile.rows(), tile.team()));
        self.by_sum(code, |code, sum| {
            let row = format!("{part}slot / {}u", tile.quads);
            let call = self.summed(sum.operand, &row, &format!("slot % {}u", tile.quads));
            code.line(format!("stage[rows_at + slot] = {call};"));
        });
        code.close();
    }
}
