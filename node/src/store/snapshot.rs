//! A node's snapshot on disk.
//!
//! ```text
//! "swarm snapshot 3\n"
//! length u32 | Position (bincode)
//! C after the settled rounds: one i32 a parameter, little-endian
//! count u32  | count times: length u32 | signed header and body, as they are gossiped
//! 0 or 1     | if 1, between two histories: C in the one that was given up, own deltas in it:
//!              length u32 | round u64, id, each (bincode)
//! totals (bincode, fixed size)
//! 0 or 1     | if 1: optimizer step u64, sampler seed u64, sampler draws u64, then R, m: f32 each,
//!              length of v u64, v: f32 each
//! BLAKE3 of all of this
//! ```
//!
//! The number of parameters comes from the genesis, never from the file; `v` is no longer than that.

use std::io::{self, Read, Write};
use std::path::Path;

use anyhow::{Context, Result, anyhow, bail};
use serde::{Deserialize, Serialize};
use swarm_optimizer::coefficients::Coefficients;
use swarm_protocol::codec;
use swarm_protocol::digest::Digest;
use swarm_protocol::genesis::Genesis;
use swarm_protocol::peer::snapshot::{Position, Snapshot, own_deltas};
use swarm_protocol::wire::Gossip;

use super::file::{self, Damaged};
use crate::trainer::TrainerState;

const MAGIC: &[u8] = b"swarm snapshot 3\n";
/// A position holds a few thousand digests and proofs at most.
const MAX_POSITION: u32 = 64 << 20;
/// One delta: as large as a body can be.
const MAX_DELTA: u32 = 1 << 31;

/// What a node has done in all its runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Totals {
    /// Own deltas published.
    pub(crate) published: u64,
    /// Their bodies' bytes.
    pub(crate) body_bytes: u64,
    /// Their coefficients.
    pub(crate) coefficients: u64,
    /// Tokens trained on.
    pub(crate) tokens: u64,
}

/// What a node goes on from.
pub(crate) struct NodeSnapshot {
    /// The core's part.
    pub(crate) core: Snapshot,
    /// What was done so far.
    pub(crate) totals: Totals,
    /// The trainer's part, if a trainer ever ran here.
    pub(crate) trainer: Option<TrainerState>,
}

/// Writes a snapshot.
///
/// # Errors
/// A disk that does not take it; the old snapshot is then still there.
pub(crate) fn write(path: &Path, snapshot: &NodeSnapshot) -> Result<()> {
    file::write_checked(path, |out| {
        out.write_all(MAGIC)?;
        block(out, &codec::encode(&snapshot.core.position))?;
        integers(out, &snapshot.core.settled)?;
        out.write_all(&(snapshot.core.deltas.len() as u32).to_le_bytes())?;
        for (signed, body) in &snapshot.core.deltas {
            block(out, &Gossip::Delta(Box::new(*signed), Some(body.to_vec())).encode())?;
        }
        match &snapshot.core.given_up {
            None => out.write_all(&[0])?,
            Some((before, own)) => {
                out.write_all(&[1])?;
                integers(out, before)?;
                block(out, &codec::encode(own))?;
            }
        }
        out.write_all(&codec::encode(&snapshot.totals))?;
        let Some(trainer) = &snapshot.trainer else { return out.write_all(&[0]) };
        out.write_all(&[1])?;
        for number in [trainer.step, trainer.sampler_seed, trainer.sampler_drawn] {
            out.write_all(&number.to_le_bytes())?;
        }
        floats(out, &trainer.residual)?;
        floats(out, &trainer.m)?;
        out.write_all(&(trainer.v.len() as u64).to_le_bytes())?;
        floats(out, &trainer.v)
    })
}

fn floats(out: &mut dyn Write, values: &[f32]) -> io::Result<()> {
    for values in values.chunks(4096) {
        out.write_all(&values.iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<u8>>())?;
    }
    Ok(())
}

/// Coefficients as little-endian integers.
pub(super) fn integers(out: &mut dyn Write, coefficients: &Coefficients) -> io::Result<()> {
    for values in coefficients.values().chunks(4096) {
        out.write_all(&values.iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<u8>>())?;
    }
    Ok(())
}

