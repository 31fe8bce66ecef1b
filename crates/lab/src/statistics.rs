//! Means over seeds, and how far they can be trusted.

/// Two-sided 95 % quantiles of Student's t distribution for 1 to 30 degrees of freedom.
const T_975: [f64; 30] = [
    12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131,
    2.120, 2.110, 2.101, 2.093, 2.086, 2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042,
];

/// The factor by which a standard error is multiplied for a 95 % confidence interval, given the degrees of
/// freedom. Infinite for none.
pub fn student_t(degrees: usize) -> f64 {
    match degrees {
        0 => f64::INFINITY,
        1..=30 => T_975[degrees - 1],
        _ => {
            // The first terms of the expansion in 1/degrees (Abramowitz and Stegun 26.7.5).
            let (z, n) = (1.959_964_f64, degrees as f64);
            z + (z.powi(3) + z) / (4.0 * n) + (5.0 * z.powi(5) + 16.0 * z.powi(3) + 3.0 * z) / (96.0 * n * n)
        }
    }
}

/// What several runs say of one quantity.
#[derive(Clone, PartialEq, Debug)]
#[non_exhaustive]
pub struct Summary {
    /// The value of each run, in order of the seeds.
    pub values: Vec<f64>,
    /// Their mean.
    pub mean: f64,
    /// Sample standard deviation; 0 with one value.
    pub deviation: f64,
    /// Half the width of the 95 % confidence interval of the mean (Student's t); `None` with one value.
    pub confidence: Option<f64>,
}

impl Summary {
    /// The summary of `values`; those that are not numbers are left out.
    pub fn of(values: Vec<f64>) -> Summary {
        let known: Vec<f64> = values.iter().copied().filter(|v| v.is_finite()).collect();
        let n = known.len() as f64;
        if known.is_empty() {
            return Summary { values, mean: f64::NAN, deviation: f64::NAN, confidence: None };
        }
        let mean = known.iter().sum::<f64>() / n;
        if known.len() == 1 {
            return Summary { values, mean, deviation: 0.0, confidence: None };
        }
        let deviation = (known.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / (n - 1.0)).sqrt();
        let confidence = Some(student_t(known.len() - 1) * deviation / n.sqrt());
        Summary { values, mean, deviation, confidence }
    }
}

/// Jain's index of fairness: 1 when all get the same, 1/n when one gets all.
pub(crate) fn fairness(values: &[f64]) -> f64 {
    let (sum, squares) = values.iter().fold((0.0, 0.0), |(s, q), v| (s + v, q + v * v));
    if squares == 0.0 { f64::NAN } else { sum * sum / (values.len() as f64 * squares) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn confidence_intervals_are_students() {
        let s = Summary::of(vec![1.0, 2.0, 3.0, 4.0, 5.0]);
        assert_eq!(s.mean, 3.0);
        assert!((s.deviation - 2.5f64.sqrt()).abs() < 1e-12);
        assert!((s.confidence.unwrap() - 2.776 * 0.5f64.sqrt()).abs() < 1e-12);
        assert_eq!(Summary::of(vec![7.0]).confidence, None);
        let with_gap = Summary::of(vec![1.0, f64::NAN, 3.0]);
        assert_eq!((with_gap.mean, with_gap.values.len()), (2.0, 3));
        assert!(Summary::of(vec![]).mean.is_nan());
        // Tabulated: 40 degrees 2.021, 120 degrees 1.980.
        assert!((student_t(40) - 2.021).abs() < 5e-4 && (student_t(120) - 1.980).abs() < 5e-4);
    }

    #[test]
    fn fairness_of_equals_is_one() {
        assert_eq!(fairness(&[2.0, 2.0, 2.0]), 1.0);
        assert!((fairness(&[1.0, 0.0, 0.0, 0.0]) - 0.25).abs() < 1e-12);
        assert!(fairness(&[0.0]).is_nan());
    }
}
