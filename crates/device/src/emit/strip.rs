//! Neighbours along one axis: loaded and stored at once, as a vector, and computed one after the other.
//!
//! Memory is fast for those who ask for 16 bytes. The hard idea is that the axis is counted in *strips*: where a
//! coordinate is the number of a strip, an access that takes a whole strip has an index of its own, and no division;
//! within a strip the same name means the element.

use kiln_ir::kernel::{Arg, Body, Instr, Store, Value};
use kiln_ir::{Atom, DType, Index};

use super::body::{Scope, element, stored};
use super::code::{Code, storage_type, value_type};
use super::index::Axes;

/// Neighbours of a strip.
pub(crate) const WIDTH: usize = 4;

const COMPONENTS: [&str; WIDTH] = ["x", "y", "z", "w"];

/// A body along an axis, in strips.
pub(crate) struct Strip<'a> {
    body: &'a Body,
    args: &'a [Arg],
    /// Where strips lie: the space's dims.
    dims: Vec<usize>,
    /// The axis along which they do.
    pub(crate) axis: usize,
    /// Neighbours: [`WIDTH`], or 1.
    pub(crate) width: usize,
    /// True for each step whose value differs between neighbours.
    pub(crate) differs: Vec<bool>,
    /// True for each load, and for each store, that takes a strip at once.
    whole_loads: Vec<bool>,
    whole_stores: Vec<bool>,
}

/// What is known of a value before its step: its text for a component, if it lies somewhere else than in memory.
pub(crate) type Elsewhere<'a> = &'a dyn Fn(Value, usize) -> Option<String>;

impl<'a> Strip<'a> {
    /// Strips along an axis of the scope's space; `reductions` says whether what is reduced differs between neighbours.
    pub(crate) fn new(scope: &Scope<'a>, axis: usize, reductions: bool) -> Strip<'a> {
        let (body, args, dims) = (scope.body, scope.args, scope.axes.dims.clone());
        let width = if dims[axis].is_multiple_of(WIDTH) { WIDTH } else { 1 };
        let differs = differs(body, axis, reductions);
        let is_axis = |a: usize| a == axis;
        let whole_load = |instr: &Instr| match instr {
            Instr::Load { arg, index, valid, gather } => {
                can_be_wide(&args[*arg as usize])
                    && takes_strips(index, axis)
                    && !valid.iter().any(|b| b.index.uses(&is_axis))
                    && gather.is_none_or(|(v, _)| !differs[v as usize])
            }
            _ => false,
        };
        let whole_store = |s: &Store| can_be_wide(&args[s.arg as usize]) && takes_strips(&s.index, axis);
        Strip {
            whole_loads: body.instrs.iter().map(|i| width > 1 && whole_load(i)).collect(),
            whole_stores: body.stores.iter().map(|s| width > 1 && whole_store(s)).collect(),
            differs,
            body,
            args,
            dims,
            axis,
            width,
        }
    }

    /// The same in strips of one.
    pub(crate) fn in_elements(mut self) -> Strip<'a> {
        self.width = 1;
        self.whole_loads.fill(false);
        self.whole_stores.fill(false);
        self
    }

    /// Takes from `wide` the arguments that some of these loads, or of the body's stores, cannot take in strips.
    pub(crate) fn narrow(&self, wide: &mut [bool], loads: &dyn Fn(usize) -> bool, stores: bool) {
        for v in (0..self.whole_loads.len()).filter(|&v| !self.whole_loads[v] && loads(v)) {
            if let Instr::Load { arg, .. } = self.body.instrs[v] {
                wide[arg as usize] = false;
            }
        }
        for (store, _) in self.body.stores.iter().zip(&self.whole_stores).filter(|s| stores && !s.1) {
            wide[store.arg as usize] = false;
        }
    }

    /// Leaves only these arguments to be taken in strips.
    pub(crate) fn keep(&mut self, wide: &[bool]) {
        for (v, instr) in self.body.instrs.iter().enumerate() {
            self.whole_loads[v] &= matches!(instr, Instr::Load { arg, .. } if wide[*arg as usize]);
        }
        for (whole, store) in self.whole_stores.iter_mut().zip(&self.body.stores) {
            *whole &= wide[store.arg as usize];
        }
    }

    /// True iff the load takes a strip at once.
    pub(crate) fn is_whole(&self, v: usize) -> bool {
        self.whole_loads[v]
    }

