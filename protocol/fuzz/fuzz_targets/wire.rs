//! Messages as an enemy makes them: whatever is read is what would have been written.
//!
//!     cargo +nightly fuzz run --fuzz-dir protocol/fuzz wire

#![no_main]

use libfuzzer_sys::fuzz_target;
use swarm_protocol::wire::{Gossip, Request, Response};

fuzz_target!(|data: &[u8]| {
    if let Ok(message) = Gossip::decode(data) {
        assert_eq!(message.encode(), data);
    }
    if let Ok(message) = Request::decode(data) {
        assert_eq!(message.encode(), data);
    }
    if let Ok(message) = Response::decode(data) {
        assert_eq!(message.encode(), data);
    }
});
