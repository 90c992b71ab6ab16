//! Honest nodes go on while somebody attacks one of them in every way, and each attack that gets as far as the core
//! is counted under its name.
#![cfg(unix)]

use std::collections::BTreeMap;
use std::fs;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use swarm_protocol::genesis::Genesis;
use swarm_tests::hostile::{Attack, Stopped};
use swarm_tests::place::WINDOW;
use swarm_tests::report::{address, agreed, number};
use swarm_tests::{Hostile, Node, Place, Process, program};

/// Few places in a round, so that strangers fill one quickly; and limits that follow from them.
const GENESIS: swarm_tests::Changes<'static> = &[("publishers", "8")];
/// Rounds of the quiet run. The other one takes longer and holds more of them, which only makes it harder.
const QUIET: u64 = 2 * WINDOW + 10;

/// A node that only replicates, which is the one that is attacked, and two that train.
struct Nodes {
    commands: Vec<Node>,
    processes: Vec<Process>,
    there: String,
}

impl Nodes {
    fn start(place: &Place, run: &str) -> Result<Self> {
        let program = match program::replica()? {
            Some(replica) => replica,
            None => program::swarm()?.to_owned(),
        };
        let hub = place.bootstrap(&format!("{run}-hub"), &program);
        let mut nodes = Self { processes: vec![hub.start()?], commands: vec![hub], there: String::new() };
        nodes.there = address(&mut nodes.processes[0], "/tcp/")?;
        for name in ["one", "two"] {
            let node = place.node(&format!("{run}-{name}"))?;
            nodes.processes.push(node.clone().bootstrap(&nodes.there).start()?);
            nodes.commands.push(node);
        }
        for process in &mut nodes.processes {
            process.wait_for("two peers", |status| status["peers"].as_u64() >= Some(2))?;
        }
        Ok(nodes)
    }

    fn wait_for_round(&mut self, round: u64) -> Result<()> {
        self.processes.iter_mut().try_for_each(|process| process.wait_for_round(round).map(drop))
    }

    /// Stops them, and returns what they report.
    fn stop(&mut self) -> Result<Vec<Value>> {
        let stop = |process: &mut Process| {
            process.interrupt()?;
            process.report()
        };
        self.processes.iter_mut().map(stop).collect()
    }
}

fn refusals(status: &Value) -> BTreeMap<String, u64> {
    let kinds = status["refusals"].as_object().into_iter().flatten();
    kinds.filter_map(|(kind, count)| Some((kind.clone(), count.as_u64()?))).collect()
}

#[test]
fn honest_nodes_go_on_whatever_a_hostile_one_does() -> Result<()> {
    let place = Place::new()?;
    let genesis = place.genesis("genesis.toml", GENESIS)?;
    let genesis = Genesis::parse(&fs::read_to_string(genesis)?)?;

    let mut quiet = Nodes::start(&place, "quiet")?;
    quiet.wait_for_round(QUIET)?;
    let quiet = quiet.stop()?;

    let mut nodes = Nodes::start(&place, "attacked")?;
    nodes.wait_for_round(WINDOW + 8)?;
    let hostile = Hostile::new(&nodes.there, genesis)?;
    let hub = &mut nodes.processes[0];
    for attack in Attack::ALL {
        let before = hub.status().context("no status")?;
        let (round, counted) = (number(&before, "round")?, refusals(&before));
        hostile.attack(*attack).with_context(|| format!("{attack:?}"))?;
        if let Stopped::Core(kind) = attack.stopped() {
            let before = counted.get(kind).copied().unwrap_or(0);
            let seen = |status: &Value| refusals(status).get(kind).is_some_and(|count| *count > before);
            hub.wait_for(&format!("{attack:?} counted as '{kind}'"), seen)?;
        }
        println!("{attack:?}: {:?}", attack.stopped());
        // Whatever it was, training goes on.
        hub.wait_for_round(round + 1)?;
    }
    nodes.wait_for_round(QUIET)?;
    let attacked = nodes.stop()?;
    println!("{:#?}", refusals(&attacked[0]));

    for attack in Attack::ALL {
        if let Stopped::Core(kind) = attack.stopped() {
            ensure!(refusals(&attacked[0]).contains_key(kind), "{attack:?} is not in the report");
        }
    }
    for (quiet, attacked) in quiet.iter().zip(&attacked) {
        let (quiet, attacked) = (number(quiet, "peak_memory_bytes")?, number(attacked, "peak_memory_bytes")?);
        println!("peak memory {quiet} bytes in quiet, {attacked} under attack");
        ensure!(2 * attacked <= 3 * quiet, "{attacked} bytes instead of {quiet}");
    }
    for report in &attacked[1..] {
        ensure!(number(report, "deltas_published")? > QUIET / 2, "it did not go on training: {report}");
    }

    // All the same model, bit for bit, a few rounds later.
    let rounds = attacked.iter().map(|report| number(report, "rounds")).collect::<Result<Vec<_>>>()?;
    let target = rounds.iter().max().context("no round")? + 10;
    let [hub, one, two] = &nodes.commands[..] else { unreachable!() };
    let until = target.to_string();
    let mut hub = hub.start()?;
    let there = address(&mut hub, "/tcp/")?;
    let mut one = one.clone().bootstrap(&there).rounds(&until).start()?;
    let mut two = two.clone().bootstrap(&there).rounds(&until).start()?;
    let reports = agreed(&mut [&mut one, &mut two], target)?;
    // One that does not train has no last round: it stays where the others have left it.
    hub.wait_for("the same model", |status| status["state_digest"] == reports[0]["state_digest"])?;
    Ok(())
}
