//! What the rounds of a ledger add up to, by author.

use std::collections::BTreeMap;

use crate::identity::PeerKey;

use super::{Claims, Row, Standing};

/// A millionth is the unit of shares.
const MILLION: u64 = 1_000_000;

/// What one author contributed to all rounds of a ledger.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Total {
    /// Who.
    pub author: PeerKey,
    /// Rounds that it has a part in.
    pub rounds: u64,
    /// Of them, those in which its delta is folded.
    pub counted: u64,
    /// Of them, those in which the others left its delta out.
    pub left_out: u64,
    /// Of them, those for which it signed two deltas.
    pub void: u64,
    /// Rounds in which another author sent the very same body.
    pub shared: u64,
    /// Its share of all bodies that are folded, in millionths; of one that several sent each has the same part.
    pub share: u32,
    /// The mean of its deltas' agreement with the outcome, in thousandths.
    pub agreement: Option<i16>,
    /// Of its deltas that could confirm the ledger's history, how many do.
    pub confirms: u64,
    /// Its deltas that could.
    pub could_confirm: u64,
    /// Tokens trained on, as it claims.
    pub claimed_tokens: u64,
    /// Training loss at the start of its first round here, as it claims; see [`crate::delta::float_loss`].
    pub claimed_loss_first: Option<u32>,
    /// Training loss at the end of its last round here, as it claims.
    pub claimed_loss_last: Option<u32>,
    /// The mean of its training losses at the ends of its rounds, as it claims.
    pub claimed_loss_mean: Option<u32>,
}

/// What has been added up of an author.
#[derive(Default)]
struct Sum {
    rounds: u64,
    counted: u64,
    left_out: u64,
    void: u64,
    shared: u64,
    credit: u64,
    agreement: i64,
    agreements: i64,
    confirms: u64,
    could_confirm: u64,
    tokens: u64,
    first: Option<u32>,
    last: Option<u32>,
    losses: u64,
    lost: u64,
}

/// Adds up `rows`, which are in the order of their rounds.
pub(super) fn of(rows: &[Row]) -> Vec<Total> {
    let mut sums: BTreeMap<PeerKey, Sum> = BTreeMap::new();
    for row in rows {
        sums.entry(row.author).or_default().add(row);
    }
    let all = sums.values().map(|sum| u128::from(sum.credit)).sum::<u128>().max(1);
    let mut totals: Vec<(u64, Total)> =
        sums.into_iter().map(|(author, sum)| (sum.credit, sum.total(author, all))).collect();
    totals.sort_by_key(|(credit, total)| {
        (std::cmp::Reverse((*credit, total.counted, total.rounds)), total.author)
    });
    totals.into_iter().map(|(_, total)| total).collect()
}

impl Sum {
    fn add(&mut self, row: &Row) {
        self.rounds += 1;
        match row.standing {
            Standing::Counted => {
                self.counted += 1;
                self.credit += MILLION / u64::from(row.sharing.max(1));
            }
            Standing::LeftOut => self.left_out += 1,
            Standing::Void => self.void += 1,
        }
        self.shared += u64::from(row.sharing > 1);
        if let Some(agreement) = row.agreement {
            self.agreement += i64::from(agreement);
            self.agreements += 1;
        }
        self.could_confirm += u64::from(row.confirms.is_some());
        self.confirms += u64::from(row.confirms == Some(true));
        if let Some(Claims { tokens, loss_before, loss_after }) = row.claims {
            // Whatever is claimed: the sum of what cannot be negative is the same in any order.
            self.tokens = self.tokens.saturating_add(tokens);
            self.first = self.first.or(sensible(loss_before));
            self.last = sensible(loss_after).or(self.last);
            if let Some(loss) = sensible(loss_after) {
                self.losses += u64::from(loss);
                self.lost += 1;
            }
        }
    }

    fn total(self, author: PeerKey, all: u128) -> Total {
        let share = u128::from(self.credit) * u128::from(MILLION) / all;
        let mean = |sum: i64, count: i64| {
            // To the nearest, halves away from zero.
            let half = if sum < 0 { -count / 2 } else { count / 2 };
            (count > 0).then(|| (sum + half) / count)
        };
        let losses = (self.lost > 0).then(|| (self.losses + self.lost / 2) / self.lost.max(1));
        Total {
            author,
            rounds: self.rounds,
            counted: self.counted,
            left_out: self.left_out,
            void: self.void,
            shared: self.shared,
            share: u32::try_from(share).unwrap_or(u32::MAX),
            agreement: mean(self.agreement, self.agreements).and_then(|mean| i16::try_from(mean).ok()),
            confirms: self.confirms,
            could_confirm: self.could_confirm,
            claimed_tokens: self.tokens,
            claimed_loss_first: self.first,
            claimed_loss_last: self.last,
            claimed_loss_mean: losses.and_then(|loss| u32::try_from(loss).ok()),
        }
    }
}

/// A loss that is one: what is none is told as the largest value.
fn sensible(loss: u32) -> Option<u32> {
    (loss != u32::MAX).then_some(loss)
}
