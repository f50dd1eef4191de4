//! What a model is: a tree of named leaves, and everything that follows from walking it.
//!
//! The one hard idea is that there are three kinds of leaf (trained, kept, mode) and two walks (shared and
//! exclusive); parameter lists, files, optimizers, devices and train mode are all made of those.

use std::path::Path as FilePath;

use kiln_graph::{Device, Tensor};
use kiln_ir::{Error, ErrorKind, Result};

use crate::{LoadReport, Mode, Param, State, file, load};

/// A field path on its way down a model: `blocks.0.fc1.weight`.
#[derive(Clone, Default, Debug)]
pub struct Path {
    text: String,
    unnamed: bool,
}

impl Path {
    /// A path for walks that ask for no names: it stays empty, and going down costs nothing.
    pub(crate) fn unnamed() -> Path {
        Path { unnamed: true, ..Path::default() }
    }

    /// The path as text.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Goes down into a field for the time of a call.
    pub fn enter<R>(&mut self, name: &str, f: impl FnOnce(&mut Path) -> R) -> R {
        self.enter_with(|text| text.push_str(name), f)
    }

    /// Goes down into an element, named by its number.
    fn enter_nth<R>(&mut self, n: usize, f: impl FnOnce(&mut Path) -> R) -> R {
        self.enter_with(|text| text.push_str(&n.to_string()), f)
    }

    fn enter_with<R>(&mut self, name: impl FnOnce(&mut String), f: impl FnOnce(&mut Path) -> R) -> R {
        if self.unnamed {
            return f(self);
        }
        let before = self.text.len();
        if before > 0 {
            self.text.push('.');
        }
        name(&mut self.text);
        let result = f(self);
        self.text.truncate(before);
        result
    }
}

impl std::fmt::Display for Path {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.text)
    }
}

