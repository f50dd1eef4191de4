//! How each step is done on a tile: found once, and repeated on the tiles after it.
//!
//! A load may be left where it lies, a result computed where it is stored, and what is once a row taken as it is. Finding
//! out takes as long as computing a few hundred lanes does. Tiles of the same size differ in nothing but where their
//! loads and stores begin, so that what was found for one holds for the others, that much further on. What the loop over
//! steps calls is kept out of it, or its own values go through memory.

use kiln_ir::ops::Typing;
use kiln_ir::{DType, PointOp};

use crate::exec::{Env, Held, Tile, Worker, operand};
use crate::memory::View;
use crate::program::{Micro, Program, RegId};
use crate::simd::Out;
use crate::space::Span;

/// How a step is done on a tile.
#[derive(Clone, Copy)]
pub(crate) enum Way {
    /// Its lanes are left where they lie.
    Leave(Place),
    /// They are among the sums that an epilogue finishes.
    Sums,
    /// They are computed where they are stored, over those of an operand if one is there.
    There(Place, Option<usize>),
    /// In the register.
    Lanes,
    /// In the register, and all the same.
    One,
    /// As a single number.
    Single,
    /// What is once a row is that of all lanes.
    Once,
    /// Several steps in one walk.
    Update,
}

/// Where a tile's lanes lie in an argument.
#[derive(Clone, Copy)]
pub(crate) struct Place {
    pub(crate) arg: usize,
    /// So many bytes from there on.
    pub(crate) at: usize,
    pub(crate) bytes: usize,
    /// How many bytes further the next tile's lie, if that is the same for all.
    step: Option<usize>,
}

impl Place {
    /// Where those of a tile lie that is so many tiles further on.
    fn after(self, tiles: isize) -> Place {
        let step = self.step.unwrap_or(0) as isize;
        Place { at: self.at.wrapping_add_signed(tiles * step), ..self }
    }

    pub(crate) fn view(&self, env: &Env) -> View {
        env.args[self.arg].part(self.at, self.bytes)
    }
}

impl Way {
    /// True iff the same step is done so on all tiles of the same size.
    fn holds(&self, micro: &Micro) -> bool {
        match self {
            Way::Leave(place) => place.step.is_some(),
            // What is there before may be elsewhere on another tile.
            Way::There(place, own) => place.step.is_some() && own.is_none(),
            Way::One => !matches!(micro, Micro::Load { .. }),
            // An update keeps its places itself.
            Way::Sums | Way::Lanes | Way::Single | Way::Once | Way::Update => true,
        }
    }
}

/// A step's way, and its register.
#[derive(Clone, Copy)]
struct Found {
    way: Way,
    slot: RegId,
}

/// The ways of a tile's steps, in the order in which they are done.
#[derive(Default)]
pub(crate) struct Ways {
    found: Vec<Found>,
    /// Where updates read and write.
    places: Vec<Place>,
    /// The tile that they were found for, once all are.
    of: Option<Numbered>,
    now: Now,
}

/// A tile among those of its size: it begins so many times its lanes after the first point.
#[derive(Clone, Copy)]
struct Numbered {
    number: usize,
    size: [usize; 2],
}

/// What a worker does with the steps before it.
#[derive(Clone, Copy, Default)]
enum Now {
    /// Finds their ways, for this tile only.
    #[default]
    Once,
    /// Finds and keeps them.
    Keep(Numbered),
    /// Goes the ways that were kept, of which so many are behind it, and so many places of updates; so many tiles
    /// further on.
    Again { done: usize, placed: usize, tiles: isize },
    /// As `Once`, since some way does not hold for other tiles.
    Never,
}

impl Ways {
    pub(crate) fn clear(&mut self) {
        self.found.clear();
        self.places.clear();
        (self.of, self.now) = (None, Now::Once);
    }

    /// A tile begins, or a block whose passes are tiles, with this number if it has one.
    pub(crate) fn begin(&mut self, number: Option<usize>, size: [usize; 2]) {
        self.now = match (self.now, number, self.of) {
            (Now::Never, ..) => Now::Never,
            (_, Some(number), None) => Now::Keep(Numbered { number, size }),
            (_, Some(number), Some(of)) if of.size == size => {
                Now::Again { done: 0, placed: 0, tiles: number.wrapping_sub(of.number) as isize }
            }
            _ => Now::Once,
        };
    }

    /// A tile begins that is all of its program.
    pub(crate) fn begin_tile(&mut self, tile: &Tile) {
        let Span { start, len, count, .. } = tile.span;
        let number = match count {
            1 => start.is_multiple_of(len).then(|| start / len),
            // Where each range lies is found for each tile.
            _ => Some(0),
        };
        self.begin(number, [count, len]);
    }

    /// It is done.
    pub(crate) fn end(&mut self) {
        if let Now::Keep(of) = self.now {
            self.of = Some(of);
        }
    }

