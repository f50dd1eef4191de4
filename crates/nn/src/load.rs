//! What a file's tensors and a model's have in common, and putting the one into the other.

use std::collections::HashMap;
use std::fmt;

use kiln_graph::Tensor;

use crate::{LeafMut, Module, Param, Path};

/// A tensor that a file holds in other dims, or in a dtype that does not convert.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Mismatch {
    /// Its path in the model.
    pub name: String,
    /// What the model has, as `f32[8, 128]`.
    pub expected: String,
    /// What the file has.
    pub found: String,
}

/// What a file and a model did not have in common.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
#[must_use = "tensors that did not fit stay as they were"]
pub struct LoadReport {
    /// In the model, not in the file.
    pub missing: Vec<String>,
    /// In the file, not in the model.
    pub unexpected: Vec<String>,
    /// In both, but not alike.
    pub mismatched: Vec<Mismatch>,
    /// How many tensors fit.
    pub n_loaded: usize,
}

impl LoadReport {
    /// True iff file and model have the same names and shapes.
    pub fn is_exact(&self) -> bool {
        self.missing.is_empty() && self.unexpected.is_empty() && self.mismatched.is_empty()
    }
}

impl fmt::Display for LoadReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const SHOWN_MAX: usize = 5;
        write!(f, "{} tensors fit", self.n_loaded)?;
        let differ = |m: &Mismatch| format!("{} ({} in the file, {} in the model)", m.name, m.found, m.expected);
        let mismatched = self.mismatched.iter().map(differ).collect();
        let lists = [("missing", &self.missing), ("unexpected", &self.unexpected), ("mismatched", &mismatched)];
        for (what, names) in lists.into_iter().filter(|(_, names)| !names.is_empty()) {
            write!(f, "; {what} {}", names[..names.len().min(SHOWN_MAX)].join(", "))?;
            if names.len() > SHOWN_MAX {
                write!(f, " and {} more", names.len() - SHOWN_MAX)?;
            }
        }
        Ok(())
    }
}

/// Compares a model with named tensors; gives what fits, in the model's dtypes.
pub(crate) fn fit<M: Module + ?Sized>(model: &M, found: &[(String, Tensor)]) -> (LoadReport, HashMap<String, Tensor>) {
    let mut left: HashMap<&str, &Tensor> = found.iter().map(|(name, t)| (name.as_str(), t)).collect();
    let mut report = LoadReport::default();
    let mut fitting = HashMap::new();
    for (name, own) in model.state_dict() {
        let Some(t) = left.remove(name.as_str()) else {
            report.missing.push(name);
            continue;
        };
        let converts = t.dtype() == own.dtype() || (t.dtype().is_float() && own.dtype().is_float());
        if t.dims() == own.dims() && converts {
            fitting.insert(name, t.cast(own.dtype()));
        } else {
            let show = |t: &Tensor| format!("{}{}", t.dtype(), t.shape());
            report.mismatched.push(Mismatch { name, expected: show(&own), found: show(t) });
        }
    }
    report.unexpected = left.into_keys().map(str::to_owned).collect();
    report.unexpected.sort();
    report.n_loaded = fitting.len();
    (report, fitting)
}

/// Puts tensors in the places that they name.
pub(crate) fn replace<M: Module + ?Sized>(model: &mut M, mut tensors: HashMap<String, Tensor>) {
    model.visit_mut(&mut Path::default(), &mut |at, leaf| {
        let Some(t) = tensors.remove(at.as_str()) else { return };
        match leaf {
            LeafMut::Param(param) => *param = Param::new(t),
            LeafMut::State(state) => state.set(t),
            LeafMut::Mode(_) => {}
        }
    });
}
