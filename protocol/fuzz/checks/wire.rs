//! Messages as an enemy makes them: whatever is read is what would have been written.

use swarm_protocol::wire::{Gossip, Request, Response};

/// Tries `data`.
pub fn run(data: &[u8]) {
    if let Ok(message) = Gossip::decode(data) {
        assert_eq!(message.encode(), data);
    }
    if let Ok(message) = Request::decode(data) {
        assert_eq!(message.encode(), data);
    }
    if let Ok(message) = Response::decode(data) {
        assert_eq!(message.encode(), data);
    }
}
