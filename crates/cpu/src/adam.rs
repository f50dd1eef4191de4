//! Adam's update as one walk over what it changes.
//!
//! Its formulas are four steps: both averages, the root of one, and the parameter. One after the other they go through
//! each array on their own, and memory waits for arithmetic between them. Together they read each cache line once, change
//! it where it lies, and keep what lies between them in vector registers. Each number is the same to the bit.

use crate::exec::{Env, Held, Tile, Worker, operand_at};
use crate::fused::{Fused, MOST};
use crate::memory::View;
use crate::program::{Micro, Program, RegId};
use crate::simd::multiversion;

/// Loads between the steps of an update, at most.
const LOADS: usize = 4;

/// The steps of an update, and the loads between them.
pub(crate) struct Adam {
    pub(crate) steps: Vec<Micro>,
}

/// The formulas of an update, in order.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Part {
    Mean,
    Square,
    Root,
    Parameter,
}

impl Part {
    /// Its number among what is stored.
    fn place(self) -> Option<usize> {
        match self {
            Part::Mean => Some(0),
            Part::Square => Some(1),
            Part::Root => None,
            Part::Parameter => Some(2),
        }
    }
}

/// Which part a step is, its operands and its result.
fn part(micro: &Micro) -> Option<(Part, &[RegId; MOST], RegId)> {
    let Micro::Fused { op, args, dst } = micro else { return None };
    let part = match op {
        Fused::SumOfProducts => Part::Mean,
        Fused::MulMulSum => Part::Square,
        Fused::SqrtMulAdd => Part::Root,
        Fused::DecayMulDiv | Fused::SubMulDiv => Part::Parameter,
        _ => return None,
    };
    Some((part, args, *dst))
}

/// Puts the steps of updates together, where `in_place` says that each result goes over what it updates; `kept` are the
/// registers that are read after these steps.
pub(crate) fn join(micros: Vec<Micro>, kept: &[RegId], in_place: &dyn Fn(RegId) -> bool) -> Vec<Micro> {
    let mut out: Vec<Micro> = Vec::with_capacity(micros.len());
    let mut rest = micros;
    while !rest.is_empty() {
        let len = length(&rest, kept, in_place).unwrap_or(1);
        let tail = rest.split_off(len);
        match len {
            1 => out.append(&mut rest),
            _ => out.push(Micro::Adam(Adam { steps: rest })),
        }
        rest = tail;
    }
    out
}

/// How many of these steps are an update, if they begin with one.
fn length(micros: &[Micro], kept: &[RegId], in_place: &dyn Fn(RegId) -> bool) -> Option<usize> {
    let mut parts = micros.iter().enumerate().filter(|(_, m)| !matches!(m, Micro::Load { .. }));
    let mut next = |want: Part| parts.next().and_then(|(at, m)| Some((at, part(m).filter(|p| p.0 == want)?)));
    let (0, (_, mean, mean_dst)) = next(Part::Mean)? else { return None };
    let (_, (_, square, square_dst)) = next(Part::Square)?;
    let (_, (_, root, root_dst)) = next(Part::Root)?;
    let (last, (_, parameter, parameter_dst)) = next(Part::Parameter)?;
    let same = square[..2] == [mean[0]; 2] && root[0] == square_dst;
    let used = parameter[0] == mean_dst && parameter[2] == root_dst;
    // The root is nowhere afterwards.
    let later = micros[last + 1..].iter().take_while(|m| m.dst() != root_dst);
    let gone = !kept.contains(&root_dst) && !later.flat_map(Micro::sources).any(|reg| reg == root_dst);
    let stays = [mean_dst, square_dst, parameter_dst].into_iter().all(in_place);
    (same && used && gone && stays && last < LOADS + 4).then_some(last + 1)
}

/// Where an update reads and writes.
struct Walk {
    /// Of the averages and the parameter: the register, and the memory that it stands for.
    places: [(RegId, View); 3],
    /// The single values of each part.
    factors: [[f32; 2]; 4],
    /// The gradient's register, and where its lanes were before that took another value.
    grad: (RegId, Held),
    decays: bool,
}

