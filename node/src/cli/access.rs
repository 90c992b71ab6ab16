//! Flags and steps that commands about closed swarms have in common.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, bail, ensure};
use clap::Args;
use libp2p::PeerId;
use swarm_protocol::access::{NEVER, Register, Statements};
use swarm_protocol::genesis::{Access, Genesis};
use swarm_protocol::identity::{Identity, PeerKey};

use crate::net::{peer_id, peer_key};
use crate::store::{self, Store};

/// Who may take part in a new swarm.
#[derive(Args)]
pub(super) struct AccessArgs {
    /// Who may take part: everybody (open), or only those who are admitted with `swarm admit` (invite).
    #[arg(long, value_parser = ["open", "invite"])]
    access: Option<String>,

    /// With --access invite: the key that admits others. Made, readable by its owner only, if there is no such
    /// file. Whoever has it can admit anybody, and that can never be changed: keep it safe, best offline, and keep
    /// a copy. May be repeated, for several people or a spare key.
    #[arg(long, value_name = "FILE")]
    admin_key: Vec<PathBuf>,
}

impl AccessArgs {
    /// Changes who may take part, if there are flags for it. What was made is said.
    ///
    /// # Errors
    /// Flags that do not go together, or a key file that cannot be used.
    pub(super) fn apply(&self, genesis: &mut Genesis) -> Result<()> {
        match (self.access.as_deref(), self.admin_key.is_empty()) {
            (None, true) => {}
            (None | Some("open"), false) => {
                bail!("--admin-key is for a swarm that admits: give it together with --access invite")
            }
            (Some("invite"), true) => bail!(
                "--access invite needs the key that admits others: --admin-key FILE (it is made if there is no such file)"
            ),
            (Some("invite"), false) => {
                let keys = self.admin_key.iter().map(|path| make_key(path));
                genesis.access = Access::invite(keys.collect::<Result<Vec<PeerKey>>>()?);
            }
            (Some(_), _) => genesis.access = Access::default(),
        }
        genesis.validate().map_err(|error| anyhow!("these flags make no usable genesis: {error}"))
    }
}

fn make_key(path: &Path) -> Result<PeerKey> {
    let (identity, new) = store::read_or_make_key(path)?;
    if new {
        println!(
            "made {}: whoever has this file can admit anybody to this swarm, for good. Keep it safe, and a copy",
            path.display()
        );
    }
    Ok(identity.public())
}

/// What to do first in a swarm that admits: nobody is in it yet.
pub(super) fn explain(genesis: &Genesis) {
    if !genesis.access.is_open() {
        println!(
            "this swarm admits by invitation: a device that starts says for which peer id it asks; then run swarm admit \
             PEER --genesis FILE --key FILE, and give it the line that this prints, with --certificate"
        );
    }
}

/// Certificates and revocations that a node is given.
#[derive(Args)]
pub(super) struct StatementArgs {
    /// In a closed swarm: the line that `swarm admit` printed for this device, or a file that holds it. It is kept, so
    /// once is enough.
    #[arg(long, value_name = "LINE|FILE")]
    certificate: Vec<String>,

    /// In a closed swarm: a line of `swarm revoke`, or a file that holds it; this node tells the swarm.
    #[arg(long, value_name = "LINE|FILE")]
    revocation: Vec<String>,
}

impl StatementArgs {
    /// All of them.
    ///
    /// # Errors
    /// A file that cannot be read, or a text that is none of them.
    pub(super) fn read(&self) -> Result<Statements> {
        let mut all = Statements::default();
        let given = |flag: &'static str, texts: &[String]| {
            texts.iter().map(move |text| read(text).context(flag)).collect::<Result<Vec<Statements>>>()
        };
        for mut read in [given("--certificate", &self.certificate)?, given("--revocation", &self.revocation)?]
            .into_iter()
            .flatten()
        {
            all.certificates.append(&mut read.certificates);
            all.revocations.append(&mut read.revocations);
        }
        Ok(all)
    }
}

/// A line, or the file of this name.
fn read(text: &str) -> Result<Statements> {
    let is_line = ["swarm-cert:", "swarm-revocation:"].iter().any(|word| text.trim_start().starts_with(word));
    if is_line { store::parse_statements(text) } else { store::read_statements(Path::new(text)) }
}

