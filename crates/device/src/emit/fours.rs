//! Four neighbours of an operand at once, as a WGSL function.

use kiln_ir::kernel::{Body, Value};

use super::body::Scope;
use super::code::Code;
use super::rows::{decompose, reached};
use super::strip::{Strip, WIDTH, loaded};

/// An operand's body along an axis of which it has whole fours.
pub(crate) struct Fours<'a> {
    strip: Strip<'a>,
    body: &'a Body,
    wanted: Vec<bool>,
}

impl<'a> Fours<'a> {
    /// The operand along this axis; `None` where fours would reach beyond the axis.
    pub(crate) fn new(scope: &Scope<'a>, axis: usize) -> Option<Fours<'a>> {
        let body = scope.body;
        let strip = Strip::new(scope, axis, false);
        let wanted = reached([body.instrs.len() as Value - 1].into_iter(), &body.instrs);
        (strip.width == WIDTH).then_some(Fours { strip, body, wanted })
    }

    /// True iff some load takes four at once.
    pub(crate) fn are_whole(&self) -> bool {
        (0..self.wanted.len()).any(|v| self.strip.is_whole(v))
    }

    /// Takes from `wide` the arguments that are not always taken in strips by a body, in fours or not.
    pub(crate) fn narrow(fours: Option<&Fours>, body: &Body, wide: &mut [bool]) {
        match fours {
            Some(fours) => fours.strip.narrow(wide, &|v| fours.wanted[v], false),
            None => loaded(body).for_each(|arg| wide[arg as usize] = false),
        }
    }

    /// Leaves only these arguments to be taken in strips.
    pub(crate) fn keep(&mut self, wide: &[bool]) {
        self.strip.keep(wide);
    }

    /// The function with this head, whose parameters number the groups of axes, each so many: four neighbours from an
    /// element on, 0 where one of the conditions holds. Fours end where the axis ends, so they are there or they are not.
    pub(crate) fn function(&self, code: &mut Code, head: &str, beyond: &[String], groups: &[(&str, usize)]) {
        code.open(head);
        if !beyond.is_empty() {
            code.open(format!("if ({})", beyond.join(" || ")));
            code.line("return vec4<f32>();");
            code.close();
        }
        let axes = self.strip.axes("", &|_| false);
        let used = |axis: usize| {
            let is = |a: usize| a == axis;
            let steps = self.body.instrs.iter().zip(&self.wanted).filter(|step| *step.1);
            steps.flat_map(|step| step.0.indices()).any(|index| index.uses(&is))
        };
        let mut start = 0;
        for &(number, n) in groups {
            let range = start..start + n;
            start = range.end;
            match range.contains(&self.strip.axis) {
                true => decompose(code, &axes, range, &format!("({number} / {WIDTH}u)"), &used),
                false => decompose(code, &axes, range, number, &used),
            }
        }
        let last = self.body.instrs.len() - 1;
        code.line("var four = vec4<f32>();");
        let nowhere = |_: Value, _: usize| None;
        self.strip.steps(code, (&axes, ""), &|v| self.wanted[v], &|_| false, &nowhere, &mut |code, c| {
            code.line(format!("four[{c}] = t{last};"));
        });
        code.line("return four;");
        code.close();
        code.line("");
    }
}
