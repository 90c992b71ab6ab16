//! A model's parameters as they are, in a file: what `swarm alone` reached.
//!
//! ```text
//! "swarm parameters 1\n"
//! one f32 a parameter, little-endian, in layout order
//! BLAKE3 of all of this
//! ```

use std::path::Path;

use anyhow::{Context, Result, ensure};

use super::file;
use super::snapshot::{bytes, words};

const MAGIC: &[u8] = b"swarm parameters 1\n";

/// Writes them.
///
/// # Errors
/// A disk that does not take them.
pub(crate) fn write_parameters(path: &Path, values: &[f32]) -> Result<()> {
    file::write_checked(path, |out| {
        out.write_all(MAGIC)?;
        for values in values.chunks(4096) {
            out.write_all(&values.iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<u8>>())?;
        }
        Ok(())
    })
}

/// Reads the parameters of a model that has `count`.
///
/// # Errors
/// No such file, one that is damaged, or of another model.
pub(crate) fn read_parameters(path: &Path, count: usize) -> Result<Vec<f32>> {
    let mut reader = file::open_checked(path)?.with_context(|| {
        format!("there is no {}: it is written by swarm alone when it ends", path.display())
    })?;
    let failed = || format!("{} cannot be used", path.display());
    let magic = bytes(&mut reader, MAGIC.len()).with_context(failed)?;
    ensure!(magic == MAGIC, "{} does not hold the parameters of a model", path.display());
    let length = reader.limit();
    ensure!(
        length == 4 * count as u64,
        "{} holds {} parameters and the model has {count}: it is of another model",
        path.display(),
        length / 4
    );
    words(&mut reader, count, f32::from_le_bytes).with_context(failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_and_what_is_damaged_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("parameters");
        let missing = read_parameters(&path, 3).unwrap_err().to_string();
        assert!(missing.contains("swarm alone"), "{missing}");
        let values: Vec<f32> = (0..9000).map(|i| i as f32 * -0.25).collect();
        write_parameters(&path, &values).unwrap();
        assert_eq!(read_parameters(&path, 9000).unwrap(), values);
        let other = read_parameters(&path, 9001).unwrap_err().to_string();
        assert!(other.contains("holds 9000 parameters and the model has 9001"), "{other}");
        let mut damaged = std::fs::read(&path).unwrap();
        damaged[40] ^= 1;
        std::fs::write(&path, &damaged).unwrap();
        let error = format!("{:#}", read_parameters(&path, 9000).unwrap_err());
        assert!(error.contains("parameters"), "{error}");
    }
}
