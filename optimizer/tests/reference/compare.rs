//! Counting what was compared, and saying where it differs.

use std::fmt;

/// At most so many differences of a case are listed.
const LISTED: usize = 12;

/// What came of one file.
#[derive(Default)]
pub(crate) struct Outcome {
    /// Optimizer steps replayed.
    pub(crate) steps: usize,
    /// Scalars compared.
    pub(crate) values: usize,
    differences: Vec<Difference>,
}

/// One tensor, at one step, of one worker (or of all).
#[derive(Clone)]
pub(crate) struct Place {
    pub(crate) tensor: String,
    pub(crate) step: Option<usize>,
    pub(crate) worker: Option<usize>,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.tensor)?;
        self.step.map_or(Ok(()), |step| write!(f, ", step {step}"))?;
        self.worker.map_or(Ok(()), |worker| write!(f, ", worker {worker}"))
    }
}

struct Difference {
    place: Place,
    count: usize,
    of: usize,
    error: f64,
    allowed: f64,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Difference { place, count, of, error, allowed } = self;
        write!(f, "{place}: {count} of {of} values, worst error {error:.2e} (allowed {allowed:.2e})")
    }
}

impl Outcome {
    /// Compares pairs of (computed, recorded, largest allowed difference). A NaN on either side is a
    /// difference.
    pub(crate) fn compare(&mut self, place: Place, pairs: impl IntoIterator<Item = (f64, f64, f64)>) {
        let (mut count, mut of, mut error, mut allowed) = (0, 0, 0.0, 0.0);
        for (got, want, tolerance) in pairs {
            of += 1;
            let difference = if got == want { 0.0 } else { (got - want).abs() };
            if difference <= tolerance {
                continue;
            }
            count += 1;
            if count == 1 || difference - tolerance > error - allowed || difference.is_nan() {
                (error, allowed) = (difference, tolerance);
            }
        }
        self.values += of;
        if count > 0 {
            self.differences.push(Difference { place, count, of, error, allowed });
        }
    }

    /// The differences, a line each; `None` if there are none.
    pub(crate) fn failure(&self) -> Option<String> {
        let mut lines: Vec<String> = self.differences.iter().take(LISTED).map(|d| format!("  {d}")).collect();
        let more = self.differences.len().saturating_sub(LISTED);
        if more > 0 {
            lines.push(format!("  and {more} more places"));
        }
        (!lines.is_empty()).then(|| format!("differs from the reference\n{}", lines.join("\n")))
    }
}
