//! Situations and what becomes of them; a night; whatever readings there are.

use std::time::Duration;

use proptest::prelude::*;

use super::control::Asked;
use super::hours::Minute;
use super::judge::{Judge, SETTLE, Why};
use super::readings::{Memory, Network, Readings, Source};
use super::rules::{Networks, Power, Rules, When};
use super::units::Share;

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);
const GB: u64 = 1_000_000_000;
const NOTHING: Asked = Asked::Nothing;

/// A laptop on its desk: plugged in, alone, at noon on a Wednesday.
fn calm() -> Readings {
    Readings {
        source: Ok(Source::Mains),
        untouched: Ok(10 * MINUTE),
        full_screen: Ok(false),
        others_cpu: Ok(0.03),
        memory: Ok(Memory { total: 16 * GB, available: 8 * GB, own: GB }),
        temperature: Ok(55.0),
        network: Ok(Network { name: "home".into(), metered: false }),
        running: Ok(Vec::new()),
        minute: Ok(Minute::new(2, 12 * 60)),
    }
}

/// Rules, what differs from a calm device, and what is said.
struct Case(&'static str, Rules, fn(&mut Readings), &'static str);

fn idle(change: fn(&mut Rules)) -> Rules {
    let mut rules = Rules::of(When::Idle);
    change(&mut rules);
    rules
}

fn unknown<T>() -> Result<T, String> {
    Err("no sensor".into())
}

#[test]
fn every_situation_has_its_state_and_its_reason() {
    let cases = [
        Case("calm", idle(|_| ()), |_| (), "training"),
        Case("half", idle(|rules| rules.share = Share::percent(50)), |_| (), "training in 50 % of the time"),
        Case(
            "unplugged",
            idle(|_| ()),
            |now| now.source = Ok(Source::Battery(43.9)),
            "paused: on battery 43 %, resumes on AC",
        ),
        Case(
            "unplugged, charge asked for",
            idle(|rules| rules.power = Power::Above(75)),
            |now| now.source = Ok(Source::Battery(43.0)),
            "paused: on battery 43 %, resumes above 80 % or on AC",
        ),
        Case(
            "unplugged, full enough",
            idle(|rules| rules.power = Power::Above(75)),
            |now| now.source = Ok(Source::Battery(76.0)),
            "training",
        ),
        Case("any current", idle(|rules| rules.power = Power::Any), |now| now.source = unknown(), "training"),
        Case(
            "no idea of the current",
            idle(|_| ()),
            |now| now.source = unknown(),
            "paused: where the current comes from cannot be told (no sensor), resumes without --power",
        ),
        Case(
            "a key pressed",
            idle(|_| ()),
            |now| now.untouched = Ok(4 * SECOND),
            "paused: somebody is using this device (touched 4 s ago), resumes when it has been left alone for 3 min",
        ),
        Case(
            "nobody tells of keys",
            idle(|_| ()),
            |now| now.untouched = Err("there is no display here".into()),
            "paused: whether somebody is using this device cannot be told (there is no display here), which counts as \
             somebody being there, resumes with --idle off",
        ),
        Case("idle off", idle(|rules| rules.idle = None), |now| now.untouched = Ok(SECOND), "training"),
        Case(
            "a film",
            idle(|_| ()),
            |now| now.full_screen = Ok(true),
            "paused: a program fills the screen, resumes when it does not",
        ),
        Case("no idea of films", idle(|_| ()), |now| now.full_screen = unknown(), "training"),
        Case(
            "no idea of films, and keys do not count",
            idle(|rules| rules.idle = None),
            |now| now.full_screen = unknown(),
            "paused: whether a program fills the screen cannot be told (no sensor), resumes without --full-screen",
        ),
        Case(
            "compiling",
            idle(|_| ()),
            |now| now.others_cpu = Ok(0.6),
            "paused: other programs use 60 % of the processor, resumes below 20 %",
        ),
        Case(
            "memory short",
            idle(|_| ()),
            |now| now.memory = Ok(Memory { total: 16 * GB, available: GB, own: GB }),
            "paused: only 6 % of the memory is free, resumes above 11 %",
        ),
        Case(
            "too large",
            idle(|rules| rules.memory = Some((super::Amount::Bytes(2 * GB), super::Amount::Bytes(2 * GB)))),
            |now| now.memory = Ok(Memory { total: 16 * GB, available: 8 * GB, own: 2 * GB + GB / 2 }),
            "paused: this program has 2.5 GB of memory, allowed are 2.0 GB, resumes below 1.8 GB, or with a larger \
             --memory",
        ),
        Case(
            "half of the memory while somebody is there",
            idle(|rules| rules.idle = None),
            |now| {
                now.untouched = Ok(SECOND);
                now.memory = Ok(Memory { total: 16 * GB, available: 6 * GB, own: 9 * GB });
            },
            "paused: this program has 9.0 GB of memory, allowed are 8.0 GB, resumes below 7.2 GB, or with a larger \
             --memory",
        ),
        Case(
            "more of it while nobody is",
            idle(|rules| rules.idle = None),
            |now| now.memory = Ok(Memory { total: 16 * GB, available: 6 * GB, own: 9 * GB }),
            "training",
        ),
        Case(
            "hot",
            idle(|rules| rules.temperature = Some(80.0)),
            |now| now.temperature = Ok(81.0),
            "paused: it is 81 °C hot, resumes below 75 °C",
        ),
        Case(
            "phone as a modem",
            idle(|_| ()),
            |now| now.network = Ok(Network { name: "phone".into(), metered: true }),
            "paused: bytes cost money on the network phone, resumes on another",
        ),
        Case("no idea of the network", idle(|_| ()), |now| now.network = unknown(), "training"),
        Case(
            "another network",
            idle(|rules| rules.networks = Networks::Named(vec!["office".into(), "lab".into()])),
            |_| (),
            "paused: the network is home, resumes on office or lab",
        ),
        Case(
            "a game",
            idle(|rules| rules.exclusive = vec!["game".into()]),
            |now| now.running = Ok(vec!["game".into()]),
            "paused: game is running, resumes when it has ended",
        ),
        Case(
            "by day",
            Rules::of(When::Night),
            |_| (),
            "paused: wed 12:00 is outside the hours set, resumes on wed 22:00",
        ),
        Case("by night", Rules::of(When::Night), |now| now.minute = Ok(Minute::new(3, 60)), "training"),
        Case(
            "two reasons",
            idle(|_| ()),
            |now| {
                now.untouched = Ok(SECOND);
                now.source = Ok(Source::Battery(99.0));
            },
            "paused: on battery 99 %, resumes on AC; somebody is using this device (touched 1 s ago), resumes when it \
             has been left alone for 3 min",
        ),
        Case("always", Rules::of(When::Always), |now| *now = Readings::default(), "training"),
    ];
    for Case(what, rules, change, words) in cases {
        let mut readings = calm();
        change(&mut readings);
        let verdict = Judge::new(rules).judge(Duration::ZERO, &readings, NOTHING);
        assert_eq!(verdict.words(), words, "{what}");
        assert_eq!(verdict.share.is_none(), words.starts_with("paused: "), "{what}");
        assert_eq!(verdict.quiet, what == "phone as a modem" || what == "another network", "{what}");
    }
}