/// What a walk meets.
pub enum Leaf<'a> {
    /// A trained tensor.
    Param(&'a Param),
    /// A tensor that is kept and saved, but not trained.
    State(&'a State),
    /// Whether a layer is in training.
    Mode(&'a Mode),
}

/// What an exclusive walk meets.
pub enum LeafMut<'a> {
    /// A trained tensor.
    Param(&'a mut Param),
    /// A tensor that is kept and saved, but not trained.
    State(&'a mut State),
    /// Whether a layer is in training.
    Mode(&'a mut Mode),
}

/// A model or a part of one: anything whose parameters can be walked. Derive it.
///
/// The two methods to implement visit the same leaves in the same order.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a module, and not known to be without parameters",
    note = "wrap a tensor in `Param` (trained) or `State` (kept); mark a field without parameters `#[module(skip)]`"
)]
pub trait Module {
    /// Calls `f` with each leaf and its path.
    fn visit<'a>(&'a self, at: &mut Path, f: &mut dyn FnMut(&Path, Leaf<'a>));

    /// As [`Module::visit`], with leaves that can be changed.
    fn visit_mut<'a>(&'a mut self, at: &mut Path, f: &mut dyn FnMut(&Path, LeafMut<'a>));

    /// The parameters with their paths, in the order of the fields.
    fn params(&self) -> Vec<(String, &Param)> {
        let mut params = Vec::new();
        self.visit(&mut Path::default(), &mut |at, leaf| {
            if let Leaf::Param(param) = leaf {
                params.push((at.to_string(), param));
            }
        });
        params
    }

    /// The number of trained numbers.
    fn n_params(&self) -> usize {
        self.params().iter().map(|(_, p)| p.numel()).sum()
    }

    /// Parameters and states with their paths: what a file of the model holds.
    fn state_dict(&self) -> Vec<(String, Tensor)> {
        let mut all = Vec::new();
        self.visit(&mut Path::default(), &mut |at, leaf| match leaf {
            Leaf::Param(param) => all.push((at.to_string(), param.tensor().clone())),
            Leaf::State(state) => all.push((at.to_string(), state.get())),
            Leaf::Mode(_) => {}
        });
        all
    }

    /// Sets whether layers behave as in training (dropout drops, batch norm uses the batch). New layers do.
    fn train(&mut self, training: bool) {
        self.visit_mut(&mut Path::unnamed(), &mut |_, leaf| {
            if let LeafMut::Mode(mode) = leaf {
                mode.set(training);
            }
        });
    }

    /// Moves every parameter and state to a device.
    ///
    /// # Errors
    /// If either device fails; then no leaf has moved.
    ///
    /// # Panics
    /// If the other device lacks a dtype.
    fn to_device(&mut self, device: &Device) -> Result<()> {
        let mut moved = Vec::new();
        for (_, tensor) in self.state_dict() {
            moved.push(tensor.to(device)?);
        }
        let mut moved = moved.into_iter();
        let mut next = || moved.next().expect("both walks meet the same leaves");
        self.visit_mut(&mut Path::unnamed(), &mut |_, leaf| match leaf {
            LeafMut::Param(param) => *param = Param::new(next()),
            LeafMut::State(state) => state.set(next()),
            LeafMut::Mode(_) => {}
        });
        Ok(())
    }

    /// Writes every parameter and state to a safetensors file: all of it, or nothing.
    ///
    /// # Errors
    /// If a value cannot be computed or the file cannot be written; a file of that name then stays as it was.
    fn save(&self, path: impl AsRef<FilePath>) -> Result<()>
    where
        Self: Sized,
    {
        file::save_tensors(path, &self.state_dict())
    }

    /// Reads every parameter and state from a safetensors file. Float dtypes convert to the model's.
    ///
    /// # Errors
    /// If the file cannot be read, or does not have exactly the model's names and dims; then nothing has changed.
    fn load(&mut self, path: impl AsRef<FilePath>) -> Result<()>
    where
        Self: Sized,
    {
        let path = path.as_ref();
        let (report, fitting) = load::fit(self, &read(self, path)?);
        if !report.is_exact() {
            return Err(Error::new(ErrorKind::Data, format!("{}: {report}", path.display())));
        }
        load::replace(self, fitting);
        Ok(())
    }

    /// As [`Module::load`], but loads what fits and reports what does not.
    ///
    /// # Errors
    /// If the file cannot be read; then nothing has changed.
    fn load_matching(&mut self, path: impl AsRef<FilePath>) -> Result<LoadReport>
    where
        Self: Sized,
    {
        let (report, fitting) = load::fit(self, &read(self, path.as_ref())?);
        load::replace(self, fitting);
        Ok(report)
    }
}

/// A file's tensors, where the model's are.
fn read<M: Module>(model: &M, path: &FilePath) -> Result<Vec<(String, Tensor)>> {
    match model.state_dict().first() {
        Some((_, first)) => file::load_tensors(path, first.device()),
        None => Ok(Vec::new()),
    }
}

impl Module for Param {
    fn visit<'a>(&'a self, at: &mut Path, f: &mut dyn FnMut(&Path, Leaf<'a>)) {
        f(at, Leaf::Param(self));
    }

    fn visit_mut<'a>(&'a mut self, at: &mut Path, f: &mut dyn FnMut(&Path, LeafMut<'a>)) {
        f(at, LeafMut::Param(self));
    }
}

impl Module for State {
    fn visit<'a>(&'a self, at: &mut Path, f: &mut dyn FnMut(&Path, Leaf<'a>)) {
        f(at, Leaf::State(self));
    }

    fn visit_mut<'a>(&'a mut self, at: &mut Path, f: &mut dyn FnMut(&Path, LeafMut<'a>)) {
        f(at, LeafMut::State(self));
    }
}

impl Module for Mode {
    fn visit<'a>(&'a self, at: &mut Path, f: &mut dyn FnMut(&Path, Leaf<'a>)) {
        f(at, Leaf::Mode(self));
    }

    fn visit_mut<'a>(&'a mut self, at: &mut Path, f: &mut dyn FnMut(&Path, LeafMut<'a>)) {
        f(at, LeafMut::Mode(self));
    }
}

impl<M: Module + ?Sized> Module for Box<M> {
    fn visit<'a>(&'a self, at: &mut Path, f: &mut dyn FnMut(&Path, Leaf<'a>)) {
        (**self).visit(at, f);
    }

    fn visit_mut<'a>(&'a mut self, at: &mut Path, f: &mut dyn FnMut(&Path, LeafMut<'a>)) {
        (**self).visit_mut(at, f);
    }
}

/// What is not there has no parameters.
impl<M: Module> Module for Option<M> {
    fn visit<'a>(&'a self, at: &mut Path, f: &mut dyn FnMut(&Path, Leaf<'a>)) {
        self.iter().for_each(|m| m.visit(at, f));
    }

    fn visit_mut<'a>(&'a mut self, at: &mut Path, f: &mut dyn FnMut(&Path, LeafMut<'a>)) {
        self.iter_mut().for_each(|m| m.visit_mut(at, f));
    }
}

/// Elements are named by their number.
impl<M: Module> Module for [M] {
    fn visit<'a>(&'a self, at: &mut Path, f: &mut dyn FnMut(&Path, Leaf<'a>)) {
        for (n, m) in self.iter().enumerate() {
            at.enter_nth(n, |at| m.visit(at, f));
        }
    }

    fn visit_mut<'a>(&'a mut self, at: &mut Path, f: &mut dyn FnMut(&Path, LeafMut<'a>)) {
        for (n, m) in self.iter_mut().enumerate() {
            at.enter_nth(n, |at| m.visit_mut(at, f));
        }
    }
}

impl<M: Module> Module for Vec<M> {
    fn visit<'a>(&'a self, at: &mut Path, f: &mut dyn FnMut(&Path, Leaf<'a>)) {
        self.as_slice().visit(at, f);
    }

    fn visit_mut<'a>(&'a mut self, at: &mut Path, f: &mut dyn FnMut(&Path, LeafMut<'a>)) {
        self.as_mut_slice().visit_mut(at, f);
    }
}

impl<M: Module, const N: usize> Module for [M; N] {
    fn visit<'a>(&'a self, at: &mut Path, f: &mut dyn FnMut(&Path, Leaf<'a>)) {
        self.as_slice().visit(at, f);
    }

    fn visit_mut<'a>(&'a mut self, at: &mut Path, f: &mut dyn FnMut(&Path, LeafMut<'a>)) {
        self.as_mut_slice().visit_mut(at, f);
    }
}

macro_rules! plain {
    ($($t:ty),*) => { $(
        /// Has no parameters.
        impl Module for $t {
            fn visit<'a>(&'a self, _: &mut Path, _: &mut dyn FnMut(&Path, Leaf<'a>)) {}
            fn visit_mut<'a>(&'a mut self, _: &mut Path, _: &mut dyn FnMut(&Path, LeafMut<'a>)) {}
        }
    )* };
}

plain!(bool, u8, u32, u64, usize, i32, i64, isize, f32, f64, String, &'static str, Device);
plain!(kiln_graph::Conv2dOptions, kiln_graph::Pool2dOptions);