/// Writes bytes with their length before them.
pub(crate) fn block(out: &mut dyn Write, bytes: &[u8]) -> io::Result<()> {
    let length = u32::try_from(bytes.len()).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
    out.write_all(&length.to_le_bytes())?;
    out.write_all(bytes)
}

/// A whole snapshot, but of another swarm: nothing is wrong with the file.
#[derive(Debug, thiserror::Error)]
#[error(
    "it is of swarm {0:.16}, not of the one whose genesis is in the folder: put that genesis back, or choose another folder with --dir"
)]
struct OtherSwarm(Digest);

/// Reads the snapshot of a node of `genesis`, or `None` if there is none.
///
/// # Errors
/// A file that cannot be read or is of another swarm; [`Damaged`] for one that is not what was written. The
/// text names it.
pub(crate) fn read(path: &Path, genesis: &Genesis) -> Result<Option<NodeSnapshot>> {
    let Some(mut reader) = file::open_checked(path)? else { return Ok(None) };
    let failed = || format!("{} cannot be used", path.display());
    match parse(&mut reader, genesis) {
        Err(error) if error.is::<OtherSwarm>() => Err(error).with_context(failed),
        Err(error) => Err(Damaged(format!("{}: {error:#}", failed())).into()),
        Ok(snapshot) => Ok(Some(snapshot)),
    }
}

fn parse(reader: &mut impl Read, genesis: &Genesis) -> Result<NodeSnapshot> {
    if bytes(reader, MAGIC.len())? != MAGIC {
        bail!("it is not a snapshot of this version of swarm");
    }
    let position = read_block(reader, MAX_POSITION)?;
    let position: Position = codec::decode(&position).context("its position cannot be read")?;
    if position.swarm != genesis.swarm_id() {
        bail!(OtherSwarm(position.swarm));
    }
    let parameters = usize::try_from(genesis.model.parameter_count())?;
    let settled = words(reader, parameters, i32::from_le_bytes)?;
    let count = u32::from_le_bytes(array(reader)?);
    let mut deltas = Vec::new();
    for _ in 0..count {
        let bytes = read_block(reader, MAX_DELTA)?;
        let (signed, body) =
            own_deltas(&[bytes]).pop().ok_or_else(|| anyhow!("one of its deltas cannot be read"))?;
        deltas.push((signed, body.into()));
    }
    let given_up = match array(reader)? {
        [1] => {
            let before = Coefficients::new(words(reader, parameters, i32::from_le_bytes)?);
            let own = codec::decode(&read_block(reader, MAX_POSITION)?);
            Some((before, own.context("its list of given-up deltas cannot be read")?))
        }
        _ => None,
    };
    let totals = bytes(reader, codec::encode(&Totals::default()).len())?;
    let totals = codec::decode(&totals).context("its totals cannot be read")?;
    let [has_trainer] = array(reader)?;
    let trainer = if has_trainer == 1 {
        let [step, sampler_seed, sampler_drawn] =
            [array(reader)?, array(reader)?, array(reader)?].map(u64::from_le_bytes);
        let residual = words(reader, parameters, f32::from_le_bytes)?;
        let m = words(reader, parameters, f32::from_le_bytes)?;
        let count = usize::try_from(u64::from_le_bytes(array(reader)?)).unwrap_or(usize::MAX);
        if count > parameters {
            bail!("it claims {count} second moments for {parameters} parameters");
        }
        let v = words(reader, count, f32::from_le_bytes)?;
        Some(TrainerState { residual, step, m, v, sampler_seed, sampler_drawn })
    } else {
        None
    };
    if reader.read(&mut [0])? != 0 {
        bail!("bytes follow its end");
    }
    let core = Snapshot { position, settled: Coefficients::new(settled), deltas, given_up };
    Ok(NodeSnapshot { core, totals, trainer })
}

/// So many bytes.
pub(crate) fn array<const N: usize>(reader: &mut impl Read) -> Result<[u8; N]> {
    let mut array = [0; N];
    reader.read_exact(&mut array).context("it ends early")?;
    Ok(array)
}