#[test]
fn what_the_user_says_takes_effect_at_once_in_both_directions() {
    let mut judge = Judge::new(Rules::of(When::Idle));
    assert!(judge.judge(SECOND, &calm(), NOTHING).share.is_some());
    let paused = judge.judge(2 * SECOND, &calm(), Asked::Pause { left: Some(29 * MINUTE) });
    assert_eq!(paused.words(), "paused: by swarm pause, resumes in 29 min, or with swarm resume");
    let forever = judge.judge(3 * SECOND, &calm(), Asked::Pause { left: None });
    assert_eq!(forever.words(), "paused: by swarm pause, resumes with swarm resume");
    assert!(judge.judge(4 * SECOND, &calm(), NOTHING).share.is_some(), "without settling");
    let there = Readings { untouched: Ok(SECOND), ..calm() };
    assert!(judge.judge(5 * SECOND, &there, NOTHING).share.is_none());
    judge.set_rules(Rules::of(When::Always));
    assert!(judge.judge(6 * SECOND, &there, NOTHING).share.is_some(), "a changed setting as well");
}

/// A load that trembles around the limit, a battery that is charged by a weak charger: neither makes it flap.
#[test]
fn values_around_a_limit_do_not_make_it_start_and_stop() {
    let mut judge = Judge::new(idle(|rules| rules.power = Power::Above(50)));
    let mut changes = 0;
    let mut last = true;
    for tick in 0..2400u32 {
        let now = tick * SECOND / 4;
        let charge = if tick % 40 < 20 { 49.9 } else { 50.4 };
        let readings = Readings { source: Ok(Source::Battery(charge)), ..calm() };
        let trains = judge.judge(now, &readings, NOTHING).share.is_some();
        changes += u32::from(trains != last);
        last = trains;
    }
    assert_eq!(changes, 1, "it pauses, and 50.4 % is not enough to go on");
    let mut judge = Judge::new(Rules::of(When::Idle));
    let mut pauses = 0;
    for tick in 0..2400u32 {
        let load = if tick % 8 < 4 { 0.35 } else { 0.05 };
        let readings = Readings { others_cpu: Ok(load), ..calm() };
        let trains = judge.judge(tick * SECOND / 4, &readings, NOTHING).share.is_some();
        pauses += u32::from(!trains && last);
        last = trains;
    }
    assert_eq!(pauses, 0, "20 % on average, though it is above the limit half of the time");
}

