//! The walk for real GPUs: a workgroup has a tile of rows, and meets the other side a tile at a time.
//!
//! The hard idea is that everything passes through one *stage* in workgroup memory: slices of a product's operands, then
//! the weights and the rows that they weight, so that memory depends on the tile and not on the number of columns.
//! Some steps of products and sums stand in the text one after the other, as many as instructions have room near a
//! processor.

use super::super::Target;
use super::super::code::Code;
use super::tile::{ACROSS, Tile};
use super::walk::{self, AXES, Block};
use super::{BIAS, COTANGENT, DELTA, Flash, KEY, LOGSUM, QUERY, Sum, VALUE};

/// A walk in tiles.
pub(super) struct Walk<'a> {
    pub(super) x: &'a Flash<'a>,
    pub(super) tile: &'a Tile,
    /// What a product has, and what is weighted.
    pub(super) block: Block,
    pub(super) met: Block,
}

/// How, the code, its workgroups, and the turns of an invocation's loops, where these arguments are bound in strips.
pub(crate) fn emit(x: &Flash, tile: &Tile, target: &Target, wide: &[bool]) -> (String, String, u32, usize) {
    let mut code = Code::default();
    let [own, other] = tile.extents();
    let [queries, keys] = if x.from_queries { [own, other] } else { [other, own] };
    // As far as columns are looked at.
    let columns = tile.span.max(4 * tile.quads);
    for operand in x.reads() {
        match operand {
            BIAS => x.operand(&mut code, operand, [queries, keys]),
            KEY | VALUE => x.operand4(&mut code, operand, [keys, columns], wide),
            QUERY | COTANGENT => x.operand4(&mut code, operand, [queries, columns], wide),
            _ => x.operand(&mut code, operand, [queries, 1]),
        }
    }
    x.sums.iter().for_each(|sum| x.keep(&mut code, sum, wide));
    code.line(format!("var<workgroup> stage: array<vec4<f32>, {}>;", tile.stage()));
    if x.forward() {
        code.line(format!("var<workgroup> maxima: array<vec4<f32>, {}>;", tile.maxima(x)));
    }
    code.line("");
    let per_batch = x.own.rows.div_ceil(own).max(1);
    let tiles = x.batch * x.own.rows.div_ceil(own);
    let workgroups = x.workgroups(tiles, target);
    code.line(format!("@compute @workgroup_size({})", tile.threads()));
    code.open("fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(local_invocation_index) local: u32)");
    match tile.roles {
        1 => code.line("let inner = local;"),
        _ => {
            let roles = if tile.joint { "" } else { " // 0 has scores, 1 has slopes" };
            code.line(format!("let role = local / {}u;{roles}", tile.team()));
            code.line(format!("let inner = local % {}u;", tile.team()));
        }
    }
    code.line(format!("let column = inner % {ACROSS}u; // of the scores and the sums, in quads"));
    code.line(format!("let row = inner / {ACROSS}u; // of the tile, in fours"));
    code.open(format!("for (var tile = id.x; tile < {tiles}u; tile += {workgroups}u)"));
    let (b, first) = match (x.causal, x.from_queries) {
        (false, _) => (format!("tile / {per_batch}u"), format!("tile % {per_batch}u")),
        // The longest walks begin first.
        (true, true) => {
            (format!("tile % {}u", x.batch.max(1)), format!("({}u - tile / {}u)", per_batch - 1, x.batch.max(1)))
        }
        (true, false) => (format!("tile % {}u", x.batch.max(1)), format!("tile / {}u", x.batch.max(1))),
    };
    code.line(format!("let b = {b};"));
    code.line(format!("let first = {first} * {own}u;"));
    code.line("let own = first + row * 4u;");
    // What is hidden from all rows of the tile is not visited.
    let n = x.other.rows;
    let (start, end) = match (x.causal, x.from_queries) {
        (false, _) => ("0u".to_string(), format!("{n}u")),
        (true, true) => ("0u".to_string(), format!("min(first + {own}u, {n}u)")),
        (true, false) => (format!("first / {other}u * {other}u"), format!("{n}u")),
    };
    let walk = Walk { x, tile, block: tile.block(), met: tile.met() };
    walk.begin(&mut code);
    code.line(format!("let end = {end};"));
    code.open(format!("for (var at = {start}; at < end; at += {other}u)"));
    let half = if tile.joint { format!(" + role * {}u", tile.summed()) } else { String::new() };
    code.line(format!("let others = at + column * 4u{half};"));
    walk.meet(&mut code);
    code.close();
    walk.finish(&mut code);
    code.close();
    code.close();
    let turns = tiles.div_ceil(workgroups.max(1)) * (2 + n.div_ceil(other) * walk.turns() + 32 * tile.shares());
    let how = tile.describe(if x.from_queries { "queries" } else { "keys" });
    (how, code.into_text(), workgroups as u32, turns)
}

