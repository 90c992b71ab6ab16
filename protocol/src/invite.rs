//! An invite: one line of text with which somebody gets from nothing to training.
//!
//! It names the swarm by its id, so that the genesis can be fetched from anybody and still be the right one; it
//! says where peers may be found; and it may pin a checkpoint, so that a newcomer whom only liars surround starts
//! from what the inviter has seen or not at all.
//!
//! ```text
//! swarm:BASE64URL     RFC 4648 section 5, without padding, of
//!
//! 1         version
//! 32        swarm id
//! 1         number of addresses, then for each: 1 its length, and its bytes (a binary multiaddr)
//! 1         0, or 1 for a pin, then: 8 its number of settled rounds (little-endian), 32 BLAKE3 of its manifest
//! 4         the first bytes of BLAKE3 of all before: an invite that was cut or mistyped is recognised
//! ```
//!
//! Nothing in it is secret, and nothing in it has to be believed but the swarm id and the pin.

use std::fmt;
use std::str::FromStr;

use data_encoding::BASE64URL_NOPAD;
use thiserror::Error;

use crate::checkpoint::Name;
use crate::digest::Digest;

/// The version of the bytes.
const VERSION: u8 = 1;
/// What an invite begins with.
pub const PREFIX: &str = "swarm:";
/// Most addresses in an invite.
pub const MAX_ADDRESSES: usize = 16;
/// The longest text that is read: one with 16 addresses of 255 bytes.
const MAX_TEXT: usize = 6000;
/// Bytes of the checksum.
const CHECK: usize = 4;

/// What an invite says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Invite {
    /// The swarm's id, which is the hash of its genesis.
    pub swarm: Digest,
    /// Where peers may be found: binary multiaddresses, at most [`MAX_ADDRESSES`], of at most 255 bytes.
    pub addresses: Vec<Vec<u8>>,
    /// The checkpoint to start from.
    pub pin: Option<Name>,
}

/// Why a text is not an invite.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum InviteError {
    /// Something else.
    #[error("not an invite: it begins with {PREFIX}, and `swarm invite` prints one")]
    NotOne,
    /// It was cut, or mistyped.
    #[error("the invite is damaged: copy all of it, in one piece, from where `swarm invite` printed it")]
    Damaged,
    /// Of a later version.
    #[error("the invite is of version {0}, and this build of swarm reads version {VERSION}: use a newer one")]
    Version(u8),
}

impl fmt::Display for Invite {
    /// The line. Addresses beyond what an invite can hold are left out.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let fit = self.addresses.iter().filter(|address| u8::try_from(address.len()).is_ok());
        let addresses: Vec<&Vec<u8>> = fit.take(MAX_ADDRESSES).collect();
        let mut bytes = vec![VERSION];
        bytes.extend(self.swarm.0);
        bytes.push(addresses.len() as u8);
        for address in addresses {
            bytes.push(address.len() as u8);
            bytes.extend(address);
        }
        bytes.push(self.pin.is_some().into());
        if let Some(pin) = &self.pin {
            bytes.extend(pin.settled.to_le_bytes());
            bytes.extend(pin.manifest.0);
        }
        bytes.extend(check(&bytes));
        write!(f, "{PREFIX}{}", BASE64URL_NOPAD.encode(&bytes))
    }
}

impl FromStr for Invite {
    type Err = InviteError;

    fn from_str(text: &str) -> Result<Self, InviteError> {
        let text = text.trim().strip_prefix(PREFIX).ok_or(InviteError::NotOne)?;
        if text.len() > MAX_TEXT {
            return Err(InviteError::Damaged);
        }
        let bytes = BASE64URL_NOPAD.decode(text.as_bytes()).map_err(|_| InviteError::Damaged)?;
        let (said, sum) = bytes.split_last_chunk::<CHECK>().ok_or(InviteError::Damaged)?;
        if *sum != check(said) {
            return Err(InviteError::Damaged);
        }
        match said.split_first() {
            Some((&VERSION, rest)) => read(rest).ok_or(InviteError::Damaged),
            Some((&version, _)) => Err(InviteError::Version(version)),
            None => Err(InviteError::Damaged),
        }
    }
}

fn check(bytes: &[u8]) -> [u8; CHECK] {
    let [a, b, c, d, ..] = Digest::of_bytes(bytes).0;
    [a, b, c, d]
}

