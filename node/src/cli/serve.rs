//! `swarm serve`: what was trained, for other programs on this machine.

use std::net::SocketAddr;
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, ensure};
use clap::Args;

use super::block_on;
use super::using::ModelArgs;
use crate::inference::Loaded;
use crate::node;
use crate::serve::{Offer, Source, Worker, router};
use crate::web;

/// What is under way when Ctrl-C is pressed gets this long to end.
const PATIENCE: Duration = Duration::from_secs(30);
/// Flags that messages name.
const FLAGS: web::Flags = web::Flags { listen: "--listen", beyond: "--let-others-in" };

/// Answer other programs on this machine as OpenAI's API does: /v1/models, /v1/completions and /v1/chat/completions,
/// also as streams. Clients made for that API work with base_url http://127.0.0.1:8080/v1 and any key. Works offline,
/// also while the node is running, and takes its newer models as they are saved (see --snapshot-seconds of swarm run).
///
/// One request is answered at a time, others wait. A conversation is given to the model as plain text, "User: ..." and
/// "Assistant: ...". Ctrl-C lets what is under way end, for 30 seconds at most; twice ends at once.
#[derive(Args)]
pub(super) struct Serve {
    #[command(flatten)]
    model: ModelArgs,

    /// Address and port to listen at; port 0 is any free one, which is then told.
    #[arg(long, value_name = "IP:PORT", default_value = "127.0.0.1:8080")]
    listen: SocketAddr,

    /// Listen at an address that others can reach, too. Nothing is encrypted there: whoever is on the way reads along.
    #[arg(long = "let-others-in")]
    beyond: bool,

    /// Answer only who shows this key. Other users of this machine may see it in the list of processes: better give it
    /// in the environment, as SWARM_API_KEY.
    #[arg(long, value_name = "KEY")]
    api_key: Option<String>,

    /// What the model is called.
    #[arg(long, value_name = "NAME", default_value = "swarm")]
    name: String,

    /// Requests that may wait while one is answered; further ones are told to try again later (status 429).
    #[arg(long, value_name = "N", default_value_t = 16, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    queue: u32,
}

impl Source for ModelArgs {
    fn load(&self) -> Result<Loaded> {
        self.open()
    }

    fn version(&self) -> Option<(SystemTime, u64)> {
        ModelArgs::version(self)
    }
}

impl Serve {
    pub(super) fn execute(self) -> Result<()> {
        self.model.prepare()?;
        let api_key = match self.api_key {
            Some(key) => Some(key),
            None => match std::env::var("SWARM_API_KEY") {
                Ok(key) => Some(key),
                Err(std::env::VarError::NotPresent) => None,
                Err(error) => return Err(error).context("SWARM_API_KEY"),
            },
        };
        ensure!(api_key.as_deref() != Some(""), "the API key is empty: leave --api-key out to ask for none");
        let key_wanted = api_key.is_some();
        let (model, queue) = (self.name, self.queue as usize);
        let (worker, thread, about) = Worker::start(self.model, queue)?;
        let ended = block_on(async {
            let listener = web::bind(self.listen, self.beyond, FLAGS).await?;
            let address = listener.local_addr().context("the listener has no address")?;
            if !address.ip().is_loopback() {
                let who = if key_wanted { "who has the key" } else { "anybody who reaches it" };
                tracing::warn!("{address} answers {who}, and nothing is encrypted on the way");
            }
            eprintln!("{about}");
            eprintln!("listening at http://{address}/v1 (model \"{model}\"); Ctrl-C ends");
            let stopping = worker.clone();
            let patience = async move {
                eprintln!("what is under way is finished; Ctrl-C once more ends at once");
                tokio::select! {
                    () = tokio::time::sleep(PATIENCE) => {}
                    () = node::asked_to_stop() => {}
                }
                stopping.stop();
            };
            let offer = Offer { model, api_key, worker };
            web::serve(listener, router(offer), node::asked_to_stop(), patience).await;
            Ok(())
        });
        // It ends when the last request does: all senders are gone by now, or stopped.
        if thread.join().is_err() {
            anyhow::bail!("the model's thread has failed");
        }
        ended
    }
}