#[test]
fn a_load_that_stays_is_noticed_and_one_that_ends_is_forgotten() {
    let mut judge = Judge::new(Rules::of(When::Idle));
    judge.judge(Duration::ZERO, &calm(), NOTHING);
    let busy = Readings { others_cpu: Ok(0.9), ..calm() };
    let mut at = Duration::ZERO;
    while judge.judge(at, &busy, NOTHING).share.is_some() {
        at += SECOND / 4;
        assert!(at < 3 * SECOND, "nine tenths of the processor are noticed within 3 s");
    }
    let began = at;
    while judge.judge(at, &calm(), NOTHING).share.is_none() {
        at += SECOND / 4;
        assert!(at < began + 20 * SECOND);
    }
    assert!(at >= began + SETTLE);
}

/// From six in the evening to nine in the morning, four decisions a second.
#[test]
fn a_night_on_a_lent_laptop() {
    let mut judge = Judge::new(Rules::of(When::Night));
    let mut told: Vec<(u64, String)> = Vec::new();
    for quarter in 0..15 * 3600 * 4u64 {
        let seconds = quarter / 4;
        let minute = 18 * 60 + seconds / 60;
        let clock = minute % (24 * 60);
        // Somebody types until 23:10, and looks at something at 2:30; the plug is out from 4:00 to 4:45; a backup runs
        // from 5:00 to 5:20; and the day begins at 6:40.
        let typed = [23 * 60 + 10, 2 * 60 + 30 + 24 * 60].into_iter().filter(|then| *then <= minute).max();
        let morning = minute >= 30 * 60 + 40;
        let untouched = match typed {
            _ if morning => Duration::ZERO,
            Some(then) => Duration::from_secs(seconds + 18 * 3600 - then * 60),
            None => Duration::ZERO,
        };
        let night = minute >= 24 * 60;
        let readings = Readings {
            minute: Ok(Minute::new(if night { 1 } else { 0 }, clock as u16)),
            untouched: Ok(untouched),
            source: Ok(if night && (240..285).contains(&clock) {
                Source::Battery(90.0)
            } else {
                Source::Mains
            }),
            others_cpu: Ok(if night && (300..320).contains(&clock) { 0.8 } else { 0.02 }),
            ..calm()
        };
        let verdict = judge.judge(Duration::from_millis(250 * quarter), &readings, NOTHING);
        let what =
            verdict.objections.first().map_or("training".to_owned(), |first| format!("{:?}", first.why));
        if told.last().is_none_or(|(_, last)| *last != what) {
            told.push((seconds, what));
        }
    }
    let at = |seconds: &u64| {
        format!("{:02}:{:02}:{:02}", (18 + seconds / 3600) % 24, seconds / 60 % 60, seconds % 60)
    };
    let told: Vec<String> = told.iter().map(|(seconds, what)| format!("{} {what}", at(seconds))).collect();
    assert_eq!(
        told,
        [
            "18:00:00 Hours",
            "22:00:00 User",
            "23:13:00 Settling",
            "23:13:05 training",
            "02:30:00 User",
            "02:33:00 Settling",
            "02:33:05 training",
            "04:00:00 Power",
            "04:45:00 Settling",
            "04:45:05 training",
            "05:00:01 Processor",
            "05:20:05 Settling",
            "05:20:10 training",
            "06:40:00 User",
            "07:00:00 Hours",
        ]
    );
}

#[test]
fn what_could_never_start_is_named() {
    let nothing = Readings::default();
    let everything = Rules {
        temperature: Some(20.0),
        networks: Networks::Named(vec!["home".into()]),
        exclusive: vec!["game".into()],
        others_cpu: Some("0.5%".parse().unwrap()),
        memory: Some((super::Amount::Bytes(32 * GB), super::Amount::Bytes(32 * GB))),
        ..Rules::of(When::Night)
    };
    let told = everything.never(&nothing).join("\n");
    for flag in [
        "--idle 3m",
        "--power",
        "--others-cpu",
        "--memory",
        "--temperature",
        "--network",
        "--exclusive",
        "--hours",
    ] {
        assert!(told.contains(flag), "{flag}: {told}");
    }
    let told = everything.never(&calm()).join("\n");
    for said in
        ["--memory 32.0 GB: more than this device has (16.0 GB)", "hardly ever that cold", "use so little"]
    {
        assert!(told.contains(said), "{said}: {told}");
    }
    assert_eq!(told.lines().count(), 3, "{told}");
    for when in [When::Always, When::Idle, When::Night] {
        assert!(Rules::of(when).never(&calm()).is_empty());
    }
    assert!(Rules::of(When::Always).never(&nothing).is_empty());
    for (text, word) in
        [("101%", "no battery"), ("100%", "no battery"), ("-1%", "80%"), ("solar", "80%"), ("", "80%")]
    {
        assert!(text.parse::<Power>().unwrap_err().contains(word), "{text}");
    }
    assert!(" , ".parse::<Networks>().is_err());
}

