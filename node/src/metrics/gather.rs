//! What there is to count, from what the node has written.
//!
//! Names follow Prometheus' conventions: base units, the unit at the end, `_total` for what only grows. What grows begins
//! at 0 again when the node is started again, as Prometheus expects it. Values of labels are bounded: kinds, not peers.

use std::fmt::Error;
use std::path::Path;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, text};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Registry;
use serde_json::Value;

use crate::dashboard::read_status;
use crate::events::Told;

/// What a node may be doing.
const PHASES: [&str; 8] =
    ["waiting for peers", "joining", "training", "paused", "finishing", "done", "stopped", "failed"];
/// Rules that may forbid training.
pub(super) const RULES: [&str; 12] = [
    "asked",
    "hours",
    "power",
    "program",
    "full-screen",
    "user",
    "processor",
    "free-memory",
    "memory",
    "heat",
    "network",
    "settling",
];
/// Kinds of refused messages at most. There are about ten.
const KINDS: usize = 64;

/// The newest event of each kind, as they come.
pub(super) struct Newest {
    told: Told,
    started: Value,
    before: Value,
    round: Value,
    folded: Value,
    measured: Value,
}

impl Newest {
    /// Of the node in `dir`.
    pub(super) fn new(dir: &Path) -> Self {
        let [started, before, round, folded, measured] = [const { Value::Null }; 5];
        Self { told: Told::new(dir), started, before, round, folded, measured }
    }

    /// Takes up what has been told since.
    fn look(&mut self) {
        // What cannot be read now is read later.
        for event in self.told.read().unwrap_or_default() {
            let kept = match event["event"].as_str() {
                Some("started") => &mut self.started,
                Some("round") => {
                    self.before = std::mem::take(&mut self.round);
                    &mut self.round
                }
                Some("folded") => &mut self.folded,
                Some("measured") => &mut self.measured,
                _ => continue,
            };
            *kept = event;
        }
    }

    /// How long the newest round took: what is told counts from the node's start.
    fn round_seconds(&self) -> Option<f64> {
        let [before, now] = [&self.before, &self.round].map(|event| number(&event["seconds"]));
        now.map(|now| before.filter(|before| *before < now).map_or(now, |before| now - before))
    }
}

/// All numbers of the node in `dir`, in OpenMetrics' format.
///
/// # Errors
/// None that is known: writing to memory.
pub(super) fn exposition(dir: &Path, newest: &mut Newest) -> Result<String, Error> {
    newest.look();
    let (status, age) = read_status(dir).map_or((Value::Null, None), |(status, age)| (status, Some(age)));
    let node = Node {
        age,
        started: newest.started.clone(),
        round_seconds: newest.round_seconds(),
        round: newest.round.clone(),
        folded: newest.folded.clone(),
        measured: newest.measured.clone(),
        status,
    };
    let mut registry = Registry::default();
    registry.register_collector(Box::new(node));
    let mut written = String::new();
    text::encode(&mut written, &registry)?;
    Ok(written)
}

/// What a node has written.
#[derive(Debug)]
struct Node {
    status: Value,
    age: Option<f64>,
    started: Value,
    round: Value,
    round_seconds: Option<f64>,
    folded: Value,
    measured: Value,
}

type Labels<'a> = Vec<(&'static str, &'a str)>;

/// Metrics, one after the other. What is not known is left out.
struct Sheet<'a>(DescriptorEncoder<'a>);

impl Sheet<'_> {
    fn gauge(&mut self, name: &str, help: &str, value: Option<f64>) -> Result<(), Error> {
        let Some(value) = value else { return Ok(()) };
        self.0.encode_descriptor(name, help, None, MetricType::Gauge)?.encode_gauge(&value)
    }

    fn gauges(
        &mut self,
        name: &str,
        help: &str,
        values: Vec<(Labels<'_>, Option<f64>)>,
    ) -> Result<(), Error> {
        let known: Vec<_> = values.into_iter().filter_map(|(labels, value)| Some((labels, value?))).collect();
        if known.is_empty() {
            return Ok(());
        }
        let mut family = self.0.encode_descriptor(name, help, None, MetricType::Gauge)?;
        known.iter().try_for_each(|(labels, value)| family.encode_family(labels)?.encode_gauge(value))
    }

    /// `name` without its `_total`.
    fn counter(&mut self, name: &str, help: &str, value: Option<f64>) -> Result<(), Error> {
        let Some(value) = value else { return Ok(()) };
        let mut metric = self.0.encode_descriptor(name, help, None, MetricType::Counter)?;
        metric.encode_counter::<Labels<'_>, f64, f64>(&value, None)
    }
}

impl Collector for Node {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> Result<(), Error> {
        let mut sheet = Sheet(encoder);
        self.identity(&mut sheet)?;
        self.learning(&mut sheet)?;
        self.swarm(&mut sheet)?;
        self.traffic(&mut sheet)?;
        self.device(&mut sheet)?;
        process(&mut sheet)
    }
}

