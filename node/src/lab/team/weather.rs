//! What the network does to deltas: which arrive late, which not at all, and who is cut off for a while.
//!
//! Every fate is a hash of the seed, the round, the author and the receiver. So it depends on nothing that
//! happened before, two methods meet the same weather, and there is no state to save.

use crate::lab::settings::Settings;

/// The weather of a run.
#[derive(Clone, Copy, Debug)]
pub(super) struct Weather {
    seed: u64,
    late: f64,
    late_rounds: u64,
    lost: f64,
    /// The first learner that is cut off, and the rounds in which it is.
    cut_off: usize,
    cut: (u64, u64),
}

impl Weather {
    pub(super) fn new(settings: &Settings) -> Self {
        Self {
            seed: settings.seed,
            late: settings.late,
            late_rounds: settings.late_rounds.into(),
            lost: settings.lost,
            cut_off: (settings.learners - settings.cut_off) as usize,
            cut: match settings.cut_off {
                0 => (0, 0),
                _ => (settings.cut_from, settings.cut_from.saturating_add(settings.cut_rounds)),
            },
        }
    }

    /// Whether every delta arrives at once.
    pub(super) fn is_fine(&self) -> bool {
        self.late == 0.0 && self.lost == 0.0
    }

    /// Whether there is a link between the two in this round.
    pub(super) fn linked(&self, round: u64, a: usize, b: usize) -> bool {
        let cut = (self.cut.0..self.cut.1).contains(&round);
        !cut || (a >= self.cut_off) == (b >= self.cut_off)
    }

    /// Whether those who were cut off have taken up the history of the others before the end of this round.
    pub(super) fn is_healed(&self, round: u64) -> bool {
        round >= self.cut.1
    }

    /// The learners that come back at the end of this round.
    pub(super) fn coming_back(&self, round: u64, learners: usize) -> std::ops::Range<usize> {
        let over = self.cut.0 < self.cut.1 && round + 1 == self.cut.1;
        if over { self.cut_off..learners } else { 0..0 }
    }

    /// Whether the author's delta of this round reaches nobody.
    pub(super) fn loses(&self, round: u64, author: usize) -> bool {
        self.draw(round, author, u64::MAX).0 < self.lost
    }

    /// The round at whose end the receiver has the author's delta of `round`, unless it is lost.
    pub(super) fn arrival(&self, round: u64, author: usize, receiver: usize) -> u64 {
        let (chance, delay) = self.draw(round, author, receiver as u64);
        if author == receiver || chance >= self.late { round } else { round + 1 + delay % self.late_rounds }
    }

    fn draw(&self, round: u64, author: usize, receiver: u64) -> (f64, u64) {
        let mut hasher = blake3::Hasher::new();
        for number in [self.seed, round, author as u64, receiver] {
            hasher.update(&number.to_le_bytes());
        }
        let mut words = [0; 16];
        hasher.finalize_xof().fill(&mut words);
        let [low, high] = [0, 8]
            .map(|at| words[at..at + 8].iter().rev().fold(0u64, |word, byte| (word << 8) | u64::from(*byte)));
        ((low >> 11) as f64 / (1u64 << 53) as f64, high)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fates_have_their_frequencies_and_repeat() {
        let settings = Settings { late: 0.3, late_rounds: 8, lost: 0.1, ..Settings::default() };
        let weather = Weather::new(&settings);
        let (mut late, mut lost) = (0, 0);
        for round in 0..5000 {
            let arrival = weather.arrival(round, 1, 2);
            assert!((round..=round + 8).contains(&arrival));
            assert_eq!(arrival, weather.arrival(round, 1, 2));
            assert_eq!(weather.arrival(round, 2, 2), round);
            late += i32::from(arrival > round);
            lost += i32::from(weather.loses(round, 1));
        }
        // 5000 draws: three standard deviations are 97 and 64.
        assert!((1400..1600).contains(&late) && (436..564).contains(&lost), "{late} {lost}");
        assert!(Weather::new(&Settings::default()).is_fine());
    }
}