impl Worker {
    /// Does an update in place, if all that it changes lies as the tile's lanes do; else nothing, and says so.
    pub(crate) fn adam(&mut self, program: &Program, adam: &Adam, tile: &Tile, env: &Env) -> bool {
        let mut before = [None; LOADS];
        let Some(walk) = self.walk(program, adam, tile, env, &mut before) else {
            before.into_iter().rev().flatten().for_each(|(slot, held)| self.held[slot] = held);
            return false;
        };
        let grad = operand_at(&self.regs, walk.grad.1, walk.grad.0);
        let [m, v, p] = walk.places.map(|(slot, place)| {
            self.held[slot] = Held::Lent(place);
            // SAFETY: the points of this tile are this task's to store, the three places are apart, and the gradient
            // lies in none of them.
            bytemuck::cast_slice_mut(unsafe { place.slice_mut::<u8>(0, place.len::<u8>()) })
        });
        update([m, v, p], &grad.lanes()[..tile.lanes], walk.factors, walk.decays);
        true
    }

    /// Finds what an update reads and writes; `before` is where registers were that loads have changed.
    fn walk(
        &mut self,
        program: &Program,
        adam: &Adam,
        tile: &Tile,
        env: &Env,
        before: &mut [Option<(RegId, Held)>; LOADS],
    ) -> Option<Walk> {
        let mut loads = before.iter_mut();
        let nowhere = (0, View::of::<u8>(&mut []));
        let mut walk = Walk { places: [nowhere; 3], factors: [[0.0; 2]; 4], grad: (0, Held::Lanes), decays: false };
        for micro in &adam.steps {
            self.wanted.ask();
            let Some((part, args, dst)) = part(micro) else {
                let slot = micro.dst();
                let place = self.place(|this| this.lend(program, micro, tile))?;
                self.want_next(program, place, env);
                let lent = Held::Lent(place.view(env));
                *loads.next()? = Some((slot, std::mem::replace(&mut self.held[slot], lent)));
                continue;
            };
            let Micro::Fused { op, .. } = micro else { unreachable!("a part is a formula") };
            let singles: [usize; 2] = match part {
                Part::Mean => [1, 3],
                Part::Square => [2, 4],
                Part::Root => [1, 2],
                Part::Parameter => [1, 4],
            };
            for (factor, arg) in walk.factors[part as usize].iter_mut().zip(singles).filter(|(_, a)| *a < op.arity()) {
                let slot = args[arg];
                *factor = (self.held[slot] == Held::One).then(|| self.regs[slot].lanes::<f32>()[0])?;
            }
            if part == Part::Mean {
                walk.grad = (args[0], self.held[args[0]]);
            }
            if let Some(place) = part.place() {
                let there = self.place(|this| Some(this.target(program, micro, tile, env)?.0))?;
                let there = there.view(env);
                // It goes over what it updates, also where that was found for another tile.
                let own = op.own().filter(|&own| self.held[args[own]] == Held::Lent(there));
                walk.places[place] = own.map(|_| (dst, there))?;
            }
            walk.decays = *op == Fused::DecayMulDiv;
        }
        let [m, v, p] = walk.places.map(|place| place.1);
        let apart = !m.overlaps(v) && !m.overlaps(p) && !v.overlaps(p);
        let grad_apart = match walk.grad.1 {
            Held::Lanes => true,
            Held::One => false,
            Held::Lent(grad) => ![m, v, p].into_iter().any(|place| place.overlaps(grad)),
        };
        (apart && grad_apart).then_some(walk)
    }
}

multiversion! {
    /// The formulas as in [`Fused`], lane by lane.
    fn update(all: [&mut [f32]; 3], g: &[f32], factors: [[f32; 2]; 4], decays: bool) {
        let [[c, b], [d, e], [y, z], [lr, w]] = factors;
        let fma = |x: f32, y: f32, z: f32| if FMA { x.mul_add(y, z) } else { x * y + z };
        let n = g.len();
        let [m, v, p] = all;
        let (m, v, p) = (&mut m[..n], &mut v[..n], &mut p[..n]);
        for i in 0..n {
            let g = g[i];
            let mean = fma(m[i], b, g * c);
            let square = fma(v[i], e, g * g * d);
            let step = mean * lr / fma(square.sqrt(), y, z);
            (m[i], v[i]) = (mean, square);
            p[i] = if decays { fma(p[i], w, -step) } else { p[i] - step };
        }
    }
}