impl Node {
    fn identity(&self, sheet: &mut Sheet<'_>) -> Result<(), Error> {
        let told = |key: &str| {
            let text = |of: &Value| of[key].as_str().map(str::to_owned);
            text(&self.status).or_else(|| text(&self.started)).unwrap_or_default()
        };
        let keys = ["version", "name", "model", "swarm_id", "peer_id"].map(|key| (key, told(key)));
        let labels: Labels<'_> = keys.iter().map(|(key, value)| (*key, value.as_str())).collect();
        let help = "What runs here, of which swarm";
        sheet.0.encode_descriptor("swarm", help, None, MetricType::Info)?.encode_info(&labels)?;
        let phase = self.status["phase"].as_str();
        let phases = PHASES
            .iter()
            .map(|name| (vec![("phase", *name)], phase.map(|phase| truth(phase == *name))))
            .collect();
        sheet.gauges("swarm_phase", "1 for what the node is doing", phases)?;
        sheet.gauge("swarm_status_age_seconds", "Time since the node last wrote its status", self.age)
    }

    fn learning(&self, sheet: &mut Sheet<'_>) -> Result<(), Error> {
        let status = &self.status;
        sheet.counter("swarm_rounds", "Rounds before the one that is under way", number(&status["round"]))?;
        let target = number(&status["rounds_target"]);
        sheet.gauge("swarm_rounds_target", "The round before which the node stops", target)?;
        sheet.counter("swarm_tokens", "Tokens trained on in this run", number(&status["tokens"]))?;
        let speed = number(&status["tokens_per_second"]);
        sheet.gauge("swarm_tokens_per_second", "Tokens a second of training time", speed)?;
        let parameters = number(&status["parameters"]).or_else(|| number(&self.started["parameters"]));
        sheet.gauge("swarm_parameters", "Parameters of the model", parameters)?;
        let loss = |of: &'static str, value| (vec![("of", of)], value);
        sheet.gauges(
            "swarm_loss_nats_per_token",
            "Newest loss: in training, of the shared and the personal model on held-out text, of the shared model on \
             validation text, and as the authors of the last folded round claim theirs",
            vec![
                loss("training", number(&status["loss"]).or_else(|| number(&self.round["loss"]))),
                loss("shared", number(&self.measured["shared"])),
                loss("personal", number(&self.measured["personal"])),
                loss("validation", number(&self.measured["validation"])),
                loss("claimed", self.claimed()),
            ],
        )?;
        sheet.gauge("swarm_round_duration_seconds", "How long the last round took", self.round_seconds)
    }

    /// The mean loss that the authors of the last folded round claim, by their tokens.
    fn claimed(&self) -> Option<f64> {
        let counted = self.authors().filter(|author| author["counts"] == true);
        let (sum, weight) = counted.fold((0.0, 0.0), |(sum, weight), author| {
            let tokens = number(&author["tokens"]).filter(|tokens| *tokens > 0.0).unwrap_or(1.0);
            number(&author["loss_after"]).map_or((sum, weight), |loss| (sum + loss * tokens, weight + tokens))
        });
        (weight > 0.0).then(|| sum / weight)
    }

    fn authors(&self) -> impl Iterator<Item = &Value> {
        self.folded["authors"].as_array().into_iter().flatten()
    }

    fn swarm(&self, sheet: &mut Sheet<'_>) -> Result<(), Error> {
        let status = &self.status;
        let routes: Vec<&Value> = entries(&status["network"]["peers"]).map(|peer| &peer["routes"]).collect();
        let direct = |routes: &&&Value| entries(routes).any(|way| way["route"] == "direct");
        let directly = routes.iter().filter(direct).count();
        let known = status["network"]["peers"].is_array();
        let peers = |route, many: usize| (vec![("route", route)], known.then_some(many as f64));
        sheet.gauges(
            "swarm_peers",
            "Connected peers of the swarm",
            vec![peers("direct", directly), peers("relayed", routes.len() - directly)],
        )?;
        let estimated = number(&status["estimated_peers"]);
        sheet.gauge(
            "swarm_estimated_peers",
            "About how many peers the swarm has, this one included",
            estimated,
        )?;
        let mut pings: Vec<f64> = routes
            .iter()
            .filter_map(|routes| {
                entries(routes).filter_map(|way| number(&way["latency_ms"])).min_by(f64::total_cmp)
            })
            .collect();
        pings.sort_by(f64::total_cmp);
        let median = pings.get(pings.len().saturating_sub(1) / 2).map(|ping| ping / 1000.0);
        sheet.gauge("swarm_peer_latency_median_seconds", "Median round trip to connected peers", median)?;
        let same = |history, key: &str| (vec![("history", history)], number(&status["agreement"][key]));
        sheet.gauges(
            "swarm_neighbours",
            "Neighbours whose settled history is the same as this node's, differs, or is not known",
            vec![same("same", "same"), same("differ", "differ"), same("unknown", "unknown")],
        )?;
        let known = self.folded["authors"].is_array();
        let of = |counts: bool, word| {
            let many = self.authors().filter(|author| (author["counts"] == true) == counts).count();
            (vec![("counts", word)], known.then_some(many as f64))
        };
        let authors = vec![of(true, "yes"), of(false, "no")];
        sheet.gauges(
            "swarm_authors",
            "Authors of the last folded round, by whether theirs counts",
            authors,
        )?;
        let folded = number(&self.round["deltas_folded"]);
        sheet.counter("swarm_deltas_folded", "Deltas folded into the model in this run", folded)?;
        let late = number(&self.round["deltas_late"]);
        sheet.counter("swarm_deltas_late", "Deltas folded in this run after their round had been", late)?;
        sheet.gauge(
            "swarm_open_deltas",
            "Deltas held of rounds that are open",
            number(&status["open_deltas"]),
        )?;
        let refused: Vec<(&str, f64)> = status["refusals"]
            .as_object()
            .into_iter()
            .flatten()
            .filter_map(|(kind, times)| Some((kind.as_str(), number(times)?)))
            .take(KINDS)
            .collect();
        if refused.is_empty() {
            return Ok(());
        }
        let help = "Messages that were dropped, by kind";
        let mut family =
            sheet.0.encode_descriptor("swarm_refused_messages", help, None, MetricType::Counter)?;
        refused.iter().try_for_each(|(kind, times)| {
            let labels: Labels<'_> = vec![("kind", kind)];
            family.encode_family(&labels)?.encode_counter::<Labels<'_>, f64, f64>(times, None)
        })
    }

