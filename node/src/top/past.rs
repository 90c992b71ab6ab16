//! Rounds behind the present one, as the node's events tell them.

use std::collections::{BTreeMap, VecDeque};

use serde_json::Value;

/// Rounds that are remembered.
const MOST: usize = 20_000;
/// Rounds over which their length is averaged.
const RECENT: usize = 10;
/// What is larger has gone astray, and would make the rest of a curve flat.
const LARGEST: f64 = 1e6;

/// A quantity by rounds. Two for one round: the later counts.
pub(super) type Curve = BTreeMap<u64, f64>;

/// All of it.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Past {
    /// Training loss.
    pub(super) training: Curve,
    /// The shared model on the validation text.
    pub(super) validation: Curve,
    /// The shared model on this device's held-out text.
    pub(super) shared: Curve,
    /// The personal model on it.
    pub(super) personal: Curve,
    /// Round and time of the newest rounds of this start.
    recent: VecDeque<(u64, f64)>,
    /// Deltas folded, and how many of them came late.
    pub(super) folded: Option<(u64, u64)>,
}

impl Past {
    /// Takes up an event. What it does not know, and what has no number where one should be, is passed over.
    pub(super) fn learn(&mut self, event: &Value) {
        let Some(name) = event["event"].as_str() else { return };
        if name == "started" {
            self.recent.clear();
        }
        let Some(round) = event["round"].as_u64() else { return };
        match name {
            "round" => {
                note(&mut self.training, round, &event["loss"]);
                if let Some(time) = event["time"].as_f64() {
                    let goes_on =
                        self.recent.back().is_none_or(|(before, at)| *before < round && *at <= time);
                    if !goes_on {
                        self.recent.clear();
                    }
                    self.recent.push_back((round, time));
                    if self.recent.len() > RECENT {
                        self.recent.pop_front();
                    }
                }
                if let (Some(folded), Some(late)) =
                    (event["deltas_folded"].as_u64(), event["deltas_late"].as_u64())
                {
                    self.folded = Some((folded, late));
                }
            }
            "measured" => {
                note(&mut self.validation, round, &event["validation"]);
                note(&mut self.shared, round, &event["shared"]);
                note(&mut self.personal, round, &event["personal"]);
            }
            _ => {}
        }
    }

    /// Seconds that a round takes at present.
    pub(super) fn pace(&self) -> Option<f64> {
        let ((first, began), (last, ended)) = (self.recent.front()?, self.recent.back()?);
        let rounds = last.checked_sub(*first).filter(|rounds| *rounds > 0)?;
        Some((ended - began) / rounds as f64)
    }
}

fn note(curve: &mut Curve, round: u64, value: &Value) {
    let Some(value) = value.as_f64().filter(|value| value.abs() <= LARGEST) else { return };
    curve.insert(round, value);
    if curve.len() > MOST {
        curve.pop_first();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn curves_and_pace_come_from_events() {
        let mut past = Past::default();
        for round in 0..30u64 {
            past.learn(&json!({"event": "round", "time": 1000.0 + 33.0 * round as f64, "round": round,
                "loss": 3.0 - round as f64 / 30.0, "deltas_folded": 3 * round, "deltas_late": 1}));
        }
        past.learn(
            &json!({"event": "measured", "round": 29, "validation": 2.2, "shared": null, "personal": 2.1}),
        );
        assert_eq!((past.training.len(), past.folded), (30, Some((87, 1))));
        assert_eq!((past.validation.get(&29), past.shared.len(), past.personal.len()), (Some(&2.2), 0, 1));
        assert!((past.pace().unwrap() - 33.0).abs() < 1e-9);
        // A night between two starts is no long round.
        past.learn(&json!({"event": "started", "time": 50_000.0, "round": 30}));
        past.learn(&json!({"event": "round", "time": 50_010.0, "round": 30, "loss": 1e300}));
        assert_eq!((past.pace(), past.training.len()), (None, 30));
    }

    #[test]
    fn what_is_no_event_is_passed_over_and_memory_is_bounded() {
        let mut past = Past::default();
        for odd in [
            json!(null),
            json!([1]),
            json!({"event": 7}),
            json!({"event": "round"}),
            json!({"event": "round", "round": -1, "loss": 1.0}),
            json!({"event": "round", "round": 1, "loss": "low"}),
            json!({"event": "later", "round": 1, "loss": 1.0}),
        ] {
            past.learn(&odd);
        }
        assert!(past.training.is_empty() && past.pace().is_none());
        for round in 0..MOST as u64 + 5 {
            past.learn(&json!({"event": "round", "round": round, "loss": 1.0}));
        }
        assert_eq!((past.training.len(), past.training.first_key_value()), (MOST, Some((&5, &1.0))));
    }
}