/// `length` bytes, allocated as they come.
pub(super) fn bytes(reader: &mut impl Read, length: usize) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    reader.take(length as u64).read_to_end(&mut bytes)?;
    if bytes.len() < length {
        bail!("it ends early");
    }
    Ok(bytes)
}

/// What [`block`] wrote, at most `limit` bytes, allocated as they come.
pub(crate) fn read_block(reader: &mut impl Read, limit: u32) -> Result<Vec<u8>> {
    let length = u32::from_le_bytes(array(reader)?);
    if length > limit {
        bail!("a part of it claims {length} bytes");
    }
    bytes(reader, length as usize)
}

pub(super) fn words<T>(reader: &mut impl Read, count: usize, word: impl Fn([u8; 4]) -> T) -> Result<Vec<T>> {
    let bytes = bytes(reader, count.checked_mul(4).context("too many parameters")?)?;
    Ok(bytes.chunks_exact(4).map(|b| word([b[0], b[1], b[2], b[3]])).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;
    use swarm_protocol::architecture::Sizes;
    use swarm_protocol::identity::Identity;
    use swarm_protocol::peer::{Part, Peer};

    fn genesis(seed: u64) -> Genesis {
        let model = Sizes { vocabulary: 16, dim: 8, layers: 1, heads: 2, ffn: 8, context: 8 };
        Genesis::new("snapshot", model, seed)
    }

    fn snapshot(genesis: &Genesis) -> NodeSnapshot {
        let part = Part { trains: true, found_after: None, stop_before: None };
        let identity = Identity::from_secret(&[1; 32]);
        let peer = Peer::new(Duration::ZERO, genesis.clone().into(), identity, part).unwrap();
        let n = peer.layout().len();
        let vector = |x: f32| (0..n).map(|i| i as f32 * x).collect::<Vec<f32>>();
        let trainer = TrainerState {
            residual: vector(0.5),
            step: 7,
            m: vector(-1.0),
            // Of some parameters only.
            v: vector(2.0).split_off(n / 2),
            sampler_seed: 3,
            sampler_drawn: 99,
        };
        let totals = Totals { published: 1, body_bytes: 2, coefficients: 3, tokens: 4 };
        NodeSnapshot { core: peer.snapshot(), totals, trainer: Some(trainer) }
    }

    #[test]
    fn what_is_written_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("snapshot");
        let genesis = genesis(1);
        assert!(read(&path, &genesis).unwrap().is_none());
        for with_trainer in [true, false] {
            let mut written = snapshot(&genesis);
            written.trainer = written.trainer.filter(|_| with_trainer);
            write(&path, &written).unwrap();
            let held = read(&path, &genesis).unwrap().unwrap();
            assert_eq!(held.core.position, written.core.position);
            assert_eq!(held.core.settled, written.core.settled);
            assert_eq!((held.totals, held.trainer), (written.totals, written.trainer));
        }
    }

    #[test]
    fn a_snapshot_of_another_swarm_is_refused_by_name() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("snapshot");
        write(&path, &snapshot(&genesis(1))).unwrap();
        let error = format!("{:#}", read(&path, &genesis(2)).err().unwrap());
        assert!(error.contains("snapshot") && error.contains("of swarm"), "{error}");
    }

    #[test]
    fn no_cut_and_no_claimed_length_gets_through() {
        let genesis = genesis(1);
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("snapshot");
        write(&path, &snapshot(&genesis)).unwrap();
        // Without the checksum, as if somebody had written a new one over changed bytes.
        let whole = std::fs::read(&path).unwrap();
        let whole = &whole[..whole.len() - 32];
        assert!(parse(&mut &whole[..], &genesis).is_ok());
        for cut in (0..whole.len()).step_by(97) {
            assert!(parse(&mut &whole[..cut], &genesis).is_err(), "cut at {cut}");
        }
        let mut claims = whole.to_vec();
        claims[MAGIC.len()..MAGIC.len() + 4].copy_from_slice(&u32::MAX.to_le_bytes());
        assert!(parse(&mut &claims[..], &genesis).is_err());
    }
}
