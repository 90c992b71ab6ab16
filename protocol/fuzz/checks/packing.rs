//! Bodies as an enemy makes them: whatever is accepted is the one encoding of what it says.
//!
//! The first byte chooses whether the rest is a body, or bytes from which a delta is made, which is packed,
//! unpacked, and packed again with one byte changed. (Few bodies made of random bytes get past the first tiles.)

use std::sync::OnceLock;

use swarm_optimizer::layout::Layout;
use swarm_optimizer::sparse::{Entry, MAX_LEVEL, SparseDelta, Step};
use swarm_protocol::genesis::Rule;
use swarm_protocol::packing::{self, Packer};

const RULE: Rule = Rule { tile: 64, k: 512, max_exponent: 18, publishers: 64 };

fn layout() -> &'static Layout {
    static LAYOUT: OnceLock<Layout> = OnceLock::new();
    LAYOUT.get_or_init(|| Layout::new([("m", vec![128, 130]), ("v", vec![100])], 64).expect("a layout"))
}

/// Tries `data`.
pub fn run(data: &[u8]) {
    let [choice, rest @ ..] = data else { return };
    if choice % 4 == 0 {
        accept(rest);
        return;
    }
    let (delta, rest) = make(rest);
    let Ok(mut body) = packing::encode(layout(), &RULE, RULE.k, &delta) else { return };
    assert_eq!(packing::decode(layout(), &RULE, &body).expect("an own body"), delta);
    if let [at, flip, ..] = rest {
        let at = usize::from(*at) * body.len() / 256;
        body[at] ^= flip;
        accept(&body);
        accept(&body[..at]);
    }
}

/// A body is refused, or it is canonical.
fn accept(body: &[u8]) {
    let (mut packer, mut delta) = (Packer::default(), SparseDelta::default());
    if packer.decode_into(layout(), &RULE, body, &mut delta).is_ok() {
        let k = u32::from(u16::from_le_bytes([body[1], body[2]]));
        let again = packing::encode(layout(), &RULE, k, &delta).expect("what was accepted is a delta");
        assert_eq!(again, body);
        assert!(body.len() <= packing::max_len(layout(), &RULE));
    }
}

/// A delta of what `data` says, and what is left of it.
fn make(mut data: &[u8]) -> (SparseDelta, &[u8]) {
    let mut delta = SparseDelta::default();
    for (index, tile) in layout().tiles().iter().enumerate() {
        let [code, count, rest @ ..] = data else { break };
        data = rest;
        let Some(step) = Step::from_code(*code) else { continue };
        let (mut position, mut entries) = (0, Vec::new());
        for _ in 0..*count {
            let [gap, level, rest @ ..] = data else { break };
            data = rest;
            position += usize::from(*gap) + 1;
            let level = *level as i8 % (MAX_LEVEL as i8 + 1);
            if position < tile.area() && level != 0 {
                entries.push(Entry { position: position as u16, level });
            }
        }
        if !entries.is_empty() {
            delta.push(index as u32, step, entries);
        }
    }
    (delta, data)
}
