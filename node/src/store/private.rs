//! What a device keeps to itself: the file `private` in a node's folder, a pattern a line.
//!
//! It is remembered because to forget it would be to publish it: a run that leaves `--private` out must not send what
//! the runs before it kept. So patterns are added by the command line, and taken away only by hand.

use std::path::Path;

use anyhow::{Context, Result};
use swarm_protocol::architecture::Parameter;
use swarm_protocol::genesis::Private;

use super::Store;
use super::file;

const FILE: &str = "private";
/// A few short lines.
const LIMIT: u64 = 64 * 1024;
const HEAD: &str = "# Patterns of names of parameters that this device trains for itself and never shares, one a line.\n\
                    # If you delete a line, what was learned there so far will be sent to the swarm.\n";

impl Store {
    /// What the folder says is private, with `more`, which it says from now on.
    ///
    /// # Errors
    /// A file that cannot be read or written; a pattern that picks nothing.
    pub(crate) fn private(&self, more: &[String], parameters: &[Parameter]) -> Result<Private> {
        let path = self.path(FILE);
        let mut patterns = read(&path)?;
        let known = patterns.len();
        patterns.extend(more.iter().map(|pattern| pattern.trim().to_owned()));
        patterns.sort();
        patterns.dedup();
        let private = Private::new(&patterns, parameters)
            .map_err(anyhow::Error::msg)
            .with_context(|| format!("--private, or {}", path.display()))?;
        if patterns.len() > known {
            let lines: String = patterns.iter().map(|pattern| format!("{pattern}\n")).collect();
            file::write_atomically(&path, format!("{HEAD}{lines}").as_bytes())?;
        }
        Ok(private)
    }
}

fn read(path: &Path) -> Result<Vec<String>> {
    if !path.try_exists().with_context(|| format!("cannot read {}", path.display()))? {
        return Ok(Vec::new());
    }
    let text = String::from_utf8(file::read_limited(path, LIMIT)?)
        .with_context(|| format!("{} is not text; it has a pattern a line", path.display()))?;
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    Ok(lines.map(str::to_owned).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use swarm_protocol::architecture::Sizes;
    use swarm_protocol::genesis::Genesis;

    #[test]
    fn what_was_private_once_stays_private() {
        let dir = tempfile::tempdir().unwrap();
        let model = Sizes { vocabulary: 16, dim: 8, layers: 1, heads: 2, ffn: 8, context: 8 };
        let genesis = Genesis::new("kept", model, 1);
        let parameters = genesis.model.parameters();
        let (store, _) = Store::open(dir.path(), Some(genesis)).unwrap();
        let picks = |more: &[&str]| {
            let more: Vec<String> = more.iter().map(|&pattern| pattern.to_owned()).collect();
            let private = store.private(&more, &parameters)?;
            let names = parameters.iter().filter(|parameter| private.picks(&parameter.name));
            anyhow::Ok(names.count())
        };
        assert_eq!(picks(&[]).unwrap(), 0);
        assert!(!dir.path().join("private").exists());
        assert_eq!(picks(&["*norm*"]).unwrap(), 3);
        assert_eq!(picks(&[]).unwrap(), 3, "remembered");
        assert_eq!(picks(&["lm_head*", "*norm*"]).unwrap(), 4);
        assert_eq!(picks(&[]).unwrap(), 4);
        let error = format!("{:#}", picks(&["*.bias"]).unwrap_err());
        assert!(error.contains("--private") && error.contains("picks no parameter"), "{error}");
        assert_eq!(picks(&[]).unwrap(), 4, "a pattern that was refused is not kept");
        std::fs::write(dir.path().join("private"), [0xff, 0xfe]).unwrap();
        assert!(format!("{:#}", picks(&[]).unwrap_err()).contains("is not text"));
    }
}