    /// True iff it is a load of neighbours that cannot take them at once.
    pub(crate) fn is_apart(&self, v: usize) -> bool {
        matches!(self.body.instrs[v], Instr::Load { .. }) && self.differs[v] && !self.whole_loads[v]
    }

    /// True iff the store takes a strip at once.
    pub(crate) fn is_whole_store(&self, store: &Store) -> bool {
        self.body.stores.iter().zip(&self.whole_stores).any(|(s, whole)| *whole && s == store)
    }

    /// The space counted in strips, each coordinate with this behind its name if `renamed` says so.
    pub(crate) fn axes(&self, suffix: &str, renamed: &dyn Fn(usize) -> bool) -> Axes {
        let mut axes = Axes::numbered(&self.dims);
        axes.dims[self.axis] /= self.width;
        for axis in (0..self.dims.len()).filter(|&axis| renamed(axis)) {
            axes.names[axis] += suffix;
        }
        axes
    }

    /// Appends a load as `q` and its number; of a whole strip, or of the element that a strip of one is.
    pub(crate) fn load(&self, code: &mut Code, axes: &Axes, v: usize, suffix: &str) {
        let Instr::Load { arg, index, valid, gather } = &self.body.instrs[v] else { unreachable!("a load") };
        let scope = self.scope(axes);
        let axes = match gather {
            Some((at, n)) => {
                code.line(format!("let g{v}{suffix} = {};", scope.clamped(*at, *n)));
                axes.with(format!("g{v}{suffix}"), *n)
            }
            None => axes.with(String::new(), 1),
        };
        let dtype = self.args[*arg as usize].dtype;
        let (kind, load) = match self.is_whole(v) {
            true => (vector_type(dtype), format!("a{arg}[{}]", axes.index(&self.in_strips(index)))),
            false => (value_type(dtype).into(), element(*arg, dtype, &axes.index(index))),
        };
        let Some(condition) = axes.bounds(valid) else { return code.line(format!("let q{v}{suffix} = {load};")) };
        code.line(format!("var q{v}{suffix} = {kind}();"));
        code.open(format!("if ({condition})"));
        code.line(format!("q{v}{suffix} = {load};"));
        code.close();
    }

    /// Appends the steps of a strip: first those that neighbours share, then for each neighbour those in which they
    /// differ, and what `then` makes of it. `loaded` loads are there as `q`; `elsewhere` has some values' text.
    pub(crate) fn steps(
        &self,
        code: &mut Code,
        (axes, suffix): (&Axes, &str),
        wanted: &dyn Fn(usize) -> bool,
        loaded: &dyn Fn(usize) -> bool,
        elsewhere: Elsewhere,
        then: &mut dyn FnMut(&mut Code, usize),
    ) {
        let scope = self.scope(axes);
        for v in (0..self.differs.len()).filter(|&v| wanted(v)) {
            if self.differs[v] && self.is_whole(v) && !loaded(v) && elsewhere(v as Value, 0).is_none() {
                self.load(code, axes, v, suffix);
            } else if !self.differs[v] && loaded(v) {
                code.line(format!("let t{v} = q{v}{suffix};"));
            } else if !self.differs[v] {
                scope.step(code, v as Value);
            }
        }
        let mut inner = self.axes("", &|_| false);
        inner.dims.clone_from(&self.dims);
        inner.names.clone_from(&axes.names);
        let inner = self.scope(&inner);
        for c in 0..self.width {
            if self.width > 1 {
                code.open("");
                self.element(code, axes, c, wanted, elsewhere);
            }
            for v in (0..self.differs.len()).filter(|&v| self.differs[v] && wanted(v)) {
                if let Some(text) = elsewhere(v as Value, c) {
                    code.line(format!("let t{v} = {text};"));
                } else if self.is_whole(v) {
                    code.line(format!("let t{v} = {};", self.component(v, suffix, c)));
                } else if loaded(v) {
                    code.line(format!("let t{v} = q{v}{suffix};"));
                } else {
                    inner.step(code, v as Value);
                }
            }
            then(code, c);
            if self.width > 1 {
                code.close();
            }
        }
    }