impl Walk<'_> {
    /// Turns of the loops for one tile of the other side.
    fn turns(&self) -> usize {
        let tile = self.tile;
        let loops = |all: usize, part: usize| all / part * (1 + part / tile.written_out(part));
        1 + loops(tile.multiplied(), tile.slice) + loops(tile.summed(), tile.part)
    }

    /// Steps of a product or a sum, where these addresses go on by so much with each.
    fn steps(&self, code: &mut Code, n: usize, moved: &[(String, usize)], each: impl Fn(&mut Code, usize)) {
        let written = self.tile.written_out(n);
        if written < n {
            code.open(format!("for (var step = 0u; step < {n}u; step += {written}u)"));
            moved.iter().for_each(|(at, by)| code.line(format!("let {at} = {at} + step * {by}u;")));
        }
        for step in 0..written {
            code.open("");
            each(code, step);
            code.close();
        }
        if written < n {
            code.close();
        }
    }

    /// The code of each role, which is given its number.
    pub(super) fn by_role(&self, code: &mut Code, mut each: impl FnMut(&mut Code, usize)) {
        if self.tile.roles == 1 {
            return each(code, 0);
        }
        code.open("if (role == 0u)");
        each(code, 0);
        code.close();
        code.open("else");
        each(code, 1);
        code.close();
    }

    /// The start of a role's own memory, as the first summand of an address.
    pub(super) fn of_role(&self, start: usize, size: usize) -> String {
        match self.tile.roles {
            1 => format!("{start}u"),
            _ => format!("{start}u + role * {size}u"),
        }
    }

    /// Every own row with every quad of the sums.
    pub(super) fn parts(&self) -> impl Iterator<Item = (usize, usize)> {
        let shares = self.tile.shares();
        (0..self.block.own.n()).flat_map(move |i| (0..shares).map(move |share| (i, share)))
    }

    fn begin(&self, code: &mut Code) {
        self.parts().for_each(|(i, share)| code.line(format!("var sum{i}_{share} = vec4<f32>();")));
        if self.x.forward() {
            walk::begin(code, &self.block);
        } else if self.x.from_queries {
            self.numbers(code);
        }
        if self.tile.kept && self.tile.span > 0 {
            let width = self.tile.multiplied();
            self.bring(code, &[(true, "", 0, width)], (0, width * self.tile.pitches()[0]));
        }
    }

    /// `number0..`: of the queries' rows, the logarithms of the sums for scores, the means for slopes.
    fn numbers(&self, code: &mut Code) {
        let rows = if self.x.from_queries { &self.block.own } else { &self.block.other };
        (0..rows.fours).for_each(|f| code.line(format!("var number{f} = vec4<f32>();")));
        self.by_role(code, |code, role| walk::numbers(code, self.x, &self.block, [LOGSUM, DELTA][role], "number"));
    }

    /// Own rows meet a tile of others.
    fn meet(&self, code: &mut Code) {
        let x = self.x;
        if !x.forward() && !x.from_queries {
            self.numbers(code);
        }
        self.product(code);
        if x.forward() {
            self.begin_rows(code);
            self.share_scores(code);
            walk::scores(code, x, &self.met);
            walk::maxima(code, x, &self.met, |code| self.exchange(code, "higher", "max"));
            self.parts().for_each(|(i, share)| code.line(format!("sum{i}_{share} *= fade{}.{};", i / 4, AXES[i % 4])));
            walk::shares(code, x, &self.met, "");
            self.publish_shares(code);
        } else {
            self.begin_rows(code);
            code.line("workgroupBarrier(); // all have read the slices");
            self.role(code, 0, |code| {
                walk::scores(code, x, &self.block);
                walk::shares(code, x, &self.block, "number");
                self.publish_shares(code);
            });
            if self.tile.roles > 1 {
                code.line("workgroupBarrier(); // publishes the shares");
                self.role(code, 1, |code| self.slopes(code));
            }
        }
        self.accumulate(code);
    }

    /// Begins to bring the first rows of the sums.
    fn begin_rows(&self, code: &mut Code) {
        if self.tile.sums > 0 && self.tile.quads > 0 {
            (0..self.tile.waiting()).for_each(|i| code.line(format!("var next{i} = vec4<f32>();")));
            self.fetch(code, "");
        }
    }

    /// What one role does, if there are two.
    pub(super) fn role(&self, code: &mut Code, role: usize, does: impl FnOnce(&mut Code)) {
        if self.tile.roles > 1 {
            code.open(format!("if (role == {role}u)"));
        }
        does(code);
        if self.tile.roles > 1 {
            code.close();
        }
    }

    /// `score0_0..`, or slopes by the same name: the products of the role's operands.
    fn product(&self, code: &mut Code) {
        let tile = self.tile;
        self.block.pairs().for_each(|(i, j)| code.line(format!("var score{i}_{j} = vec4<f32>();")));
        if tile.span == 0 {
            return code.line("workgroupBarrier(); // all have read the stage");
        }
        let width = tile.multiplied();
        let looped = width > tile.slice;
        if looped {
            code.open(format!("for (var c = 0u; c < {width}u; c += {}u)", tile.slice));
        }
        let c = if looped { "c + " } else { "" };
        let [own_pitch, pitch] = tile.pitches();
        let [own, size] = [tile.slices()[0], tile.slices().iter().sum()];
        code.line("workgroupBarrier(); // all have read the stage");
        let sides = [(true, c, 0, tile.slice), (false, c, own, tile.slice)];
        self.bring(code, if tile.kept { &sides[1..] } else { &sides }, (tile.start(), size));
        code.line("workgroupBarrier(); // publishes a slice of both operands");
        let own_start = match (tile.kept, looped) {
            (true, true) => format!("{} + c * {own_pitch}u", self.of_role(0, width * own_pitch)),
            (true, false) => self.of_role(0, width * own_pitch),
            (false, _) => self.of_role(tile.start(), size),
        };
        code.line(format!("let l_at = {own_start} + row;"));
        code.line(format!("let r_at = {} + column;", self.of_role(tile.start() + own, size)));
        self.steps(code, tile.slice, &[("l_at".into(), own_pitch), ("r_at".into(), pitch)], |code, step| {
            for f in 0..self.block.own.fours {
                code.line(format!("let l{f} = stage[l_at + {}u];", step * own_pitch + f * self.block.own.apart / 4));
            }
            for j in 0..self.block.other.fours {
                code.line(format!("let r{j} = stage[r_at + {}u];", step * pitch + j * self.block.other.apart / 4));
            }
            for (i, j) in self.block.pairs() {
                code.line(format!("score{i}_{j} += l{}.{} * r{j};", i / 4, AXES[i % 4]));
            }
        });
        if looped {
            code.close();
        }
    }

    /// The code of each sum: by role, if each has its own.
    pub(super) fn by_sum(&self, code: &mut Code, mut each: impl FnMut(&mut Code, &Sum)) {
        match self.x.sums.len() {
            0 => (),
            1 => each(code, &self.x.sums[0]),
            _ => self.by_role(code, |code, role| each(code, &self.x.sums[role])),
        }
    }

    /// Adds rows of the other side, times their weights, to the sums.
    fn accumulate(&self, code: &mut Code) {
        let tile = self.tile;
        if tile.sums == 0 || tile.quads == 0 {
            return;
        }
        let (all, part, pitch) = (tile.summed(), tile.part, tile.pitches()[0]);
        let looped = all > part;
        if looped {
            code.open(format!("for (var part = 0u; part < {all}u; part += {part}u)"));
        }
        self.put(code);
        code.line("workgroupBarrier(); // publishes the weights and some rows of the other side");
        if looped {
            code.open(format!("if (part + {part}u < {all}u)"));
            self.fetch(code, &format!("part + {part}u + "));
            code.close();
        }
        let weights = if tile.halves() { all * pitch } else { tile.weights() };
        let moved = if looped { format!(" + part * {pitch}u") } else { String::new() };
        code.line(format!("let w_at = {}{moved} + row;", self.of_role(tile.start(), weights)));
        let whole = tile.quads.is_multiple_of(ACROSS);
        for share in 0..tile.shares() {
            code.line(match whole {
                true => format!("let r_at{share} = rows_at + column + {}u;", share * ACROSS),
                // Beyond the edge the last quad is summed again, and not kept.
                false => {
                    format!("let r_at{share} = rows_at + min(column + {}u, {}u);", share * ACROSS, tile.quads - 1)
                }
            });
        }
        let shares = (0..tile.shares()).map(|share| (format!("r_at{share}"), tile.quads));
        let moved: Vec<_> = std::iter::once(("w_at".into(), pitch)).chain(shares).collect();
        self.steps(code, part, &moved, |code, step| {
            for f in 0..self.block.own.fours {
                code.line(format!("let w{f} = stage[w_at + {}u];", step * pitch + f * self.block.own.apart / 4));
            }
            for share in 0..tile.shares() {
                code.line(format!("let r{share} = stage[r_at{share} + {}u];", step * tile.quads));
            }
            for (i, share) in self.parts() {
                code.line(format!("sum{i}_{share} += w{}.{} * r{share};", i / 4, AXES[i % 4]));
            }
        });
        code.line("workgroupBarrier(); // all have read them");
        if looped {
            code.close();
        }
    }

    /// Keeps what the walk of a tile has found.
    fn finish(&self, code: &mut Code) {
        let x = self.x;
        if x.forward() {
            code.line("workgroupBarrier(); // all have read the maxima");
            self.exchange(code, "total", "sum");
            if self.tile.joint {
                self.meet_roles(code);
            }
            walk::portions(code, x, &self.block);
        }
        if self.tile.halves() && self.tile.quads > 0 {
            self.add_halves(code);
        }
        let keep = |code: &mut Code, sum: &Sum| {
            walk::keep(code, x, &self.block, |code, i| {
                for share in 0..sum.width.div_ceil(4).div_ceil(ACROSS) {
                    let (column, inside) = self.tile.column(sum, share);
                    let factor =
                        if x.forward() { format!(" * portion{}.{}", i / 4, AXES[i % 4]) } else { String::new() };
                    let at = self.block.own.at(i);
                    let keep = format!("keep_{}(b, {at}, {column}, sum{i}_{share}{factor});", sum.name);
                    walk::guarded(code, inside, &keep);
                }
            });
        };
        match self.tile.halves() {
            true => self.role(code, 0, |code| keep(code, &x.sums[0])),
            false => self.by_sum(code, keep),
        }
        if x.logsum.is_some() {
            let leads = if self.tile.joint { "role == 0u && column == 0u" } else { "column == 0u" };
            let keep = |code: &mut Code, i: usize| walk::keep_log(code, x, &self.block, i, Some(leads.into()));
            walk::keep(code, x, &self.block, keep);
        }
    }
}
