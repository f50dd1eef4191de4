//! The weights of what a walk sums: the shares of one role, and the slopes that the other makes of them, in the stage.

use super::super::code::Code;
use super::tiled::Walk;
use super::walk::AXES;

impl Walk<'_> {
    /// Where the weight of the first of an invocation's rows lies. The other side's rows are in the order of their
    /// place in a quad, then of the quads, so that neighbours' stores meet no conflicts.
    fn weight_at(&self, code: &mut Code) {
        let (start, pitch) = (self.tile.start(), self.tile.pitches()[0]);
        let start = if self.tile.joint { self.of_role(start, self.tile.summed() * pitch) } else { format!("{start}u") };
        code.line(format!("let weight_at = {start} + column * {pitch}u + row;"));
    }

    /// Every four of own rows with every row of the other side: the place of their weights.
    fn weights(&self) -> impl Iterator<Item = (usize, usize, usize, usize)> {
        let (quads, pitch) = (self.quads(), self.tile.pitches()[0]);
        let (own, other) = (&self.met.own, &self.met.other);
        let fours = (0..own.fours).flat_map(|f| (0..other.fours).flat_map(move |j| (0..4).map(move |c| (f, j, c))));
        fours.map(move |(f, j, c)| (f, j, c, (c * quads + j * other.apart / 4) * pitch + f * own.apart / 4))
    }

    pub(super) fn publish_shares(&self, code: &mut Code) {
        if self.tile.sums == 0 {
            return;
        }
        self.weight_at(code);
        for (f, j, c, place) in self.weights() {
            let four: Vec<String> = (0..4).map(|i| format!("share{}_{j}.{}", 4 * f + i, AXES[c])).collect();
            code.line(format!("stage[weight_at + {place}u] = vec4<f32>({});", four.join(", ")));
        }
    }

    /// The slopes, from the shares of the other role: beside them, or in their place if no sum has them.
    pub(super) fn slopes(&self, code: &mut Code) {
        if self.tile.sums == 0 {
            return;
        }
        self.weight_at(code);
        let beside = if self.tile.halves() { 0 } else { self.tile.weights() };
        for (f, j, c, place) in self.weights() {
            let four: Vec<String> = (0..4).map(|i| format!("score{}_{j}.{}", 4 * f + i, AXES[c])).collect();
            let mean = match self.x.from_queries {
                true => format!("number{f}"),
                false => format!("number{j}.{}", AXES[c]),
            };
            code.line(format!(
                "stage[weight_at + {}u] = stage[weight_at + {place}u] * (vec4<f32>({}) - {mean}) * {};",
                place + beside,
                four.join(", "),
                self.x.scale()
            ));
        }
    }
}
