//! Statements as one line of text, to be sent to somebody by mail or read from a file.
//!
//! ```text
//! swarm-cert:BASE64URL         RFC 4648 section 5, without padding, of
//! swarm-revocation:BASE64URL
//!
//! 1         version
//! ..        certificates and revocations (bincode)
//! 4         the first bytes of BLAKE3 of all before: a line that was cut or mistyped is recognised
//! ```
//!
//! The word before the colon is for people: a line that holds a revocation has the second.

use std::fmt;
use std::str::FromStr;

use data_encoding::BASE64URL_NOPAD;
use thiserror::Error;

use super::{MAX_TOLD, Statements};
use crate::codec;
use crate::digest::Digest;

const VERSION: u8 = 1;
const CERTIFICATE: &str = "swarm-cert:";
const REVOCATION: &str = "swarm-revocation:";
/// Bytes of the checksum.
const CHECK: usize = 4;
/// The longest text that is read: [`MAX_TOLD`] statements take less.
const MAX_TEXT: usize = 8192;

/// Why a text holds no statements.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum TextError {
    /// Something else.
    #[error(
        "not a certificate or revocation: it begins with {CERTIFICATE} or {REVOCATION}, and `swarm admit` or `swarm \
         revoke` prints it"
    )]
    NotOne,
    /// It was cut, or mistyped.
    #[error(
        "it is damaged: copy all of it, in one piece, from where `swarm admit` or `swarm revoke` printed it"
    )]
    Damaged,
    /// Of a later version.
    #[error("it is of version {0}, and this build of swarm reads version {VERSION}: use a newer one")]
    Version(u8),
}

fn check(bytes: &[u8]) -> [u8; CHECK] {
    let [a, b, c, d, ..] = Digest::of_bytes(bytes).0;
    [a, b, c, d]
}

impl fmt::Display for Statements {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut bytes = vec![VERSION];
        bytes.extend(codec::encode(self));
        bytes.extend(check(&bytes));
        let word = if self.revocations.is_empty() { CERTIFICATE } else { REVOCATION };
        write!(f, "{word}{}", BASE64URL_NOPAD.encode(&bytes))
    }
}

impl FromStr for Statements {
    type Err = TextError;

    fn from_str(text: &str) -> Result<Self, TextError> {
        let text = text.trim();
        let text = text.strip_prefix(CERTIFICATE).or_else(|| text.strip_prefix(REVOCATION));
        let text = text.ok_or(TextError::NotOne)?;
        if text.len() > MAX_TEXT {
            return Err(TextError::Damaged);
        }
        let bytes = BASE64URL_NOPAD.decode(text.as_bytes()).map_err(|_| TextError::Damaged)?;
        let (said, sum) = bytes.split_last_chunk::<CHECK>().ok_or(TextError::Damaged)?;
        if *sum != check(said) {
            return Err(TextError::Damaged);
        }
        let statements: Self = match said.split_first() {
            Some((&VERSION, rest)) => codec::decode(rest).ok_or(TextError::Damaged)?,
            Some((&version, _)) => return Err(TextError::Version(version)),
            None => return Err(TextError::Damaged),
        };
        let fits = !statements.is_empty() && statements.len() <= MAX_TOLD;
        fits.then_some(statements).ok_or(TextError::Damaged)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::access::{Certificate, NEVER, Revocation, Signed};
    use crate::identity::Identity;

    fn certificate() -> Statements {
        let identity = Identity::from_secret(&[1; 32]);
        let (issuer, subject) = (identity.public(), Identity::from_secret(&[2; 32]).public());
        let swarm = Digest::of_bytes(b"swarm");
        vec![Signed::new(
            Certificate { swarm, subject, issuer, may_admit: true, last_round: NEVER },
            &identity,
        )]
        .into()
    }

    fn revocation() -> Statements {
        let identity = Identity::from_secret(&[1; 32]);
        let (issuer, subject) = (identity.public(), Identity::from_secret(&[2; 32]).public());
        let swarm = Digest::of_bytes(b"swarm");
        vec![Signed::new(Revocation { swarm, subject, issuer, from_round: 7 }, &identity)].into()
    }

    #[test]
    fn a_line_reads_back_and_says_what_it_is() {
        for (statements, word) in [(certificate(), CERTIFICATE), (revocation(), REVOCATION)] {
            let line = statements.to_string();
            assert!(line.starts_with(word) && !line.contains(char::is_whitespace), "{line}");
            assert_eq!(format!(" {line}\n").parse(), Ok(statements));
        }
    }

    #[test]
    fn the_line_is_pinned() {
        // Golden, written by this test: lines that people keep must stay readable.
        assert_eq!(certificate().to_string(), include_str!("../../golden/certificate.txt").trim());
    }

    #[test]
    fn what_was_cut_mistyped_or_is_something_else_is_refused_in_words() {
        let line = certificate().to_string();
        for cut in CERTIFICATE.len()..line.len() {
            assert_eq!(line[..cut].parse::<Statements>(), Err(TextError::Damaged), "cut at {cut}");
        }
        let other = if line.ends_with('A') { "B" } else { "A" };
        let mistyped = format!("{}{other}", &line[..line.len() - 1]);
        assert_eq!(mistyped.parse::<Statements>(), Err(TextError::Damaged));
        assert_eq!("swarm:AAAA".parse::<Statements>(), Err(TextError::NotOne));
        assert_eq!(Statements::default().to_string().parse::<Statements>(), Err(TextError::Damaged));
        let mut later = vec![9];
        later.extend(check(&[9]));
        let later = format!("{CERTIFICATE}{}", BASE64URL_NOPAD.encode(&later));
        assert_eq!(later.parse::<Statements>(), Err(TextError::Version(9)));
    }

    #[test]
    fn the_longest_line_that_is_written_is_read() {
        let many: Statements = vec![certificate().certificates[0]; MAX_TOLD].into();
        assert_eq!(many.to_string().parse(), Ok(many));
        let more: Statements = vec![certificate().certificates[0]; MAX_TOLD + 1].into();
        assert!(more.to_string().parse::<Statements>().is_err());
    }
}