#[test]
fn nothing_is_looked_at_for_which_there_is_no_rule() {
    assert_eq!(Rules::of(When::Always).needs(), super::rules::Needs::default());
    let needs = Rules::of(When::Idle).needs();
    assert!(
        needs.untouched
            && needs.source
            && needs.full_screen
            && needs.others_cpu
            && needs.memory
            && needs.network
    );
    assert!(!needs.temperature && !needs.minute && needs.running.is_empty());
}

fn readings() -> impl Strategy<Value = Readings> {
    let source = prop_oneof![
        Just(Ok(Source::Mains)),
        (0.0..100.0f64).prop_map(|charge| Ok(Source::Battery(charge))),
        Just(unknown())
    ];
    let untouched =
        prop_oneof![(0..600u64).prop_map(|seconds| Ok(Duration::from_secs(seconds))), Just(unknown())];
    let flag = prop_oneof![Just(Ok(true)), Just(Ok(false)), Just(unknown())];
    let load = prop_oneof![(0.0..1.0f64).prop_map(Ok), Just(unknown())];
    let memory = (0..16u64, 0..16u64)
        .prop_map(|(available, own)| Ok(Memory { total: 16 * GB, available: available * GB, own: own * GB }));
    let degrees = prop_oneof![(20.0..110.0f64).prop_map(Ok), Just(unknown())];
    let network = prop_oneof![
        any::<bool>().prop_map(|metered| Ok(Network { name: "home".into(), metered })),
        Just(unknown())
    ];
    let running = prop_oneof![Just(Ok(vec!["game".to_owned()])), Just(Ok(Vec::new())), Just(unknown())];
    let minute = (0..7u8, 0..1440u16).prop_map(|(day, minute)| Ok(Minute::new(day, minute)));
    (source, untouched, flag, load, memory, degrees, network, running, minute).prop_map(
        |(source, untouched, full_screen, others_cpu, memory, temperature, network, running, minute)| {
            Readings {
                source,
                untouched,
                full_screen,
                others_cpu,
                memory,
                temperature,
                network,
                running,
                minute,
            }
        },
    )
}

proptest! {
    /// Whatever a device tells in whatever order: it does not train where a rule plainly forbids, a pause has a reason,
    /// and it does not start again sooner than it says.
    #[test]
    fn it_never_trains_where_a_rule_forbids_and_never_flaps(
        steps in prop::collection::vec((readings(), 0..8u32, any::<bool>()), 1..60),
    ) {
        let rules = Rules {
            temperature: Some(80.0),
            exclusive: vec!["game".into()],
            power: Power::Above(40),
            ..Rules::of(When::Night)
        };
        let mut judge = Judge::new(rules.clone());
        let mut now = Duration::ZERO;
        let mut paused_at: Option<Duration> = None;
        for (readings, quarters, asked) in steps {
            now += quarters * SECOND / 4;
            let asked = if asked { Asked::Pause { left: None } } else { NOTHING };
            let verdict = judge.judge(now, &readings, asked);
            let forbidden = asked != NOTHING
                || readings.untouched.as_ref().map_or(true, |time| *time < 3 * MINUTE)
                || matches!(readings.source, Err(_) | Ok(Source::Battery(..=40.0)))
                || readings.full_screen == Ok(true)
                || readings.memory.as_ref().is_ok_and(|memory| memory.available * 10 < memory.total)
                || readings.memory.as_ref().is_ok_and(|memory| memory.own * 10 > memory.total * 9)
                || readings.temperature.as_ref().map_or(true, |degrees| *degrees > 80.0)
                || readings.network.as_ref().is_ok_and(|network| network.metered)
                || readings.running != Ok(Vec::new())
                || readings.others_cpu.is_err()
                || readings.minute.as_ref().is_ok_and(|minute| !super::hours::open(&rules.hours, *minute));
            prop_assert!(!forbidden || verdict.share.is_none(), "{readings:?}: {}", verdict.words());
            prop_assert_eq!(verdict.share.is_none(), !verdict.objections.is_empty());
            for objection in &verdict.objections {
                prop_assert!(!objection.because.is_empty() && !objection.until.is_empty());
            }
            let by_sensor = verdict.objections.iter().any(|objection| objection.why != Why::Asked);
            match verdict.share {
                None if by_sensor && paused_at.is_none() => paused_at = Some(now),
                Some(_) => {
                    if let Some(then) = paused_at.take() {
                        prop_assert!(now >= then + SETTLE, "{then:?} {now:?}");
                    }
                }
                None => {}
            }
        }
    }
}
