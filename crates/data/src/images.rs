//! [`Images`]: a labelled set of byte images, checked when made and immutable after.
//!
//! Pixels stay bytes until a batch is built, a quarter of the memory of `f32`. Clones share them, which is
//! how the loader's thread can hold the set without borrowing it.

use std::sync::Arc;

use kiln_ir::{Error, ErrorKind, Result};

/// Labelled images, `u8[n, c, h, w]` and `u8[n]`, all of one size.
///
/// True of every value: each label is below `classes`, and no pixel exceeds `max`. A clone is cheap.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Images {
    pixels: Arc<[u8]>,
    labels: Arc<[u8]>,
    channels: usize,
    height: usize,
    width: usize,
    classes: usize,
    max: u8,
}

impl Images {
    /// Checks and takes the images.
    ///
    /// Shapes: `pixels [n, c, h, w]` row-major, `labels [n]`, `dims` is `[c, h, w]`. The pixel value `max`
    /// maps to 1.0: 255 for photographs, 16 for the embedded digits.
    ///
    /// # Errors
    /// `ErrorKind::Data` if a dim or `max` is zero, the lengths disagree, a label is not below `classes`, or
    /// a pixel exceeds `max`.
    ///
    /// # Examples
    /// ```
    /// use kiln_data::Images;
    /// let two = Images::new(vec![0, 255, 9, 8], vec![1, 0], [1, 1, 2], 2, 255).unwrap();
    /// assert_eq!((two.len(), two.image(1)), (2, &[9, 8][..]));
    ///
    /// let error = Images::new(vec![0, 1], vec![0, 7], [1, 1, 1], 2, 255).unwrap_err();
    /// assert_eq!(error.to_string(), "sample 1 has label 7, expected a label below 2 (2 classes)");
    /// ```
    pub fn new(pixels: Vec<u8>, labels: Vec<u8>, dims: [usize; 3], classes: usize, max: u8) -> Result<Images> {
        let [channels, height, width] = dims;
        let data = |message: String| Err(Error::new(ErrorKind::Data, message));
        if dims.contains(&0) || max == 0 {
            return data(format!("dims {dims:?} and max {max}: expected all above zero"));
        }
        let n = labels.len();
        let expected = dims.iter().try_fold(n, |product, &dim| product.checked_mul(dim));
        if expected != Some(pixels.len()) {
            let found = pixels.len();
            return data(format!(
                "expected {n} × {channels} × {height} × {width} pixels for {n} labels, found {found}"
            ));
        }
        if let Some(i) = labels.iter().position(|&label| usize::from(label) >= classes) {
            let label = labels[i];
            return data(format!("sample {i} has label {label}, expected a label below {classes} ({classes} classes)"));
        }
        if let Some(at) = pixels.iter().position(|&p| p > max) {
            let (i, p) = (at / (channels * height * width), pixels[at]);
            return data(format!("sample {i} has pixel value {p}, expected at most {max}"));
        }
        let (pixels, labels) = (pixels.into(), labels.into());
        Ok(Images { pixels, labels, channels, height, width, classes, max })
    }

    /// The number of images, `n`.
    pub fn len(&self) -> usize {
        self.labels.len()
    }

    /// True iff there are no images.
    pub fn is_empty(&self) -> bool {
        self.labels.is_empty()
    }

    /// The dims of the whole set, `[n, c, h, w]`.
    pub fn dims(&self) -> [usize; 4] {
        [self.len(), self.channels, self.height, self.width]
    }

    /// Values in one image, `c · h · w`.
    pub fn image_numel(&self) -> usize {
        self.channels * self.height * self.width
    }

    /// The number of classes; labels are below it.
    pub fn classes(&self) -> usize {
        self.classes
    }

    /// The pixel value that maps to 1.0.
    pub fn max(&self) -> u8 {
        self.max
    }

    /// All pixels, `u8[n, c, h, w]`.
    pub fn pixels(&self) -> &[u8] {
        &self.pixels
    }

    /// All labels, `u8[n]`.
    pub fn labels(&self) -> &[u8] {
        &self.labels
    }

    /// Pixels of image `i`, `u8[c, h, w]`.
    ///
    /// # Panics
    /// If `i` is not below `len`.
    #[track_caller]
    pub fn image(&self, i: usize) -> &[u8] {
        assert!(i < self.len(), "image {i} of a set of {}", self.len());
        let numel = self.image_numel();
        &self.pixels[i * numel..(i + 1) * numel]
    }