    /// Appends the coordinate of a neighbour along the axis, under the name that was the strip's, if something uses it.
    fn element(&self, code: &mut Code, axes: &Axes, c: usize, wanted: &dyn Fn(usize) -> bool, elsewhere: Elsewhere) {
        let is_axis = |a: usize| a == self.axis;
        let by_element =
            |v: usize| wanted(v) && self.differs[v] && !self.is_whole(v) && elsewhere(v as Value, c).is_none();
        let steps = (0..self.differs.len()).filter(|&v| by_element(v));
        let steps = steps.flat_map(|v| self.body.instrs[v].indices());
        let stores = self.body.stores.iter().zip(&self.whole_stores).filter(|s| !s.1).map(|s| &s.0.index);
        if steps.chain(stores).any(|index| index.uses(&is_axis)) {
            let name = &axes.names[self.axis];
            let plus = if c == 0 { String::new() } else { format!(" + {c}u") };
            code.line(format!("let {name} = {name} * {WIDTH}u{plus};"));
        }
    }

    /// Declares what a store collects of a strip.
    pub(crate) fn open_store(&self, code: &mut Code, store: &Store) {
        if self.is_whole_store(store) {
            let kind = vector_type(self.args[store.arg as usize].dtype);
            code.line(format!("var w{} = {kind}();", store.arg));
        }
    }

    /// Appends what a store does with one neighbour: collects it, or stores it alone if `guard` holds.
    pub(crate) fn put(&self, code: &mut Code, axes: &Axes, store: &Store, c: usize, guard: Option<&str>) {
        let dtype = self.args[store.arg as usize].dtype;
        let value = stored(dtype, &format!("t{}", store.value));
        let arg = store.arg;
        if !self.is_whole_store(store) {
            guard.iter().for_each(|guard| code.open(format!("if ({guard})")));
            code.line(format!("a{arg}[{}] = {value};", axes.index(&store.index)));
            return guard.iter().for_each(|_| code.close());
        }
        code.line(match dtype {
            DType::F16 | DType::BF16 if c.is_multiple_of(2) => format!("w{arg}.{} = {value};", COMPONENTS[c / 2]),
            DType::F16 | DType::BF16 => format!("w{arg}.{} |= ({value}) << 16u;", COMPONENTS[c / 2]),
            DType::U8 => format!("w{arg} |= ({value}) << {}u;", 8 * c),
            _ => format!("w{arg}.{} = {value};", COMPONENTS[c]),
        });
    }

    /// Appends the store of a collected strip.
    pub(crate) fn close_store(&self, code: &mut Code, axes: &Axes, store: &Store) {
        if self.is_whole_store(store) {
            code.line(format!("a{0}[{1}] = w{0};", store.arg, axes.index(&self.in_strips(&store.index))));
        }
    }

    fn scope(&self, axes: &Axes) -> Scope<'a> {
        let axes = Axes { dims: axes.dims.clone(), names: axes.names.clone() };
        Scope { body: self.body, args: self.args, axes }
    }

    /// An index that takes strips, as the number of a strip.
    fn in_strips(&self, index: &Index) -> Index {
        let width = WIDTH as i64;
        let term = |(c, atom): &(i64, Atom)| match atom {
            Atom::Var(axis) if *axis == self.axis => (1, atom.clone()),
            Atom::Mod(e, n) if **e == Index::var(self.axis) => (1, Atom::Mod(e.clone(), n / width)),
            _ => (c / width, in_strips(atom, self.axis)),
        };
        // The remainder by a strip is none.
        let kept = |t: &(i64, Atom)| !matches!(t.1, Atom::Mod(_, 1));
        let terms = index.terms.iter().map(term).filter(kept);
        Index { constant: index.constant / width, terms: terms.collect() }
    }

    /// An element of a strip, widened.
    pub(crate) fn component(&self, v: usize, suffix: &str, c: usize) -> String {
        let Instr::Load { arg, .. } = self.body.instrs[v] else { unreachable!("a load") };
        let q = format!("q{v}{suffix}");
        match self.args[arg as usize].dtype {
            DType::F16 => format!("k_from_f16(k_half({q}.{}, {}u))", COMPONENTS[c / 2], c % 2),
            DType::BF16 => format!("k_from_bf16(k_half({q}.{}, {}u))", COMPONENTS[c / 2], c % 2),
            DType::U8 => format!("k_byte({q}, {c}u)"),
            DType::Bool => format!("{q}.{} != 0u", COMPONENTS[c]),
            _ => format!("{q}.{}", COMPONENTS[c]),
        }
    }
}

/// The arguments that a body loads from.
pub(crate) fn loaded(body: &Body) -> impl Iterator<Item = u32> {
    body.instrs.iter().filter_map(|instr| if let Instr::Load { arg, .. } = instr { Some(*arg) } else { None })
}

