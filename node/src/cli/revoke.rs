//! `swarm revoke`: takes back that a device may take part in a closed swarm.

use anyhow::{Result, ensure};
use clap::Args;
use swarm_protocol::access::{Revocation, Signed, Statements};
use swarm_protocol::identity::PeerKey;

use super::access::{Issuer, IssuerArgs, parse_peer, shown};

/// Revoke a device of a swarm that admits by invitation, for good, and with it all whom it admitted. Every node that
/// hears of it cuts the device off at once; its deltas do not count from a round on that is the same for all. With
/// --dir the node there tells the swarm; else give the line that is printed to any node, with --revocation.
#[derive(Args)]
pub(super) struct Revoke {
    /// Whom: the peer id.
    #[arg(value_name = "PEER", value_parser = parse_peer)]
    peer: PeerKey,

    #[command(flatten)]
    issuer: IssuerArgs,

    /// The first round that the device does not count in. It must be one that nobody has open yet, so that everybody
    /// has heard of it by then. Default, with --dir: two windows after the round that the node there is in.
    #[arg(long, value_name = "N")]
    from_round: Option<u64>,
}

impl Revoke {
    pub(super) fn execute(self) -> Result<()> {
        let Issuer { genesis, mut register, identity } = self.issuer.open()?;
        let window = u64::from(genesis.rounds.window);
        let from_round = match (self.from_round, &self.issuer.dir) {
            (Some(from), None) => from,
            (Some(from), Some(_)) => {
                let round = self.issuer.round("--from-round")?;
                ensure!(
                    from > round + window,
                    "--from-round {from}: the swarm is at round {round}, and rounds up to {} are open: some nodes would \
                     count the device there and others not. Choose {} or later, or leave the flag out",
                    round + window,
                    round + window + 1
                );
                from
            }
            (None, _) => self.issuer.round("swarm revoke without --from-round")?.saturating_add(2 * window),
        };
        let (swarm, subject, issuer) = (genesis.swarm_id(), self.peer, identity.public());
        let said = Revocation { swarm, subject, issuer, from_round };
        let mut statements = Statements::from(vec![Signed::new(said, &identity)]);
        // Who is no key of the genesis shows that it may, and that it admitted this device.
        let known = register.statements().certificates.into_iter();
        let admitted = known.filter(|signed| signed.said.subject == subject && signed.said.issuer == issuer);
        if !genesis.access.keys().contains(&issuer) {
            statements.certificates = register.chain(&issuer).into_iter().chain(admitted).collect();
        }
        let added = register.add(&statements);
        if let Some(error) = added.refused {
            return Err(error.into());
        }
        ensure!(
            !added.news.is_empty(),
            "{} has been revoked already, from an earlier round on",
            shown(&subject)
        );
        eprintln!("{} is revoked from round {from_round} on", shown(&subject));
        if register.trusts(&subject, 0) {
            eprintln!(
                "somebody else has admitted it too, so it stays: only a key of the genesis can end that"
            );
        }
        self.issuer.hand_out(&statements)
    }
}
