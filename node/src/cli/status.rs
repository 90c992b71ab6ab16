//! `swarm status`: what a node is doing, in words.

use std::fmt::Write;

use anyhow::Result;
use clap::Args;
use serde_json::Value;

use super::running::{DirArg, Seen};

/// Say what a node is doing, and if it does not train, why not and what would change that.
#[derive(Args)]
pub(super) struct Status {
    #[command(flatten)]
    dir: DirArg,

    /// Print the node's status.json.
    #[arg(long)]
    json: bool,
}

impl Status {
    pub(super) fn execute(self) -> Result<()> {
        let seen = Seen::read(&self.dir.dir)?;
        if self.json {
            println!("{}", serde_json::to_string_pretty(&seen.status)?);
        } else {
            print!("{}", told(&seen));
        }
        Ok(())
    }
}

/// The status in words.
fn told(seen: &Seen) -> String {
    let status = &seen.status;
    let mut text = String::new();
    let mut line = |words: String| {
        let _ = writeln!(text, "{words}");
    };
    if !seen.runs() {
        line(format!(
            "This node does not run; {} s ago, when it last did, it stood as follows.",
            seen.age.as_secs()
        ));
    }
    let number = |name: &str| status[name].as_u64().unwrap_or(0);
    let target = status["rounds_target"].as_u64().map_or(String::new(), |target| format!(" of {target}"));
    let detail = Some(seen.text("detail")).filter(|detail| !detail.is_empty());
    // The governor's words name the phase themselves.
    match (seen.text("phase"), detail) {
        ("paused", Some(detail)) => line(detail.to_owned()),
        (phase, Some(detail)) => line(format!("{phase}: {detail}")),
        (phase, None) => line(phase.to_owned()),
    }
    let loss = status["loss"].as_f64().map_or(String::new(), |loss| format!(", loss {loss:.3} nats a token"));
    line(format!("round {}{target}{loss}, {} peers", number("round"), number("peers")));
    match &status["guest"] {
        Value::Null => line("this node does not train".into()),
        guest => {
            if seen.text("phase") != "paused" {
                line(format!("this device: {}", guest["words"].as_str().unwrap_or_default()));
            }
            line(format!(
                "{} tokens trained on in this run, {:.0} a second",
                number("tokens"),
                status["tokens_per_second"].as_f64().unwrap_or(0.0)
            ));
        }
    }
    line(format!("{} kB sent, {} kB received", number("bytes_sent") / 1000, number("bytes_received") / 1000));
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use std::time::Duration;

    #[test]
    fn a_status_is_told_in_words() {
        let mut status = json!({
            "phase": "paused", "detail": "paused: on battery 43 %, resumes on AC", "round": 12, "rounds_target": 40,
            "loss": 2.3456, "peers": 4, "tokens": 1234, "tokens_per_second": 99.6, "bytes_sent": 5000,
            "bytes_received": 7999, "guest": {"words": "paused: on battery 43 %, resumes on AC"},
        });
        let seen =
            |status: &Value, age| told(&Seen { status: status.clone(), age: Duration::from_secs(age) });
        assert_eq!(
            seen(&status, 1),
            "paused: on battery 43 %, resumes on AC\nround 12 of 40, loss 2.346 nats a token, 4 peers\n\
             1234 tokens trained on in this run, 100 a second\n5 kB sent, 7 kB received\n"
        );
        (status["phase"], status["detail"]) = ("waiting for peers".into(), "nobody answers".into());
        (status["loss"], status["rounds_target"]) = (Value::Null, Value::Null);
        status["guest"]["words"] = "training".into();
        let text = seen(&status, 20);
        assert!(text.starts_with("This node does not run; 20 s ago"), "{text}");
        assert!(
            text.contains("waiting for peers: nobody answers\nround 12, 4 peers\nthis device: training\n"),
            "{text}"
        );
        status["guest"] = Value::Null;
        assert!(seen(&status, 1).contains("this node does not train"));
        // Whatever is in the file.
        assert!(!seen(&json!({}), 0).is_empty());
    }
}
