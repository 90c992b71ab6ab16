//! Closed swarms: signed statements about who may take part.
//!
//! The genesis of a closed swarm names a few public keys ([`crate::genesis::Access`]). A **certificate** of one of
//! them admits a device, until a round; if it says so, that device may admit others in its turn. From a key of the
//! genesis to a device there are at most [`MAX_CHAIN`] certificates: a **chain**. A **revocation** ends what somebody
//! was admitted to from a round on: keys of the genesis revoke anybody, others those whom they admitted themselves.
//! Whoever was admitted by somebody who is revoked, or whose certificate has ended, falls with it, unless there is
//! another chain.
//!
//! ```text
//!   key of the genesis ──may admit, to round 900──> Ada ──to round 500──> Ada's laptop
//!           └───────────to round 100──> Bob                └─to the end─> Ada's desktop   (that is round 900)
//! ```
//!
//! # The same answer everywhere
//! Whether a delta counts must not depend on when somebody heard of what, or peers would hold different sets. So
//! nothing here is about clocks: certificates end, and revocations begin, with a *round*, and whether an author is
//! admitted to a round follows from the set of statements alone ([`Register`]). That set only grows, and neighbours
//! compare it as they compare deltas. A revocation names a round that nobody accepts deltas for yet (`swarm revoke`
//! sees to it), so everybody has it by then. Should somebody hear of it later all the same, then it is as with a
//! proof of equivocation: what is still open is corrected, in rounds that have settled nothing changes, and where
//! two histories have parted by that, all take up the one that most authors have.
//!
//! ```
//! use swarm_protocol::access::{Certificate, NEVER, Register, Signed, Statements};
//! use swarm_protocol::{architecture::Sizes, genesis::{Access, Genesis}, identity::Identity};
//!
//! let (founder, device) = (Identity::from_secret(&[1; 32]), Identity::from_secret(&[2; 32]));
//! let model = Sizes { vocabulary: 16, dim: 8, layers: 1, heads: 2, ffn: 8, context: 8 };
//! let access = Access::invite([founder.public()]);
//! let genesis = Genesis { access, ..Genesis::new("closed", model, 1) };
//!
//! let certificate = Certificate {
//!     swarm: genesis.swarm_id(),
//!     subject: device.public(),
//!     issuer: founder.public(),
//!     may_admit: false,
//!     last_round: 99,
//! };
//! let line = Statements::from(vec![Signed::new(certificate, &founder)]).to_string();
//!
//! let mut register = Register::new(&genesis);
//! register.add(&line.parse().unwrap());
//! assert!(register.admits(&device.public(), 99) && !register.admits(&device.public(), 100));
//! assert!(register.admits(&founder.public(), NEVER - 1));
//! ```

mod register;
mod text;

pub use register::{Added, MAX_CERTIFICATES, MAX_REVOCATIONS, Register};
pub use text::TextError;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::codec;
use crate::digest::Digest;
use crate::identity::{Identity, PeerKey, SignatureBytes};

/// Most certificates from a key of the genesis to somebody who is admitted.
pub const MAX_CHAIN: usize = 4;
/// Most statements that one gossip message, or the chain that somebody shows, may have.
pub const MAX_TOLD: usize = 16;
/// A round that never comes.
pub const NEVER: u64 = u64::MAX;

/// Something that is signed about who may take part.
pub trait Statement: Serialize {
    /// What is signed with it, so that no signature holds for another kind of statement.
    const DOMAIN: &'static str;

    /// The swarm that it is about.
    fn swarm(&self) -> Digest;

    /// Who makes it.
    fn issuer(&self) -> PeerKey;

    /// Whom it is about.
    fn subject(&self) -> PeerKey;
}

/// `issuer` admits `subject`. 105 bytes on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Certificate {
    /// The swarm's id.
    pub swarm: Digest,
    /// Who is admitted.
    pub subject: PeerKey,
    /// Who admits: a key of the genesis, or somebody who may admit others.
    pub issuer: PeerKey,
    /// Whether `subject` may admit others in its turn.
    pub may_admit: bool,
    /// The last round that `subject` may publish for; [`NEVER`]: it does not end by itself.
    pub last_round: u64,
}

