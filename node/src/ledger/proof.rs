//! A ledger with all that shows it: a file for somebody who has no node.
//!
//! ```text
//! "swarm proof 1\n"
//! length u32 | the genesis, canonical bytes
//! from u64, to u64, the log digest before round `from`
//! for each round: count u32 | count times: length u32 | a signed header and its body, or two signed headers that void
//!                             an author's part; as they are gossiped, by author, ascending
//! length u32 | certificates and revocations, in a closed swarm (bincode)
//! length u32 | the ledger, in JSON
//! BLAKE3 of all of this
//! ```
//!
//! Whoever reads it believes nothing: it may be anybody's. The genesis must have the swarm id that the reader relies
//! on, every delta is verified, the ledger is computed anew ([`Auditor`]) and has to be the one in the file. Nothing is
//! allocated by what the file claims; one round is held at a time. The checksum tells damage from a lie, no more.

use std::io::{self, Read, Write};
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result, anyhow, bail, ensure};
use swarm_protocol::access::{Register, Statements};
use swarm_protocol::codec;
use swarm_protocol::contributions::{Auditor, Ledger};
use swarm_protocol::delta::Delta;
use swarm_protocol::digest::Digest;
use swarm_protocol::genesis::Genesis;
use swarm_protocol::identity::PeerKey;
use swarm_protocol::packing;
use swarm_protocol::round_log::Entry;
use swarm_protocol::wire::Gossip;

use super::history::History;
use super::show::{Format, written};
use crate::store::{block, open_checked, read_array, read_block, write_checked};

const MAGIC: &[u8] = b"swarm proof 1\n";
/// A genesis has names of a few hundred tensors at most.
const MAX_GENESIS: u32 = 1 << 20;
/// As many certificates and revocations as anybody keeps take less.
const MAX_STATEMENTS: u32 = 2 << 20;
/// A ledger has half a kilobyte an author.
const MAX_LEDGER: u32 = 1 << 30;
/// What frames a body.
pub(super) const AROUND_A_BODY: usize = 1 << 10;
/// Most memory that the rounds of a swarm are judged in that nobody has vouched for.
const MOST_FOR_STRANGERS: u64 = 1 << 31;

/// Writes the proof of `ledger`, which is of `history`.
///
/// # Errors
/// A disk that does not take it.
pub(crate) fn write(path: &Path, history: &History, ledger: &Ledger) -> Result<()> {
    let told = written(ledger, history.genesis(), Format::Json, false)?;
    write_checked(path, |out| {
        out.write_all(MAGIC)?;
        block(out, &history.genesis().canonical_bytes())?;
        out.write_all(&codec::encode(&(ledger.from, ledger.to, ledger.before)))?;
        for round in ledger.from..ledger.to {
            let entries = history.entries(round).map_err(io::Error::other)?;
            write_round(out, &entries)?;
        }
        block(out, &codec::encode(history.statements()))?;
        block(out, told.as_bytes())
    })
}

/// A round's entries, which are in the order of their authors.
pub(super) fn write_round(out: &mut dyn Write, entries: &[Entry]) -> io::Result<()> {
    let count = u32::try_from(entries.len()).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
    out.write_all(&count.to_le_bytes())?;
    for entry in entries {
        let message = match entry {
            Entry::Delta(delta) => Gossip::Delta(Box::new(delta.signed), Some(delta.body.to_vec())),
            Entry::Void(proof) => Gossip::Equivocation(proof.clone()),
        };
        block(out, &message.encode())?;
    }
    Ok(())
}

/// What a proof shows.
#[derive(Debug)]
pub(crate) struct Proven {
    /// The swarm's constitution.
    pub(crate) genesis: Arc<Genesis>,
    /// The ledger, computed from the deltas.
    pub(crate) ledger: Ledger,
    /// In a closed swarm: authors who have deltas of rounds for which no certificate in the proof admits them.
    pub(crate) not_admitted: Vec<PeerKey>,
}

/// Reads a proof, and checks all of it. If `swarm` is given, it must be of that swarm.
///
/// # Errors
/// Whatever does not hold, in words.
pub(crate) fn read(path: &Path, swarm: Option<Digest>) -> Result<Proven> {
    let again =
        || format!("{} is no proof: swarm ledger --proof makes one; ask for it again", path.display());
    let reader = open_checked(path).with_context(again)?;
    let mut reader = reader.with_context(|| format!("{}: there is no such file", path.display()))?;
    parse(&mut reader, swarm).with_context(|| format!("{} proves nothing", path.display()))
}