/// True for each step whose value differs along the axis.
fn differs(body: &Body, axis: usize, reductions: bool) -> Vec<bool> {
    let mut differs = body.varies_in_row(axis, axis + 1);
    for (v, instr) in body.instrs.iter().enumerate().filter(|_| reductions) {
        differs[v] |=
            matches!(instr, Instr::Reduce(..) | Instr::Acc) || instr.operands().iter().any(|&a| differs[a as usize]);
    }
    differs
}

/// True iff the index steps by 1 within each strip along the axis, and by whole strips in all other ways.
fn takes_strips(index: &Index, axis: usize) -> bool {
    let width = WIDTH as i64;
    let along = |(c, atom): &(i64, Atom)| match atom {
        Atom::Var(a) => *c == 1 && *a == axis,
        Atom::Mod(e, n) => *c == 1 && **e == Index::var(axis) && n % width == 0,
        Atom::Div(..) => false,
    };
    let (steps, others): (Vec<_>, Vec<_>) = index.terms.iter().partition(|t| along(t));
    let whole = others.iter().all(|(c, atom)| c % width == 0 && is_steady(atom, axis));
    steps.len() == 1 && index.constant % width == 0 && whole
}

/// True iff neighbours of a strip along the axis have it in common.
fn is_steady(atom: &Atom, axis: usize) -> bool {
    let all = |e: &Index| e.terms.iter().all(|t| is_steady(&t.1, axis));
    match atom {
        Atom::Var(a) => *a != axis,
        Atom::Div(e, n) => all(e) || (**e == Index::var(axis) && n % WIDTH as i64 == 0),
        Atom::Mod(e, _) => all(e),
    }
}

/// What neighbours have in common, where the coordinate along the axis is the number of their strip.
fn in_strips(atom: &Atom, axis: usize) -> Atom {
    let all = |e: &Index| {
        let terms = e.terms.iter().map(|(c, atom)| (*c, in_strips(atom, axis)));
        Box::new(Index { constant: e.constant, terms: terms.collect() })
    };
    match atom {
        Atom::Var(_) => atom.clone(),
        Atom::Div(e, n) if **e == Index::var(axis) => match n / WIDTH as i64 {
            1 => Atom::Var(axis),
            n => Atom::Div(e.clone(), n),
        },
        Atom::Div(e, n) => Atom::Div(all(e), *n),
        Atom::Mod(e, n) => Atom::Mod(all(e), *n),
    }
}

/// True iff a buffer of this argument is no shorter in strips.
fn can_be_wide(arg: &Arg) -> bool {
    arg.numel.is_multiple_of(WIDTH) && arg.numel > 0
}

/// The WGSL type of a strip of stored elements.
pub(crate) fn vector_type(dtype: DType) -> String {
    match dtype {
        DType::F16 | DType::BF16 => "vec2<u32>".into(),
        DType::U8 => "u32".into(),
        _ => format!("vec{WIDTH}<{}>", storage_type(dtype)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// All elements of strips are where the strip's number says.
    #[test]
    fn strips_are_neighbours() {
        let dims = [3, 48];
        let var = Index::var;
        let split = |n: i64, step: i64| {
            let fine = var(1).modulo(n, &dims);
            var(1).div(n, &dims).scale(step).add(&fine, &dims).add(&var(0).scale(400), &dims)
        };
        let nested = var(1).div(8, &dims).modulo(3, &dims).scale(16).add(&var(1).modulo(8, &dims), &dims);
        let whole = [var(1), var(0).scale(48).add(&var(1), &dims).offset(8), split(16, 20), split(4, 12), nested];
        let apart =
            [var(0), var(1).scale(2), var(1).offset(1), split(6, 12), split(16, 18), var(0).add(&var(1), &dims)];
        for index in &whole {
            assert!(takes_strips(index, 1), "{index}");
            let mut body = Body::default();
            body.push(Instr::Load { arg: 0, index: index.clone(), valid: vec![], gather: None }, DType::F32);
            let args = [Arg { dtype: DType::F32, numel: 1200, access: kiln_ir::kernel::Access::Read }];
            let scope = Scope { body: &body, args: &args, axes: Axes::numbered(&dims) };
            let strips = Strip::new(&scope, 1, false).in_strips(index);
            for (i, j) in (0..3).flat_map(|i| (0..48).map(move |j| (i, j))) {
                assert_eq!(strips.eval(&[i, j / 4]) * 4 + (j % 4) as i64, index.eval(&[i, j]), "{index} at {i}, {j}");
            }
        }
        apart.iter().for_each(|index| assert!(!takes_strips(index, 1), "{index}"));
    }
}