    /// What was found for one tile does not hold for this one.
    fn forget(&mut self) {
        if !matches!(self.now, Now::Once) {
            self.now = Now::Never;
        }
    }

    fn keep(&mut self, found: Found, micro: &Micro) {
        self.found.push(found);
        if !found.way.holds(micro) {
            self.now = Now::Never;
        }
    }
}

/// The sums of a tile's points.
fn sums(micro: &Micro, tile: &Tile, env: &Env) -> View {
    let Micro::Acc { dtype, .. } = micro else { unreachable!("nothing else is a sum") };
    let at = tile.sums.expect("only a contraction's epilogue reads its sums");
    env.sums.part(at * dtype.size_bytes(), tile.lanes * dtype.size_bytes())
}

impl Worker {
    /// Runs steps over a tile.
    pub(crate) fn run(&mut self, program: &Program, micros: &[Micro], tile: &Tile, env: &Env) {
        if let Now::Again { done, tiles, .. } = self.ways.now {
            let found = std::mem::take(&mut self.ways.found);
            for (micro, found) in micros.iter().zip(&found[done..]) {
                self.go(program, micro, found, tiles, tile, env);
            }
            self.ways.found = found;
            if let Now::Again { done, .. } = &mut self.ways.now {
                *done += micros.len();
            }
            return;
        }
        for micro in micros {
            let found = Found { way: self.way(program, micro, tile, env), slot: micro.dst() };
            if let Now::Keep(_) = self.ways.now {
                self.ways.keep(found, micro);
            }
            self.go(program, micro, &found, 0, tile, env);
        }
    }

    /// Does a step in the way that was found so many tiles before.
    #[inline(always)]
    fn go(&mut self, program: &Program, micro: &Micro, found: &Found, tiles: isize, tile: &Tile, env: &Env) {
        let slot = found.slot;
        // Each arm writes on its own: what is read as a whole right after it was written in parts waits for all of them.
        match &found.way {
            Way::Leave(place) => self.leave(program, slot, place.after(tiles), env),
            Way::Sums => self.held[slot] = Held::Lent(sums(micro, tile, env)),
            Way::There(place, own) => self.there(program, micro, place.after(tiles), *own, tile, env),
            Way::Lanes => {
                self.in_register(program, micro, slot, tile, env);
                self.held[slot] = Held::Lanes;
            }
            Way::One => {
                self.in_register(program, micro, slot, &tile.first_lanes(), env);
                self.held[slot] = Held::One;
            }
            Way::Single => self.single(micro),
            Way::Once => {
                self.once(micro);
                self.held[slot] = Held::One;
            }
            Way::Update => self.update(program, micro, tile, env),
        }
    }

    #[inline(never)]
    fn leave(&mut self, program: &Program, slot: RegId, place: Place, env: &Env) {
        self.want_next(program, place, env);
        self.held[slot] = Held::Lent(place.view(env));
    }

    #[inline(never)]
    fn there(&mut self, program: &Program, micro: &Micro, place: Place, own: Option<usize>, tile: &Tile, env: &Env) {
        if own.is_none() {
            self.want_next(program, place, env);
        }
        let there = place.view(env);
        // SAFETY: the points of this tile are this task's to store, and no operand of this step or of a later one is
        // read from there, but for one that the step reads through the result itself.
        let mut dst = Out::lent(unsafe { there.slice_mut(0, place.bytes) });
        self.step(program, micro, tile, env, &mut dst, own);
        self.held[micro.dst()] = Held::Lent(there);
    }

    /// How a step is done.
    #[inline(never)]
    fn way(&mut self, program: &Program, micro: &Micro, tile: &Tile, env: &Env) -> Way {
        match micro {
            Micro::Adam(_) => return Way::Update,
            Micro::Acc { dst, .. } if tile.is_whole() && program.direct[*dst].is_none() => return Way::Sums,
            Micro::Load { .. } => {
                if let Some(place) = self.lend(program, micro, tile) {
                    return Way::Leave(place);
                }
            }
            // Vectors cost more.
            Micro::Op { op, dtype: DType::F32, .. }
                if tile.lanes == 1 && matches!(op.row().typing, Typing::Number | Typing::Float) =>
            {
                return Way::Single;
            }
            Micro::Expand { dst, .. } if tile.rows.is_single() && program.single[*dst] => return Way::Once,
            _ => {}
        }
        match self.target(program, micro, tile, env) {
            Some((place, own)) => Way::There(place, own),
            None if program.single[micro.dst()] && self.is_one(micro, tile) => Way::One,
            None => Way::Lanes,
        }
    }

    #[inline(never)]
    fn in_register(&mut self, program: &Program, micro: &Micro, slot: RegId, tile: &Tile, env: &Env) {
        let mut reg = std::mem::take(&mut self.regs[slot]);
        self.step(program, micro, tile, env, &mut reg.out(), None);
        self.regs[slot] = reg;
    }

