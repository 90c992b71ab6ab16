//! The bundled handwritten digits (see `tests/data/digits`), and tables of some of them, as nodes hold them.

use std::fmt::Write;
use std::fs::File;
use std::io::Read;
use std::path::PathBuf;

use anyhow::{Result, ensure};
use flate2::read::GzDecoder;

use crate::Place;
use crate::program::repository;

/// Pixels of a picture, 8 x 8.
const PIXELS: usize = 64;
/// Every so many-th picture is for validation; no node holds it.
const VALIDATION_EVERY: usize = 5;

/// Pictures with their labels.
#[derive(Debug)]
pub struct Digits {
    pixels: Vec<u8>,
    labels: Vec<u8>,
}

impl Digits {
    /// Reads the bundled ones.
    ///
    /// # Errors
    /// They are not there.
    pub fn read() -> Result<Self> {
        let unpack = |name: &str, header: usize| -> Result<Vec<u8>> {
            let path = repository().join("tests/data/digits").join(name);
            let mut bytes = Vec::new();
            GzDecoder::new(File::open(path)?).read_to_end(&mut bytes)?;
            Ok(bytes.split_off(header))
        };
        let pixels = unpack("digits-images-idx3-ubyte.gz", 16)?;
        let labels = unpack("digits-labels-idx1-ubyte.gz", 8)?;
        ensure!(pixels.len() == PIXELS * labels.len(), "pictures and labels do not belong together");
        Ok(Self { pixels, labels })
    }

    /// Writes the pictures for training whose number and label `wanted` takes, as `name`.
    ///
    /// # Errors
    /// They cannot be written.
    pub fn table(&self, place: &Place, name: &str, wanted: impl Fn(usize, u8) -> bool) -> Result<PathBuf> {
        self.write(place, name, |at, label| !at.is_multiple_of(VALIDATION_EVERY) && wanted(at, label))
    }

    /// Writes the pictures for validation, as `validation.csv`.
    ///
    /// # Errors
    /// They cannot be written.
    pub fn validation(&self, place: &Place) -> Result<PathBuf> {
        self.write(place, "validation.csv", |at, _| at.is_multiple_of(VALIDATION_EVERY))
    }

    fn write(&self, place: &Place, name: &str, wanted: impl Fn(usize, u8) -> bool) -> Result<PathBuf> {
        let mut text = String::new();
        for (at, (picture, label)) in self.pixels.chunks_exact(PIXELS).zip(&self.labels).enumerate() {
            if wanted(at, *label) {
                write!(text, "{label}")?;
                for pixel in picture {
                    write!(text, ",{pixel}")?;
                }
                text.push('\n');
            }
        }
        place.file(name, text)
    }
}
