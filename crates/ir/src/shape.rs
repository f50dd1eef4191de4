//! Shapes: up to eight dims, held inline so that recording a node allocates nothing for them.

use std::fmt;
use std::ops::Deref;

/// The dims of a tensor, row-major. Rank 0 is a scalar.
#[derive(Clone, Copy, Eq)]
pub struct Shape {
    dims: [usize; Shape::MAX_RANK],
    rank: u8,
}

/// Unused dims are 0, so all eight are compared at once; a call to compare memory would cost more than that.
impl PartialEq for Shape {
    fn eq(&self, other: &Shape) -> bool {
        let differs = self.dims.iter().zip(&other.dims).fold(0, |differs, (a, b)| differs | (a ^ b));
        differs == 0 && self.rank == other.rank
    }
}

impl std::hash::Hash for Shape {
    fn hash<H: std::hash::Hasher>(&self, h: &mut H) {
        (&self.dims[..self.rank()], self.rank).hash(h);
    }
}

impl Shape {
    /// The largest rank a tensor may have.
    pub const MAX_RANK: usize = 8;

    /// The shape with these dims.
    ///
    /// # Panics
    /// If there are more than eight dims.
    #[track_caller]
    pub fn new(dims: &[usize]) -> Shape {
        assert!(dims.len() <= Shape::MAX_RANK, "shape: rank {} exceeds {}: {dims:?}", dims.len(), Shape::MAX_RANK);
        let mut s = Shape { dims: [0; Shape::MAX_RANK], rank: dims.len() as u8 };
        s.dims.iter_mut().zip(dims).for_each(|(to, dim)| *to = *dim);
        s
    }

    /// The shape whose dims are those of these lists, one after the other.
    ///
    /// ```
    /// assert_eq!(*kiln_ir::Shape::of(&[&[2, 3], &[], &[4]]), [2, 3, 4]);
    /// ```
    ///
    /// # Panics
    /// As [`Shape::new`].
    #[track_caller]
    pub fn of(parts: &[&[usize]]) -> Shape {
        let rank: usize = parts.iter().map(|dims| dims.len()).sum();
        assert!(rank <= Shape::MAX_RANK, "shape: rank {rank} exceeds {}: {:?}", Shape::MAX_RANK, parts.concat());
        let mut s = Shape { dims: [0; Shape::MAX_RANK], rank: rank as u8 };
        s.dims.iter_mut().zip(parts.iter().copied().flatten()).for_each(|(to, dim)| *to = *dim);
        s
    }

    /// The scalar shape `[]`.
    pub const fn scalar() -> Shape {
        Shape { dims: [0; Shape::MAX_RANK], rank: 0 }
    }

    /// Number of axes.
    pub fn rank(&self) -> usize {
        self.rank as usize
    }

    /// Number of elements: the product of the dims, 1 for a scalar.
    pub fn numel(&self) -> usize {
        self.iter().product()
    }

    /// Row-major strides, in elements.
    pub fn strides(&self) -> Vec<usize> {
        strides(self)
    }

    /// The shape with `axis` set to `dim`.
    pub fn with(mut self, axis: usize, dim: usize) -> Shape {
        assert!(axis < self.rank(), "shape: axis {axis} out of range for {self}");
        self.dims[axis] = dim;
        self
    }

    /// NumPy's broadcast of two shapes, aligned at the last axis; `None` if a pair of dims differs
    /// and neither is 1.
    pub fn broadcast(&self, other: &Shape) -> Option<Shape> {
        let rank = self.rank().max(other.rank());
        let mut out = Shape { dims: [0; Shape::MAX_RANK], rank: rank as u8 };
        for i in 0..rank {
            let at = |s: &Shape| (i + s.rank()).checked_sub(rank).map_or(1, |j| s[j]);
            out.dims[i] = match (at(self), at(other)) {
                (a, b) if a == b => a,
                (1, b) => b,
                (a, 1) => a,
                _ => return None,
            };
        }
        Some(out)
    }
}

/// Row-major strides of `dims`, in elements.
pub(crate) fn strides(dims: &[usize]) -> Vec<usize> {
    let mut out = vec![1; dims.len()];
    for i in (0..dims.len().saturating_sub(1)).rev() {
        out[i] = out[i + 1] * dims[i + 1].max(1);
    }
    out
}

impl Deref for Shape {
    type Target = [usize];
    fn deref(&self) -> &[usize] {
        &self.dims[..self.rank as usize]
    }
}

/// A list of axes: at most as long as a shape, and held like one.
pub type Axes = Shape;

/// # Panics
/// If there are more than eight.
impl FromIterator<usize> for Shape {
    #[track_caller]
    fn from_iter<I: IntoIterator<Item = usize>>(dims: I) -> Shape {
        let mut s = Shape::scalar();
        for dim in dims {
            assert!(s.rank() < Shape::MAX_RANK, "shape: more than {} dims", Shape::MAX_RANK);
            s.dims[s.rank()] = dim;
            s.rank += 1;
        }
        s
    }
}

impl From<&[usize]> for Shape {
    #[track_caller]
    fn from(dims: &[usize]) -> Shape {
        Shape::new(dims)
    }
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[")?;
        for (i, d) in self.iter().enumerate() {
            if i > 0 {
                f.write_str(", ")?;
            }
            write!(f, "{d}")?;
        }
        f.write_str("]")
    }
}

impl fmt::Debug for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn broadcast_aligns_at_the_last_axis() {
        let s = |d: &[usize]| Shape::new(d);
        assert_eq!(s(&[4, 1, 3]).broadcast(&s(&[2, 1])), Some(s(&[4, 2, 3])));
        assert_eq!(s(&[]).broadcast(&s(&[5])), Some(s(&[5])));
        assert_eq!(s(&[0, 3]).broadcast(&s(&[1, 3])), Some(s(&[0, 3])));
        assert_eq!(s(&[4]).broadcast(&s(&[3])), None);
    }

    #[test]
    fn prints_as_in_errors() {
        assert_eq!(Shape::new(&[4, 3]).to_string(), "[4, 3]");
        assert_eq!(Shape::scalar().to_string(), "[]");
    }
}
