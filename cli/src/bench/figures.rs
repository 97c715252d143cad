//! What the arrivals at Zoho say: the fullest window, the emptiest, and how long jobs waited. Pure; times are microseconds.

use serde::Serialize;

/// Calls that arrived, in order.
#[derive(Debug, Clone)]
pub(crate) struct Arrivals(Vec<i64>);

/// How the calls lay in windows.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Windows {
    /// Most calls in any half-open window of all that arrived.
    pub(crate) most: usize,
    /// Calls in consecutive windows.
    pub(crate) consecutive: Vec<usize>,
    /// Fewest calls in any window between the first's beginning and the last's end.
    pub(crate) fewest: usize,
}

impl Arrivals {
    pub(crate) fn new(mut arrivals: Vec<i64>) -> Self {
        arrivals.sort_unstable();
        Self(arrivals)
    }

    pub(crate) fn first(&self) -> Option<i64> {
        self.0.first().copied()
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// Most calls in any half-open window. The fullest one begins with a call.
    pub(crate) fn most(&self, window: i64) -> usize {
        let mut start = 0;
        let mut most = 0;
        for (index, at) in self.0.iter().enumerate() {
            while self.0[start] <= at - window {
                start += 1;
            }
            most = most.max(index + 1 - start);
        }
        most
    }

    /// Calls with `from <= at < to`.
    pub(crate) fn between(&self, from: i64, to: i64) -> usize {
        self.0.partition_point(|at| *at < to) - self.0.partition_point(|at| *at < from)
    }

    /// Fewest calls in any window within the stretch. The emptiest one begins just after a call, or with the stretch.
    pub(crate) fn fewest(&self, from: i64, to: i64, window: i64) -> usize {
        let starts = self.0.iter().map(|at| at + 1).filter(|start| *start >= from && start + window <= to);
        starts.chain([from]).map(|start| self.between(start, start + window)).min().unwrap_or(0)
    }

    /// The figures of `count` windows from `from` on.
    pub(crate) fn windows(&self, from: i64, count: u32, window: i64) -> Windows {
        let starts = (0..i64::from(count)).map(|n| from + n * window);
        Windows {
            most: self.most(window),
            consecutive: starts.map(|start| self.between(start, start + window)).collect(),
            fewest: self.fewest(from, from + i64::from(count) * window, window),
        }
    }
}

/// The value that so many in a hundred do not exceed.
pub(crate) fn percentile(values: &mut [i64], percent: usize) -> Option<i64> {
    values.sort_unstable();
    values.get((values.len() * percent).div_ceil(100).checked_sub(1)?).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_calls_a_window_apart_are_not_in_one_window() {
        let arrivals = Arrivals::new(vec![0, 100, 100, 199, 200]);
        assert_eq!(arrivals.most(100), 3);
        assert_eq!(arrivals.most(101), 4);
        assert_eq!(arrivals.between(100, 200), 3);
    }

    #[test]
    fn the_emptiest_window_is_found_between_the_consecutive_ones() {
        // full windows at 0 and 100, but nothing from 51 to 150
        let arrivals = Arrivals::new(vec![0, 10, 50, 151, 160, 199]);
        let windows = arrivals.windows(0, 2, 100);
        assert_eq!((windows.consecutive, windows.fewest), (vec![3, 3], 0));
    }

    #[test]
    fn a_percentile_is_one_of_the_values() {
        let mut values: Vec<i64> = (1..=100).rev().collect();
        assert_eq!(percentile(&mut values, 99), Some(99));
        assert_eq!(percentile(&mut values, 50), Some(50));
        assert_eq!(percentile(&mut [], 50), None);
    }
}
