//! Fewer points for the same picture: of each bucket, the lowest and the highest.
//!
//! A mean would smooth away the spike that a plot is opened to find; the extremes of a bucket narrower than a
//! pixel draw exactly what all of its points would.

/// At most `limit` of `points`, in order, the first and the last among them; all of them if they fit.
///
/// Numerics: the `y` are compared by total order, and the lowest and highest of all points are kept.
pub(crate) fn thin(points: &[(f64, f64)], limit: usize) -> Vec<(f64, f64)> {
    if points.len() <= limit.max(4) {
        return points.to_vec();
    }
    let (first, last) = (points[0], points[points.len() - 1]);
    let inner = &points[1..points.len() - 1];
    let size = inner.len().div_ceil(limit.max(4) / 2 - 1);
    let mut kept = vec![first];
    for bucket in inner.chunks(size) {
        let by_y = |&a: &usize, &b: &usize| bucket[a].1.total_cmp(&bucket[b].1);
        let low = (0..bucket.len()).min_by(by_y).expect("chunks are never empty");
        let high = (0..bucket.len()).max_by(by_y).expect("chunks are never empty");
        kept.push(bucket[low.min(high)]);
        if low != high {
            kept.push(bucket[low.max(high)]);
        }
    }
    kept.push(last);
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wave(n: usize) -> Vec<(f64, f64)> {
        (0..n).map(|i| (i as f64, (i as f64 * 0.01).sin())).collect()
    }

    #[test]
    fn few_points_are_all_kept() {
        for n in [0, 1, 4, 2000] {
            assert_eq!(thin(&wave(n), 2000), wave(n));
        }
    }

    #[test]
    fn a_long_series_keeps_order_ends_and_spikes() {
        let mut points = wave(1_000_003);
        points[654_321].1 = 50.0;
        points[654_322].1 = -50.0;
        for limit in [4, 5, 100, 2000] {
            let kept = thin(&points, limit);
            assert!(kept.len() <= limit, "{} of {limit}", kept.len());
            assert!(kept.is_sorted_by(|a, b| a.0 < b.0));
            assert_eq!((kept[0], kept[kept.len() - 1]), (points[0], points[1_000_002]));
            assert!(kept.contains(&(654_321.0, 50.0)) && kept.contains(&(654_322.0, -50.0)));
        }
        assert!(thin(&points, 2000).len() > 1900);
    }

    #[test]
    fn a_constant_series_needs_one_point_a_bucket() {
        let kept = thin(&vec![(0.0, 1.0); 10_000], 100);
        assert!(kept.iter().all(|&point| point == (0.0, 1.0)) && kept.len() <= 100);
    }
}
