//! The worker: its queue, who goes away, and newer models.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use anyhow::{Result, bail};
use swarm_protocol::architecture::Sizes;
use tch::Device;
use tokio::sync::mpsc::Receiver;

use super::ask::Ask;
use super::worker::{Said, Source, Worker};
use crate::inference::{Loaded, Tokenizer};
use crate::model::{Llama, Network, Sequence, initial_parameters};

/// Models by number: from 100 on none can be loaded.
#[derive(Clone, Default)]
struct Shelf {
    newest: Arc<AtomicU64>,
    loads: Arc<AtomicU64>,
}

impl Source for Shelf {
    fn load(&self) -> Result<Loaded> {
        let number = self.newest.load(Ordering::SeqCst);
        self.loads.fetch_add(1, Ordering::SeqCst);
        if number >= 100 {
            bail!("there is none");
        }
        let arch = Sizes { vocabulary: 256, dim: 16, layers: 1, heads: 2, ffn: 16, context: 64 }.into();
        let mut model = Llama::new(&arch, Device::Cpu)?;
        let values: Vec<f32> = initial_parameters(&arch, number).iter().map(|value| 9.0 * value).collect();
        model.set_parameters(&values)?;
        let sequence = Sequence::new(model)?;
        Ok(Loaded { sequence, tokenizer: Tokenizer::Bytes, about: format!("model {number}") })
    }

    fn version(&self) -> Option<(SystemTime, u64)> {
        Some((SystemTime::UNIX_EPOCH, self.newest.load(Ordering::SeqCst)))
    }
}

fn ask(most: usize) -> Ask {
    let ask = Ask::read(br#"{"prompt": "bees", "seed": 1}"#, false, "swarm", 0).unwrap();
    Ask { most, ..ask }
}

/// The whole text, and how many tokens it has.
fn all(mut told: Receiver<Said>) -> (String, usize) {
    let mut text = String::new();
    loop {
        match told.blocking_recv().unwrap() {
            Said::Text(more) => text.push_str(&more),
            Said::Done { tokens, .. } => return (text, tokens),
            Said::Failed(error) => panic!("{error:?}"),
        }
    }
}

#[test]
fn a_newer_model_answers_the_next_request_and_one_that_cannot_be_read_does_not() {
    let shelf = Shelf::default();
    let (worker, thread, about) = Worker::start(shelf.clone(), 4).unwrap();
    assert_eq!(about, "model 0");
    let old = all(worker.put(ask(20)).unwrap());
    assert_eq!(old, all(worker.put(ask(20)).unwrap()), "the same seed and model");
    assert_eq!(shelf.loads.load(Ordering::SeqCst), 1);
    shelf.newest.store(1, Ordering::SeqCst);
    let new = all(worker.put(ask(20)).unwrap());
    assert_ne!(old, new);
    shelf.newest.store(100, Ordering::SeqCst);
    assert_eq!(new, all(worker.put(ask(20)).unwrap()), "the one before answers");
    assert_eq!(new, all(worker.put(ask(20)).unwrap()));
    assert_eq!(shelf.loads.load(Ordering::SeqCst), 3, "what cannot be read is tried once");
    drop(worker);
    thread.join().unwrap();
    assert!(Worker::start(shelf, 4).err().unwrap().to_string().contains("there is none"));
}

#[test]
fn the_queue_is_bounded_and_what_nobody_waits_for_is_not_gone_on_with() {
    let (worker, thread, _) = Worker::start(Shelf::default(), 1).unwrap();
    // More than could ever be written here: if it were not ended, nothing below would be.
    let endless = usize::MAX >> 4;
    let mut first = worker.put(ask(endless)).unwrap();
    assert!(matches!(first.blocking_recv().unwrap(), Said::Text(_)), "it is being written");
    let second = worker.put(ask(endless)).unwrap();
    let busy = worker.put(ask(1)).unwrap_err();
    assert!(busy.body().to_string().contains("1 requests are waiting already"), "{busy:?}");
    drop((first, second));
    let third = loop {
        // The place in the queue is free once the worker has seen that the first is gone.
        match worker.put(ask(5)) {
            Ok(told) => break told,
            Err(_) => std::thread::sleep(Duration::from_millis(5)),
        }
    };
    assert_eq!(all(third).1, 5);
    let mut last = worker.put(ask(endless)).unwrap();
    assert!(matches!(last.blocking_recv().unwrap(), Said::Text(_)));
    worker.stop();
    drop(worker);
    thread.join().unwrap();
    let failed = std::iter::from_fn(|| last.blocking_recv()).last().unwrap();
    assert!(matches!(failed, Said::Failed(_)), "{failed:?}");
}