/// What follows the version; `None` unless it is all of it and nothing more.
fn read(mut bytes: &[u8]) -> Option<Invite> {
    let swarm = Digest(*bytes.split_off(..32)?.first_chunk()?);
    let count = usize::from(*bytes.split_off_first()?);
    if count > MAX_ADDRESSES {
        return None;
    }
    let mut addresses = Vec::with_capacity(count);
    for _ in 0..count {
        let length = usize::from(*bytes.split_off_first()?);
        addresses.push(bytes.split_off(..length)?.to_vec());
    }
    let pin = match bytes.split_off_first()? {
        0 => None,
        1 => {
            let settled = u64::from_le_bytes(*bytes.split_off(..8)?.first_chunk()?);
            Some(Name { settled, manifest: Digest(*bytes.split_off(..32)?.first_chunk()?) })
        }
        _ => return None,
    };
    bytes.is_empty().then_some(Invite { swarm, addresses, pin })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn invite(pinned: bool) -> Invite {
        Invite {
            swarm: Digest([7; 32]),
            addresses: vec![vec![4, 127, 0, 0, 1, 6, 15, 161], vec![9; 255]],
            pin: pinned.then_some(Name { settled: 24, manifest: Digest([8; 32]) }),
        }
    }

    #[test]
    fn what_is_written_is_read() {
        for invite in [invite(false), invite(true), Invite { addresses: Vec::new(), ..invite(true) }] {
            let text = invite.to_string();
            assert_eq!(text.parse(), Ok(invite));
            assert_eq!(format!("  {text}\n").parse::<Invite>().map(|read| read.to_string()), Ok(text));
        }
    }

    #[test]
    fn the_bytes_are_pinned() {
        // Golden: written by this test, after the table above.
        let invite = Invite { addresses: vec![vec![4, 127, 0, 0, 1]], ..invite(false) };
        assert_eq!(invite.to_string(), include_str!("../golden/invite.txt").trim());
    }

    #[test]
    fn a_cut_or_mistyped_invite_is_recognised() {
        let text = invite(true).to_string();
        for end in PREFIX.len()..text.len() {
            assert_eq!(text[..end].parse::<Invite>(), Err(InviteError::Damaged), "{end}");
        }
        for at in PREFIX.len()..text.len() {
            let mut typed = text.clone().into_bytes();
            typed[at] = if typed[at] == b'A' { b'B' } else { b'A' };
            assert_eq!(String::from_utf8(typed).unwrap().parse::<Invite>(), Err(InviteError::Damaged));
        }
        assert_eq!(format!("{text}{}", "A".repeat(MAX_TEXT)).parse::<Invite>(), Err(InviteError::Damaged));
        assert_eq!(text[1..].parse::<Invite>(), Err(InviteError::NotOne));
    }

    #[test]
    fn a_later_version_is_named() {
        let mut bytes = vec![VERSION + 1, 1, 2, 3];
        bytes.extend(check(&bytes));
        let text = format!("{PREFIX}{}", BASE64URL_NOPAD.encode(&bytes));
        assert_eq!(text.parse::<Invite>(), Err(InviteError::Version(VERSION + 1)));
    }

    proptest! {
        /// One text for one invite, and nothing may follow.
        #[test]
        fn any_invite_is_read_back_and_nothing_may_follow(
            addresses in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..=255), 0..=MAX_ADDRESSES),
            pin in prop::option::of((any::<u64>(), any::<[u8; 32]>())),
            more in prop::collection::vec(any::<u8>(), 1..4),
        ) {
            let pin = pin.map(|(settled, manifest)| Name { settled, manifest: Digest(manifest) });
            let invite = Invite { swarm: Digest([1; 32]), addresses, pin };
            let text = invite.to_string();
            prop_assert!(text.len() <= MAX_TEXT);
            prop_assert_eq!(text.parse(), Ok(invite));
            let mut bytes = BASE64URL_NOPAD.decode(&text.as_bytes()[PREFIX.len()..]).unwrap();
            bytes.truncate(bytes.len() - CHECK);
            bytes.extend(more);
            bytes.extend(check(&bytes));
            let longer = format!("{PREFIX}{}", BASE64URL_NOPAD.encode(&bytes));
            prop_assert_eq!(longer.parse::<Invite>(), Err(InviteError::Damaged));
        }
    }
}