    fn traffic(&self, sheet: &mut Sheet<'_>) -> Result<(), Error> {
        let (status, meter) = (&self.status, &self.status["meter"]);
        sheet.counter("swarm_sent_bytes", "Bytes sent in this run", number(&status["bytes_sent"]))?;
        sheet.counter(
            "swarm_received_bytes",
            "Bytes received in this run",
            number(&status["bytes_received"]),
        )?;
        let way = |way, key: &str| (vec![("direction", way)], number(&meter[key]));
        sheet.gauges(
            "swarm_traffic_limit_bytes_per_second",
            "Most bytes a second that may go over the line now; absent without a limit",
            vec![way("sent", "upload_limit"), way("received", "download_limit")],
        )?;
        sheet.gauges(
            "swarm_traffic_today_bytes",
            "Bytes since midnight (UTC)",
            vec![way("sent", "sent_today"), way("received", "received_today")],
        )?;
        let coefficients = number(&meter["coefficients"]);
        sheet.gauge("swarm_coefficients", "Coefficients of the last own delta", coefficients)?;
        let bits = number(&meter["bits_a_coefficient"]);
        sheet.gauge("swarm_bits_per_coefficient", "What one of them took", bits)?;
        let bound = number(&meter["bits_bound"]);
        sheet.gauge(
            "swarm_bits_per_coefficient_bound",
            "The least that its position and sign can take",
            bound,
        )
    }

    fn device(&self, sheet: &mut Sheet<'_>) -> Result<(), Error> {
        let guest = &self.status["guest"];
        if !guest.is_object() {
            return Ok(());
        }
        let trains = guest["trains"].as_bool().map(truth);
        sheet.gauge("swarm_governor_trains", "1 if the device may be used for training now", trains)?;
        let share = number(&guest["share"]);
        sheet.gauge("swarm_governor_share_ratio", "In which share of the time", share)?;
        let forbids = |rule: &str| entries(&guest["objections"]).any(|objection| objection["why"] == rule);
        let rules = RULES.iter().map(|rule| (vec![("rule", *rule)], Some(truth(forbids(rule))))).collect();
        sheet.gauges("swarm_governor_forbids", "1 for every rule that forbids training now", rules)
    }
}

fn entries(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

fn number(value: &Value) -> Option<f64> {
    value.as_f64().filter(|value| value.is_finite())
}

fn truth(value: bool) -> f64 {
    f64::from(u8::from(value))
}

/// This process, by the names that Prometheus' client libraries have agreed on; where the system tells.
fn process(sheet: &mut Sheet<'_>) -> Result<(), Error> {
    use sysinfo::{ProcessRefreshKind, ProcessesToUpdate, System};
    let own = sysinfo::get_current_pid().ok();
    let mut system = System::new();
    if let Some(own) = own {
        let wanted = ProcessRefreshKind::nothing().with_memory().with_cpu();
        system.refresh_processes_specifics(ProcessesToUpdate::Some(&[own]), true, wanted);
    }
    let process = own.and_then(|own| system.process(own));
    let used = process.map(|process| process.accumulated_cpu_time() as f64 / 1000.0);
    sheet.counter("process_cpu_seconds", "Processor time of this process", used)?;
    let memory = process.map(|process| process.memory() as f64);
    sheet.gauge("process_resident_memory_bytes", "Memory of this process", memory)?;
    let began = process.map(|process| process.start_time() as f64);
    sheet.gauge("process_start_time_seconds", "When this process was started, Unix time", began)?;
    let open = std::fs::read_dir("/proc/self/fd").ok().map(|entries| entries.count() as f64);
    sheet.gauge("process_open_fds", "Open files and connections of this process", open)
}