/// Reads whom a command is about: a peer id as `swarm id` prints it, or a public key in hexadecimal.
pub(super) fn parse_peer(text: &str) -> Result<PeerKey> {
    let key = text.parse::<PeerId>().ok().and_then(|peer| peer_key(&peer)).or_else(|| text.parse().ok());
    key.filter(PeerKey::is_usable).ok_or_else(|| {
        anyhow!("'{text}' is not a peer: it looks like 12D3KooW.. (swarm id, or swarm run on that device, tells it)")
    })
}

/// A peer as people see it.
pub(super) fn shown(key: &PeerKey) -> String {
    peer_id(key).map_or_else(|| key.to_string(), |peer| peer.to_string())
}

/// Who says something about a swarm, and where it is known from.
#[derive(Args)]
pub(super) struct IssuerArgs {
    /// The swarm's genesis file. Or name a node's folder with --dir.
    #[arg(long, value_name = "FILE")]
    genesis: Option<PathBuf>,

    /// The folder of a node of the swarm: it knows who else has been admitted, and in which round the swarm is. What
    /// is printed is also left there, for the node to tell the swarm, at once if it is running.
    #[arg(long, value_name = "DIR")]
    pub(super) dir: Option<PathBuf>,

    /// The key to sign with: one that `swarm new --admin-key` made, or the identity.key of somebody who may admit
    /// others. Default: the identity of the node in --dir.
    #[arg(long, value_name = "FILE")]
    key: Option<PathBuf>,

    /// The own certificate of somebody who was admitted with --may-admit, if it is not known in --dir.
    #[arg(long, value_name = "LINE|FILE")]
    certificate: Vec<String>,
}

/// A key, and the swarm that it speaks about.
pub(super) struct Issuer {
    pub(super) genesis: Genesis,
    pub(super) register: Register,
    pub(super) identity: Identity,
}

impl IssuerArgs {
    /// Reads everything.
    ///
    /// # Errors
    /// An open swarm, files that cannot be read, a key that may not admit anybody.
    pub(super) fn open(&self) -> Result<Issuer> {
        let genesis = match (&self.genesis, &self.dir) {
            (Some(path), _) => store::read_genesis(path)?,
            (None, Some(dir)) => Store::look(dir)?.0,
            (None, None) => bail!("name the swarm with --genesis FILE, or a node's folder with --dir DIR"),
        };
        ensure!(
            !genesis.access.is_open(),
            "swarm {:.16} ({}) is open: everybody may take part. swarm new --access invite makes a closed one",
            genesis.swarm_id(),
            genesis.name
        );
        let key = match (&self.key, &self.dir) {
            (Some(path), _) => path.clone(),
            (None, Some(dir)) => dir.join("identity.key"),
            (None, None) => bail!("name the key to sign with: --key FILE, the one that swarm new made"),
        };
        let identity = store::read_key(&key)?;
        let mut register = Register::new(&genesis);
        if let Some(dir) = &self.dir {
            // What does not hold there is the node's to complain about.
            register.add(&store::read_access(dir)?);
        }
        for text in &self.certificate {
            let added = register.add(&read(text).context("--certificate")?);
            added.refused.map_or(Ok(()), Err).context("--certificate")?;
        }
        ensure!(
            register.may_admit(&identity.public()),
            "the key in {} ({}) is none of those that may admit others to swarm {:.16}: sign with a key of its genesis, \
             or be admitted with --may-admit and name that certificate with --certificate, or the node's folder with --dir",
            key.display(),
            shown(&identity.public()),
            genesis.swarm_id()
        );
        Ok(Issuer { genesis, register, identity })
    }

    /// The round that the swarm is in.
    ///
    /// # Errors
    /// No folder of a node that has run.
    pub(super) fn round(&self, what_for: &str) -> Result<u64> {
        let dir = self.dir.as_ref().with_context(|| {
            format!("{what_for} needs to know in which round the swarm is: name a node's folder with --dir")
        })?;
        store::last_round(dir)
    }

    /// Prints the line, and leaves it for the node in --dir.
    ///
    /// # Errors
    /// A disk that does not take it.
    pub(super) fn hand_out(&self, statements: &Statements) -> Result<()> {
        if let Some(dir) = &self.dir {
            store::leave_statements(dir, statements)?;
            eprintln!("left in {} for its node, which tells the swarm", dir.display());
        }
        println!("{statements}");
        Ok(())
    }
}

/// A round until which somebody is admitted, in words.
pub(super) fn until(round: u64) -> String {
    if round == NEVER { "without an end".into() } else { format!("until round {round}") }
}