    #[inline(never)]
    fn update(&mut self, program: &Program, micro: &Micro, tile: &Tile, env: &Env) {
        let Micro::Adam(adam) = micro else { unreachable!("nothing else is an update") };
        if !self.adam(program, adam, tile, env) {
            self.ways.forget();
            self.run(program, &adam.steps, tile, env);
        }
    }

    /// A place of an update, which `find` finds for the first tile.
    pub(crate) fn place(&mut self, find: impl FnOnce(&mut Worker) -> Option<Place>) -> Option<Place> {
        if let Now::Again { placed, tiles, .. } = &mut self.ways.now {
            *placed += 1;
            return Some(self.ways.places[*placed - 1].after(*tiles));
        }
        let place = find(self)?;
        if let Now::Keep(_) = self.ways.now {
            match place.step {
                Some(_) => self.ways.places.push(place),
                None => self.ways.now = Now::Never,
            }
        }
        Some(place)
    }

    /// Takes what is once a row as it is: its row is the tile.
    fn once(&mut self, micro: &Micro) {
        let Micro::Expand { src, dst, .. } = *micro else { unreachable!("nothing else is once a row") };
        debug_assert!(matches!(self.held[src], Held::Lanes | Held::One), "what is once a row is in its register");
        let value = self.regs[src].first_line();
        self.regs[dst].set_first_line(value);
    }

    /// Does a step for one number. What is more than rounded once is done by its row's reference.
    fn single(&mut self, micro: &Micro) {
        let Micro::Op { op, args, dst, .. } = micro else { unreachable!("nothing else is a single number") };
        let value = |slot: RegId| self.regs[slot].lanes::<f32>()[0];
        let [x, y] = [value(args[0]), value(args[1])];
        let result = match op {
            PointOp::Add => x + y,
            PointOp::Sub => x - y,
            PointOp::Mul => x * y,
            PointOp::Div => x / y,
            PointOp::Neg => -x,
            _ => (op.row().reference)(DType::F32, [x, y, value(args[2])].map(f64::from)) as f32,
        };
        self.regs[*dst].lanes_mut::<f32>()[0] = result;
        self.held[*dst] = Held::Lanes;
    }

    /// True iff a step gives the same at every point of a tile.
    fn is_one(&mut self, micro: &Micro, tile: &Tile) -> bool {
        let one = |slot: &RegId| self.held[*slot] == Held::One;
        match micro {
            Micro::Fill { .. } | Micro::Scalar { .. } => true,
            Micro::Op { args, .. } => args.iter().all(one),
            Micro::Fused { args, .. } => args.iter().all(one),
            Micro::Cast { src, .. } => one(src),
            Micro::Load { site, gather: None, .. } => tile.is_whole() && site.is_constant(tile.span, &mut self.walker),
            _ => false,
        }
    }

    /// Where a load's elements lie, if they do as the tile's lanes would.
    pub(crate) fn lend(&mut self, program: &Program, micro: &Micro, tile: &Tile) -> Option<Place> {
        let Micro::Load { site, arg, gather, lend: true, .. } = micro else { return None };
        if !tile.is_whole() {
            return None;
        }
        let gather = gather.map(|g| operand(&self.regs, &self.held, g));
        let at = site.dense(tile.span, gather, &mut self.walker)?;
        let size = program.dtypes[*arg].size_bytes();
        let step = site.stride(tile.lanes).map(|step| step * size);
        Some(Place { arg: *arg, at: at * size, bytes: tile.lanes * size, step })
    }

    /// The memory into which a tile's value is stored, where its elements lie as its lanes do; and which operand of the
    /// step is what is there before.
    pub(crate) fn target(
        &mut self,
        program: &Program,
        micro: &Micro,
        tile: &Tile,
        env: &Env,
    ) -> Option<(Place, Option<usize>)> {
        let put = &program.puts[program.direct[micro.dst()]?];
        if !tile.is_whole() {
            return None;
        }
        let at = put.site.dense(tile.span, None, &mut self.walker)?;
        let size = program.dtypes[put.arg].size_bytes();
        let step = put.site.stride(tile.lanes).map(|step| step * size);
        let place = Place { arg: put.arg, at: at * size, bytes: tile.lanes * size, step };
        let there = Held::Lent(place.view(env));
        let found = |slot: &RegId| self.held[*slot] == there;
        if let Micro::Fused { op, args, .. } = micro
            && let Some(own) = args[..op.arity()].iter().position(found)
        {
            let alone = args[..op.arity()].iter().filter(|slot| found(slot)).count() == 1;
            return (alone && op.own() == Some(own)).then_some((place, Some(own)));
        }
        (!put.updates).then_some((place, None))
    }

    /// Notes that the next tile's part of an argument will be needed.
    pub(crate) fn want_next(&mut self, program: &Program, place: Place, env: &Env) {
        if program.busy && place.step != Some(0) {
            self.wanted.note(env.args[place.arg].within(place.at + place.bytes, place.bytes));
        }
    }
}
