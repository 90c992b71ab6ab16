//! The laboratory's text: one shard a learner, and a validation text that nobody trains on.
//!
//! The text files below a path fall into *groups*: one for each entry of the folder (a crate, a book, an
//! author), or one for a single file. Groups are ordered by a hash of their names, so that neighbours in
//! the alphabet do not end up with one learner; the first of them are the validation text, the rest is one
//! long string that is cut into equal shards. So learners' texts differ in kind, as devices' texts do, and
//! what is measured is text of a kind that none of them has.
//!
//! A group of which there are several versions (`name-1.2.3`) counts as one, and of every group at most
//! [`GROUP_BYTES`] are used: generated files would fill a shard alone.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

use crate::data::{read_text, text_files};
use crate::store::write_atomically;

/// Of one group at most this much is used.
const GROUP_BYTES: usize = 1_000_000;
/// All text together is at most this much.
const TOTAL_BYTES: usize = 96 << 20;
/// Share of the text that is held out, and the most of it.
const VALIDATION_SHARE: f64 = 0.05;
const VALIDATION_BYTES: usize = 4 << 20;
/// More files than this are a mistake.
const MAX_FILES: usize = 500_000;

/// Text in memory, before it is cut.
pub(crate) struct Text {
    training: Vec<u8>,
    /// What nobody trains on.
    pub(crate) validation: Vec<u8>,
    /// In words.
    pub(crate) summary: String,
    /// BLAKE3 of both parts, in hexadecimal: equal texts make comparable results.
    pub(crate) digest: String,
}

impl Text {
    /// Reads the text below `path`; `~` and `$CARGO_HOME` at its beginning are understood, and at its end
    /// `*.rs`: all files below that are called so.
    ///
    /// # Errors
    /// A path that cannot be read, or too little text.
    pub(crate) fn read(path: &str) -> Result<Self> {
        let (root, suffix) = match path.rsplit_once("/*") {
            Some((root, suffix)) => (root, suffix),
            None => (path, ""),
        };
        let mut files = text_files(&[expand(root)?], MAX_FILES).with_context(|| format!("--data {path}"))?;
        files.retain(|file| file.to_string_lossy().ends_with(suffix));
        let common = common_folder(&files);
        let mut groups: BTreeMap<[u8; 32], Vec<u8>> = BTreeMap::new();
        let mut total = 0;
        for file in &files {
            let name = file.strip_prefix(&common).unwrap_or(file).iter().next().unwrap_or_default();
            let name = unversioned(&name.to_string_lossy()).to_owned();
            let group = groups.entry(*blake3::hash(name.as_bytes()).as_bytes()).or_default();
            let room = GROUP_BYTES.saturating_sub(if files.len() > 1 { group.len() } else { 0 });
            let limit = if files.len() > 1 { room } else { TOTAL_BYTES };
            if limit == 0 || total >= 4 * TOTAL_BYTES {
                continue;
            }
            // A file that is gone or unreadable is left out; the digest shows the difference.
            let Some(mut bytes) = read_text(file, limit as u64) else { continue };
            total += bytes.len();
            group.append(&mut bytes);
            group.push(b'\n');
        }
        groups.retain(|_, group| group.len() > 1);
        let count = groups.len();
        let whole: usize = groups.values().map(Vec::len).sum::<usize>().min(TOTAL_BYTES);
        let wanted = ((whole as f64 * VALIDATION_SHARE) as usize).min(VALIDATION_BYTES);
        let (mut validation, mut training) = (Vec::new(), Vec::new());
        for (_, mut group) in groups {
            if count == 1 {
                validation = group.split_off(group.len() - wanted);
                training = group;
            } else if validation.len() < wanted {
                validation.append(&mut group);
            } else if training.len() + group.len() <= TOTAL_BYTES {
                training.append(&mut group);
            }
        }
        ensure!(
            training.len() >= 1 << 16 && validation.len() >= 1 << 11,
            "--data {path}: {} bytes of text for training and {} for validation are too little",
            training.len(),
            validation.len()
        );
        let mut hasher = blake3::Hasher::new();
        hasher.update(&training).update(&validation);
        let (mb, held) = (training.len() as f64 / 1e6, validation.len() as f64 / 1e6);
        let summary =
            format!("{mb:.1} MB for training and {held:.1} MB for validation, {count} groups of files");
        Ok(Self { training, validation, summary, digest: hasher.finalize().to_hex().to_string() })
    }