    /// A copy of the images at `indices`, in that order; an index may repeat.
    ///
    /// # Panics
    /// If an index is not below `len`.
    ///
    /// # Examples
    /// ```
    /// let set = kiln_data::Images::new(vec![5, 6, 7], vec![0, 1, 2], [1, 1, 1], 3, 255).unwrap();
    /// let part = set.subset(&[2, 0]);
    /// assert_eq!((part.pixels(), part.labels()), (&[7, 5][..], &[2, 0][..]));
    /// ```
    #[track_caller]
    pub fn subset(&self, indices: &[usize]) -> Images {
        let mut pixels = Vec::with_capacity(indices.len() * self.image_numel());
        let mut labels = Vec::with_capacity(indices.len());
        for &i in indices {
            pixels.extend_from_slice(self.image(i));
            labels.push(self.labels[i]);
        }
        Images { pixels: pixels.into(), labels: labels.into(), ..self.clone() }
    }

    /// Mean and population standard deviation of `p / max` over all pixels, for
    /// [`Batches::normalised`](crate::Batches::normalised).
    ///
    /// Numerics: exact integer sums of a histogram, then `f64`. An empty set gives `(0, 1)`, which
    /// normalises nothing.
    ///
    /// # Examples
    /// ```
    /// let set = kiln_data::Images::new(vec![0, 16], vec![0, 0], [1, 1, 1], 1, 16).unwrap();
    /// assert_eq!(set.mean_std(), (0.5, 0.5));
    /// ```
    pub fn mean_std(&self) -> (f32, f32) {
        if self.is_empty() {
            return (0.0, 1.0);
        }
        let mut histogram = [0u64; 256];
        for &p in self.pixels.iter() {
            histogram[usize::from(p)] += 1;
        }
        let moment = |power: u32| -> f64 {
            let sum: u128 = (0u128..256).map(|p| p.pow(power) * u128::from(histogram[p as usize])).sum();
            sum as f64 / self.pixels.len() as f64
        };
        let (mean, max) = (moment(1), f64::from(self.max));
        let variance = (moment(2) - mean * mean).max(0.0);
        ((mean / max) as f32, (variance.sqrt() / max) as f32)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(pixels: Vec<u8>, labels: Vec<u8>, dims: [usize; 3], max: u8) -> String {
        let error = Images::new(pixels, labels, dims, 10, max).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Data);
        error.to_string()
    }

    #[test]
    fn bad_sets_are_refused_with_the_place() {
        assert_eq!(
            message(vec![0; 7], vec![0, 1], [1, 2, 2], 255),
            "expected 2 × 1 × 2 × 2 pixels for 2 labels, found 7"
        );
        assert_eq!(
            message(vec![0; 3], vec![0, 9, 10], [1, 1, 1], 255),
            "sample 2 has label 10, expected a label below 10 (10 classes)"
        );
        assert_eq!(
            message(vec![0, 1, 17, 3], vec![0, 1], [1, 1, 2], 16),
            "sample 1 has pixel value 17, expected at most 16"
        );
        assert_eq!(message(vec![], vec![], [1, 0, 2], 255), "dims [1, 0, 2] and max 255: expected all above zero");
        message(vec![0], vec![0], [1, 1, 1], 0);
        message(vec![0], vec![0, 1], [usize::MAX, 2, 2], 255); // the product overflows
    }

    #[test]
    fn statistics_match_the_definition() {
        let pixels = vec![0, 51, 102, 255, 7, 90];
        let set = Images::new(pixels.clone(), vec![0; 3], [1, 1, 2], 1, 255).unwrap();
        let x: Vec<f64> = pixels.iter().map(|&p| f64::from(p) / 255.0).collect();
        let mean = x.iter().sum::<f64>() / 6.0;
        let std = (x.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / 6.0).sqrt();
        let got = set.mean_std();
        assert!((f64::from(got.0) - mean).abs() < 1e-7 && (f64::from(got.1) - std).abs() < 1e-7);
        assert_eq!(set.subset(&[]).mean_std(), (0.0, 1.0));
    }

    #[test]
    fn a_subset_keeps_dims_and_classes() {
        let set = Images::new((0..12).collect(), vec![2, 1, 0], [1, 2, 2], 3, 255).unwrap();
        let part = set.subset(&[1, 1]);
        assert_eq!((part.dims(), part.classes(), part.max()), ([2, 1, 2, 2], 3, 255));
        assert_eq!(part.pixels(), [4, 5, 6, 7, 4, 5, 6, 7]);
    }

    #[test]
    #[should_panic(expected = "image 3 of a set of 3")]
    fn a_subset_outside_the_set_panics() {
        Images::new(vec![0; 3], vec![0; 3], [1, 1, 1], 1, 255).unwrap().subset(&[0, 3]);
    }
}