/// `issuer` takes back what `subject` was admitted to. 104 bytes on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Revocation {
    /// The swarm's id.
    pub swarm: Digest,
    /// Who is not admitted any more.
    pub subject: PeerKey,
    /// Who says so: a key of the genesis, or who admitted `subject`.
    pub issuer: PeerKey,
    /// The first round that `subject` may not publish for.
    pub from_round: u64,
}

impl Statement for Certificate {
    const DOMAIN: &'static str = "swarm certificate 1";

    fn swarm(&self) -> Digest {
        self.swarm
    }

    fn issuer(&self) -> PeerKey {
        self.issuer
    }

    fn subject(&self) -> PeerKey {
        self.subject
    }
}

impl Statement for Revocation {
    const DOMAIN: &'static str = "swarm revocation 1";

    fn swarm(&self) -> Digest {
        self.swarm
    }

    fn issuer(&self) -> PeerKey {
        self.issuer
    }

    fn subject(&self) -> PeerKey {
        self.subject
    }
}

/// A statement with its issuer's signature, 64 bytes more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Signed<T> {
    /// What is said.
    pub said: T,
    /// The issuer's signature over its bytes.
    pub signature: SignatureBytes,
}

impl<T: Statement> Signed<T> {
    /// Signs a statement; `identity` must be the issuer.
    pub fn new(said: T, identity: &Identity) -> Self {
        let signature = identity.sign(T::DOMAIN, &codec::encode(&said));
        Self { said, signature }
    }

    /// Whether the issuer really signed this, verified strictly.
    pub fn verify(&self) -> bool {
        self.said.issuer().verify(T::DOMAIN, &codec::encode(&self.said), &self.signature)
    }
}

/// Certificates and revocations, in any order.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Statements {
    /// Who is admitted by whom.
    pub certificates: Vec<Signed<Certificate>>,
    /// Who is not admitted any more.
    pub revocations: Vec<Signed<Revocation>>,
}

impl Statements {
    /// How many there are.
    pub fn len(&self) -> usize {
        self.certificates.len() + self.revocations.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl From<Vec<Signed<Certificate>>> for Statements {
    fn from(certificates: Vec<Signed<Certificate>>) -> Self {
        Self { certificates, revocations: Vec::new() }
    }
}

impl From<Vec<Signed<Revocation>>> for Statements {
    fn from(revocations: Vec<Signed<Revocation>>) -> Self {
        Self { certificates: Vec::new(), revocations }
    }
}

/// Why a statement was not taken up.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum AccessError {
    /// Nobody is admitted, because everybody may take part.
    #[error("this swarm is open: everybody may take part, and nobody has to be admitted")]
    Open,
    /// It is about another swarm.
    #[error("it is for swarm {0:.16}, and this is another one: it needs one that was made for this swarm")]
    OtherSwarm(Digest),
    /// The issuer did not sign this.
    #[error("its signature does not hold: copy all of it, unchanged, from where it was made")]
    Signature,
    /// The issuer may not admit anybody, as far as is known, or is too far from the genesis for that.
    #[error(
        "{0:.16}, who made it, is not known as somebody who may admit others in this swarm: it needs a certificate of \
         a key of the genesis, or all certificates from there on, at most {MAX_CHAIN}"
    )]
    Unfounded(PeerKey),
    /// Who revokes is neither a key of the genesis nor has admitted the subject.
    #[error(
        "{0:.16}, who made it, has not admitted whom it revokes, as far as is known here: only who has, and those who \
         hold a key of the genesis, can do that"
    )]
    NotTheirs(PeerKey),
    /// A key of the genesis is admitted by the genesis itself.
    #[error(
        "it is about a key of the genesis, which nobody admits and nobody can revoke: only a fork has other keys"
    )]
    Founder,
    /// There is no room for more.
    #[error("there are so many statements already that this one is not kept")]
    Full,
}

impl AccessError {
    /// Whether whoever passes such a statement on breaks the rules: an honest peer would have seen it by itself.
    pub fn is_fault(&self) -> bool {
        matches!(self, Self::Open | Self::OtherSwarm(_) | Self::Signature | Self::Founder)
    }
}
