//! Whatever comes and goes, C is what the log's sets make.

use proptest::prelude::*;
use swarm_optimizer::sparse::{Entry, Step};

use super::*;
use crate::architecture::Sizes;
use crate::checks::Direct;
use crate::delta::Header;
use crate::genesis::Genesis;
use crate::identity::Identity;
use crate::packing;
use crate::round_log::Insert;

const AUTHORS: u8 = 6;

#[derive(Clone, Debug)]
enum Event {
    /// A delta of this author for a round from the last one on, one of two that it could have signed.
    Insert(u8, u64, bool),
    /// The next round begins.
    Advance,
    /// The log takes these last rounds back, as for another history.
    Rewind(u64),
    /// The log drops open rounds to fetch them again: deltas that have been noted come a second time.
    CatchUp,
}

fn steps() -> impl Strategy<Value = Event> {
    prop_oneof![
        12 => (0..AUTHORS, 0u64..3, prop::bool::weighted(0.05)).prop_map(|(a, r, b)| Event::Insert(a, r, b)),
        3 => Just(Event::Advance),
        1 => (1u64..4).prop_map(Event::Rewind),
        1 => Just(Event::CatchUp),
    ]
}

fn genesis() -> Genesis {
    let model = Sizes { vocabulary: 2, dim: 2, layers: 1, heads: 1, ffn: 2, context: 2 };
    let mut genesis = Genesis::new("replica", model, 1);
    (genesis.rule.tile, genesis.rule.k, genesis.rule.publishers) = (8, 8, 3);
    genesis
}

fn delta(genesis: &Genesis, layout: &Layout, author: u8, round: u64, other: bool) -> Delta {
    // The last author sends the first one's bodies: each counts once.
    let seed = u16::from(author % (AUTHORS - 1)) * 7 + round as u16 * 3 + u16::from(other);
    let mut sparse = SparseDelta::default();
    for (index, tile) in layout.tiles().iter().enumerate().skip(usize::from(seed % 2)) {
        let position = seed % tile.area() as u16;
        sparse.push(index as u32, Step::nearest(f64::from(seed + 5)), [Entry { position, level: 1 }]);
    }
    let body = packing::encode(layout, &genesis.rule, genesis.rule.k, &sparse).unwrap();
    let identity = Identity::from_secret(&[author + 1; 32]);
    let header = Header::new(genesis.swarm_id(), round, identity.public(), &body);
    Delta { id: header.id(), signed: header.sign(&identity), body: body.into() }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]
    #[test]
    fn c_is_what_the_sets_make(steps in prop::collection::vec(steps(), 1..60)) {
        let genesis = genesis();
        let layout = Arc::new(genesis.layout().unwrap());
        let start = Coefficients::new((0..layout.len() as i32).collect());
        let mut log = RoundLog::new(&genesis);
        let mut replica = Replica::new(layout.clone(), genesis.rule, start.clone(), Arc::new(Direct));
        let mut round = 0u64;
        for step in steps {
            match step {
                Event::Insert(author, ahead, other) => {
                    let at = round.saturating_sub(1) + ahead;
                    let delta = delta(&genesis, &layout, author, at, other);
                    let by = delta.header().author;
                    let said = Direct.unpack(&layout, &genesis.rule, &delta.header().body_hash, &delta.body);
                    let inserted = log.insert(delta, round + 16);
                    if inserted == Insert::Added && let Some(delta) = log.delta_of(at, &by) {
                        // Own ones are not noted.
                        if author > 0 {
                            replica.note(&log, round, delta, said.unwrap());
                        }
                    }
                    if at < round {
                        replica.fold(&log, round);
                    }
                }
                Event::Advance => {
                    round += 1;
                    replica.fold(&log, round);
                }
                Event::CatchUp => {
                    log.rewind(log.settled(), round + 1);
                    replica.fold(&log, round);
                }
                Event::Rewind(back) => {
                    round = round.saturating_sub(back);
                    replica.rewind(&log, log.settled(), round);
                    log.rewind(log.settled(), round + 1);
                    replica.fold(&log, round);
                }
            }
            let mut expected = start.clone();
            for at in 0..round {
                fold_round(&layout, &genesis.rule, &Direct, &log, at, &mut expected);
            }
            prop_assert_eq!(replica.coefficients(), &expected, "in round {}", round);
            let kept = replica.open.values().filter_map(|open| open.gathered.as_ref());
            let kept: Vec<usize> = kept.map(|gathered| gathered.len()).collect();
            prop_assert!(kept.len() <= SUMS && kept.iter().all(|of| *of <= 3), "{:?}", kept);
        }
        prop_assert_eq!(replica.settled_coefficients(), start);
    }
}

/// A log that catches up drops the round under way and gets it again, with or without a delta that nobody notes.
#[test]
fn what_comes_a_second_time_counts_once() {
    let genesis = genesis();
    let layout = Arc::new(genesis.layout().unwrap());
    for own in [false, true] {
        let start = Coefficients::new(vec![0; layout.len()]);
        let mut log = RoundLog::new(&genesis);
        let mut replica = Replica::new(layout.clone(), genesis.rule, start.clone(), Arc::new(Direct));
        for _ in 0..2 {
            log.rewind(0, 1);
            if own {
                assert_eq!(log.insert(delta(&genesis, &layout, 0, 0, false), 16), Insert::Added);
            }
            let delta = delta(&genesis, &layout, 1, 0, false);
            let (by, hash) = (delta.header().author, delta.header().body_hash);
            let said = Direct.unpack(&layout, &genesis.rule, &hash, &delta.body).unwrap();
            assert_eq!(log.insert(delta, 16), Insert::Added);
            replica.note(&log, 0, log.delta_of(0, &by).unwrap(), said);
        }
        replica.fold(&log, 1);
        let mut expected = start;
        fold_round(&layout, &genesis.rule, &Direct, &log, 0, &mut expected);
        assert_eq!(replica.coefficients(), &expected, "own: {own}");
    }
}
