//! Of a few samples.

/// The one in the middle; of an even number, between the two in the middle.
pub(crate) fn median(samples: &[f64]) -> f64 {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    match sorted.len() {
        0 => f64::NAN,
        count if count % 2 == 1 => sorted[count / 2],
        count => f64::midpoint(sorted[count / 2 - 1], sorted[count / 2]),
    }
}

/// The least and the greatest.
pub(crate) fn range(samples: &[f64]) -> (f64, f64) {
    samples.iter().fold(
        (f64::INFINITY, f64::NEG_INFINITY),
        |(low, high), &sample| (low.min(sample), high.max(sample)),
    )
}

/// Half of the range, in parts of the median.
pub(crate) fn spread(samples: &[f64]) -> f64 {
    let (low, high) = range(samples);
    (high - low) / 2.0 / median(samples)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn same(one: f64, other: f64) -> bool {
        (one - other).abs() < 1e-9
    }

    #[test]
    fn the_median_is_in_the_middle() {
        assert!(same(median(&[3.0, 1.0, 2.0]), 2.0));
        assert!(same(median(&[4.0, 1.0, 2.0, 3.0]), 2.5));
        assert!(same(median(&[7.0]), 7.0));
        assert!(median(&[]).is_nan());
    }

    #[test]
    fn an_outlier_moves_the_spread_and_not_the_median() {
        let samples = [10.0, 11.0, 9.0, 10.0, 50.0];
        assert!(same(median(&samples), 10.0));
        assert!(same(spread(&samples), 2.05));
        assert!(same(spread(&[5.0, 5.0]), 0.0));
    }
}
