//! `swarm admit`: lets a device take part in a closed swarm.

use anyhow::{Result, ensure};
use clap::Args;
use swarm_protocol::access::{Certificate, NEVER, Signed, Statements};
use swarm_protocol::identity::PeerKey;

use super::access::{Issuer, IssuerArgs, parse_peer, shown, until};
use crate::node::Rounds;

/// Admit a device to a swarm that admits by invitation: prints a line, its certificate, which the device gives to swarm
/// run with --certificate. Works offline.
#[derive(Args)]
pub(super) struct Admit {
    /// Whom: the peer id that swarm run says when it is not admitted, or that swarm id prints.
    #[arg(value_name = "PEER", value_parser = parse_peer)]
    peer: PeerKey,

    #[command(flatten)]
    issuer: IssuerArgs,

    /// For how long: 500 until the swarm is at round 500, +500 for 500 more rounds than it is at. It can be admitted
    /// again later. Default: until it is revoked.
    #[arg(long, value_name = "N")]
    rounds: Option<Rounds>,

    /// It may admit others in its turn, and revoke these. They fall with it if it is revoked.
    #[arg(long)]
    may_admit: bool,
}

impl Admit {
    pub(super) fn execute(self) -> Result<()> {
        let Issuer { genesis, mut register, identity } = self.issuer.open()?;
        let last_round = match self.rounds {
            None => NEVER,
            Some(Rounds::Until(rounds)) => rounds - 1,
            Some(Rounds::More(more)) => self.issuer.round("--rounds +N")?.saturating_add(more - 1),
        };
        let (swarm, subject, issuer) = (genesis.swarm_id(), self.peer, identity.public());
        let said = Certificate { swarm, subject, issuer, may_admit: self.may_admit, last_round };
        let mut statements = Statements::from(register.chain(&issuer));
        statements.certificates.push(Signed::new(said, &identity));
        let before = register.admitted_until(&subject);
        if let Some(error) = register.add(&statements).refused {
            return Err(error.into());
        }
        let now = register.admitted_until(&subject);
        ensure!(
            now > 0 && register.trusts(&subject, 0),
            "{} has been revoked in this swarm, which holds for good: give it a new identity (a new folder), and admit that",
            shown(&subject)
        );
        ensure!(now > before || self.may_admit, "{} is admitted {} already", shown(&subject), until(before));
        eprintln!("{} is admitted {}", shown(&subject), until(now));
        if now < last_round.saturating_add(1) {
            eprintln!("no longer, because the certificate of who admits it ends then");
        }
        if self.may_admit && !register.may_admit(&subject) {
            eprintln!("it cannot admit others all the same: it is too far from the keys of the genesis");
        }
        self.issuer.hand_out(&statements)
    }
}