    /// Writes one shard a learner into `folder` and gives their paths; what is there already and has the
    /// right length stays.
    ///
    /// # Errors
    /// A disk that does not take it.
    pub(crate) fn shards(&self, folder: &Path, learners: usize) -> Result<Vec<PathBuf>> {
        let folder = folder.join(format!("{:.16}", self.digest)).join(learners.to_string());
        std::fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
        let length = self.training.len() / learners;
        let cut = |(i, shard): (usize, &[u8])| {
            let path = folder.join(format!("learner-{i}.txt"));
            if !std::fs::metadata(&path).is_ok_and(|there| there.len() == shard.len() as u64) {
                write_atomically(&path, shard)?;
            }
            Ok(path)
        };
        self.training.chunks_exact(length).take(learners).enumerate().map(cut).collect()
    }
}

fn expand(path: &str) -> Result<PathBuf> {
    let home = || std::env::home_dir().context("this user has no home folder");
    if let Some(rest) = path.strip_prefix("$CARGO_HOME/") {
        let cargo = std::env::var_os("CARGO_HOME").filter(|set| !set.is_empty()).map(PathBuf::from);
        return Ok(cargo.map_or_else(|| home().map(|home| home.join(".cargo")), Ok)?.join(rest));
    }
    match path.strip_prefix("~/") {
        Some(rest) => Ok(home()?.join(rest)),
        None => Ok(path.into()),
    }
}

/// The deepest folder that holds all files.
fn common_folder(files: &[PathBuf]) -> PathBuf {
    let parent = |file: &PathBuf| file.parent().map(Path::to_path_buf).unwrap_or_default();
    let mut common = files.first().map(parent).unwrap_or_default();
    for file in files {
        while !file.starts_with(&common) {
            if !common.pop() {
                break;
            }
        }
    }
    common
}

/// `name` of `name-1.2.3`.
fn unversioned(name: &str) -> &str {
    let mut at = name.match_indices('-').map(|(at, _)| at);
    let version = |at: &usize| name[at + 1..].starts_with(|c: char| c.is_ascii_digit());
    at.rfind(version).map_or(name, |at| &name[..at])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_one_group() {
        assert_eq!(unversioned("tokio-1.54.1"), "tokio");
        assert_eq!(unversioned("zstd-sys-2.1.2+zstd.1.5.7"), "zstd-sys");
        assert_eq!(unversioned("base-two"), "base-two");
    }

    #[test]
    fn nobody_trains_on_the_validation_text() {
        let dir = tempfile::tempdir().unwrap();
        for name in 'a'..='z' {
            let folder = dir.path().join("texts").join(format!("{name}-1.0.0"));
            std::fs::create_dir_all(&folder).unwrap();
            std::fs::write(folder.join("text"), format!("group {name}\n").repeat(1000)).unwrap();
        }
        let text = Text::read(dir.path().to_str().unwrap()).unwrap();
        let shards = text.shards(dir.path(), 3).unwrap();
        assert_eq!(shards.len(), 3);
        let kinds = |bytes: &[u8]| {
            String::from_utf8_lossy(bytes)
                .lines()
                .map(str::to_owned)
                .collect::<std::collections::BTreeSet<_>>()
        };
        let held = kinds(&text.validation);
        let mut all = Vec::new();
        for shard in &shards {
            all.extend(std::fs::read(shard).unwrap());
        }
        let trained = kinds(&all);
        assert!(held.iter().filter(|line| line.len() > 6).all(|line| !trained.contains(line)));
        assert!(trained.len() > 20);
        assert_eq!(Text::read(dir.path().join("texts").to_str().unwrap()).unwrap().digest, text.digest);
        assert!(Text::read("/nowhere").is_err());
    }
}