pub(super) fn parse(reader: &mut impl Read, swarm: Option<Digest>) -> Result<Proven> {
    let magic: [u8; MAGIC.len()] = read_array(reader)?;
    ensure!(magic == *MAGIC, "it is not a proof as this version of swarm writes them");
    let genesis = read_block(reader, MAX_GENESIS)?;
    let id = Digest::of_bytes(&genesis);
    if let Some(swarm) = swarm {
        ensure!(id == swarm, "it is of swarm {id}, not of {swarm}, which was asked for");
    }
    let genesis = Arc::new(Genesis::from_canonical_bytes(&genesis)?);
    let span: [u8; 48] = read_array(reader)?;
    let (from, to, before): (u64, u64, Digest) = codec::decode(&span).context("its rounds cannot be read")?;
    ensure!(from <= to, "it ends before it begins");
    let longest = packing::max_len(&genesis.layout()?, &genesis.rule) + AROUND_A_BODY;
    let longest = u32::try_from(longest).unwrap_or(u32::MAX);
    let mut auditor = Auditor::new(genesis.clone(), from, before)?;
    while auditor.at() < to {
        let entries = read_round(reader, &genesis, longest, swarm.is_some())
            .with_context(|| format!("round {}", auditor.at()))?;
        auditor.round(&entries)?;
    }
    let statements = read_block(reader, MAX_STATEMENTS)?;
    let statements: Statements = codec::decode(&statements).context("its certificates cannot be read")?;
    let told = read_block(reader, MAX_LEDGER)?;
    ensure!(reader.read(&mut [0])? == 0, "bytes follow its end");
    let ledger = auditor.finish();
    let not_admitted = not_admitted(&genesis, &ledger, &statements)?;
    let computed = written(&ledger, &genesis, Format::Json, false)?;
    ensure!(
        told == computed.as_bytes(),
        "the ledger in it is not the one that its signed deltas make: {}",
        first_difference(&told, &computed)
    );
    Ok(Proven { genesis, ledger, not_admitted })
}

/// What [`write_round`] wrote. Nobody has to have `vouched` for the swarm, but then its rounds must be small.
///
/// # Errors
/// What cannot be one, in words.
pub(super) fn read_round(
    reader: &mut impl Read,
    genesis: &Genesis,
    longest: u32,
    vouched: bool,
) -> Result<Vec<Entry>> {
    let count = u32::from_le_bytes(read_array(reader)?);
    ensure!(count <= genesis.rule.publishers, "{count} authors, more than the genesis permits");
    // Two bits a parameter for each author.
    let memory = u64::from(count).saturating_mul(genesis.model.parameter_count() / 4);
    ensure!(
        vouched || memory <= MOST_FOR_STRANGERS,
        "to check it takes {} MB of memory: say with --genesis FILE or --swarm-id ID that this is the swarm you mean",
        memory / 1_000_000
    );
    let mut entries: Vec<Entry> = Vec::new();
    for _ in 0..count {
        let bytes = read_block(reader, longest)?;
        let entry = match Gossip::decode(&bytes)
            .map_err(|error| anyhow!("a delta cannot be read: {error}"))?
        {
            Gossip::Delta(signed, Some(body)) => {
                let id = signed.header.id();
                Entry::Delta(Arc::new(Delta { signed: *signed, id, body: body.into() }))
            }
            Gossip::Equivocation(proof) => Entry::Void(proof),
            Gossip::Delta(_, None) | Gossip::Access(_) => bail!("something in it is no delta with a body"),
        };
        let in_order = entries.last().is_none_or(|last| last.author() < entry.author());
        ensure!(in_order, "its authors are not in order, each of them once");
        entries.push(entry);
    }
    Ok(entries)
}

/// Authors of a closed swarm without a certificate for all of their rounds. That somebody was revoked later takes
/// nothing back.
fn not_admitted(genesis: &Genesis, ledger: &Ledger, statements: &Statements) -> Result<Vec<PeerKey>> {
    if genesis.access.is_open() {
        ensure!(statements.is_empty(), "it has certificates, and its swarm is open");
        return Ok(Vec::new());
    }
    let mut register = Register::new(genesis);
    if let Some(error) = register.add(statements).refused {
        bail!("one of its certificates does not hold: {error}");
    }
    let mut authors: Vec<PeerKey> = ledger
        .rows
        .iter()
        .filter(|row| !register.has_admitted(&row.author, row.round))
        .map(|row| row.author)
        .collect();
    authors.sort_unstable();
    authors.dedup();
    Ok(authors)
}

/// Where two texts part: the line that is computed and the one that is there.
fn first_difference(told: &[u8], computed: &str) -> String {
    let told = String::from_utf8_lossy(told);
    let mut lines = told.lines().map(Some).chain(std::iter::repeat(None));
    let mut computed = computed.lines();
    loop {
        match (lines.next().flatten(), computed.next()) {
            (Some(told), Some(line)) if told == line => {}
            (told, Some(line)) => {
                let told: String = told.unwrap_or("nothing").trim().chars().take(80).collect();
                return format!("it says {told:?} where {:?} belongs", line.trim());
            }
            (_, None) => return "it says more".to_owned(),
        }
    }
}
