//! Medians, percentiles and ratios of measured times.

use std::time::Duration;

/// The value below which `part` of the sorted samples lie (nearest rank); 0 without samples.
fn percentile(sorted: &[f64], part: f64) -> f64 {
    let Some(last) = sorted.len().checked_sub(1) else {
        return 0.0;
    };
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a rank between 0 and the number of samples"
    )]
    let rank = (part * sorted.len() as f64).ceil() as usize;
    sorted[rank.saturating_sub(1).min(last)]
}

fn sorted(values: impl Iterator<Item = f64>) -> Vec<f64> {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values
}

/// What is told of a series, in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize)]
pub(crate) struct Summary {
    pub(crate) samples: usize,
    pub(crate) p50_ms: f64,
    pub(crate) p90_ms: f64,
    pub(crate) p99_ms: f64,
}

/// Summarizes a series.
pub(crate) fn summary(times: &[Duration]) -> Summary {
    let values = sorted(times.iter().map(|time| time.as_secs_f64() * 1000.0));
    Summary {
        samples: values.len(),
        p50_ms: percentile(&values, 0.5),
        p90_ms: percentile(&values, 0.9),
        p99_ms: percentile(&values, 0.99),
    }
}

/// The median over the rounds of `ours / floor`, each pair measured one after the other.
///
/// The machine's mood at one moment is in both parts of a pair, so it cancels out.
pub(crate) fn median_ratio(ours: &[Duration], floor: &[Duration]) -> f64 {
    let ratios = ours
        .iter()
        .zip(floor)
        .filter(|(_, floor)| !floor.is_zero())
        .map(|(ours, floor)| ours.as_secs_f64() / floor.as_secs_f64());
    percentile(&sorted(ratios), 0.5)
}

/// Median and both ends of a few values.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize)]
pub(crate) struct Spread {
    pub(crate) median: f64,
    pub(crate) least: f64,
    pub(crate) most: f64,
}

/// Summarizes one value a round; all 0 without any.
pub(crate) fn spread(values: &[f64]) -> Spread {
    let values = sorted(values.iter().copied());
    Spread {
        median: percentile(&values, 0.5),
        least: values.first().copied().unwrap_or(0.0),
        most: values.last().copied().unwrap_or(0.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(values: &[u64]) -> Vec<Duration> {
        values
            .iter()
            .map(|value| Duration::from_millis(*value))
            .collect()
    }

    #[test]
    fn percentiles_are_samples() {
        let summary = summary(&ms(&[5, 1, 4, 2, 3]));
        assert_eq!(
            (summary.samples, summary.p50_ms, summary.p99_ms),
            (5, 3.0, 5.0)
        );
        assert_eq!(super::summary(&[]).p50_ms, 0.0);
    }

    #[test]
    fn a_spread_has_its_ends() {
        let wanted = Spread {
            median: 2.0,
            least: 1.0,
            most: 9.0,
        };
        assert_eq!(spread(&[9.0, 1.0, 2.0]), wanted);
        assert_eq!(spread(&[]).most, 0.0);
    }

    #[test]
    fn ratios_are_taken_pair_by_pair() {
        // One slow moment hits both parts of its pair and does not count.
        assert_eq!(median_ratio(&ms(&[2, 20, 200]), &ms(&[1, 10, 100])), 2.0);
        assert_eq!(median_ratio(&ms(&[2]), &ms(&[0])), 0.0);
    }
}
