//! MNIST's format (yann.lecun.com/exdb/mnist): a file of images and a file of labels.
//!
//! ```text
//!   images  00 00 08 03   count   rows   columns   (32 bits each, big-endian)   a byte a pixel
//!   labels  00 00 08 01   count                                                  a byte a label
//! ```
//!
//! The labels of `NAME-images-idx3-ubyte` are in `NAME-labels-idx1-ubyte` beside it; both may be compressed (`.gz`).

use std::fs::File;
use std::io::{Read, copy};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use swarm_protocol::architecture::Images;

use super::pixels::{PixelFile, is_gzip, plain_name, reader};
use super::{MAX_PICTURES, no_such_class};

const IMAGES: u32 = 0x0803;
const LABELS: u32 = 0x0801;
/// Bytes before the first pixel.
const HEADER: u64 = 16;

/// Whether the file's name says that it holds images in this format.
pub(super) fn is_images(path: &Path) -> bool {
    let name = plain_name(path);
    name.contains("images") && (name.ends_with("ubyte") || name.ends_with(".idx"))
}

/// Opens the images at `path` and their labels.
pub(super) fn open(path: &Path, images: &Images) -> Result<PixelFile> {
    let shown = path.display();
    ensure!(
        images.channels == 1,
        "{shown} holds grey pictures, but the swarm learns pictures in colour: give a folder or a .csv file"
    );
    let mut file = reader(path)?;
    let [count, rows, columns] = header(file.as_mut(), IMAGES).with_context(|| format!("reading {shown}"))?;
    ensure!(
        (rows, columns) == (images.height, images.width),
        "{shown} holds pictures of {rows} rows and {columns} columns, but the swarm learns {} x {}: scale them, or \
         begin a swarm of that size",
        images.height,
        images.width
    );
    ensure!(count as usize <= MAX_PICTURES, "{shown} says that it holds {count} pictures: too many");
    let labels_at = labels_of(path)?;
    let labels = read_labels(&labels_at, images)?;
    ensure!(
        labels.len() == count as usize,
        "{shown} has {count} pictures, but {} has {} labels: they do not belong together",
        labels_at.display(),
        labels.len()
    );
    let length = u64::from(count) * images.numbers() as u64;
    let (file, start, have) = if is_gzip(path) {
        let mut unpacked = tempfile::tempfile().context("no temporary file to unpack pictures into")?;
        let have = copy(&mut file.take(length + 1), &mut unpacked)
            .with_context(|| format!("cannot unpack {shown}: get it again"))?;
        (unpacked, 0, have)
    } else {
        let file = File::open(path).with_context(|| format!("cannot open {shown}"))?;
        let have = file.metadata().with_context(|| format!("cannot look at {shown}"))?.len();
        (file, HEADER, have.saturating_sub(HEADER))
    };
    ensure!(
        have == length,
        "{shown} says that it holds {count} pictures, which take {length} bytes, but has {}: it is damaged, get it \
         again",
        if have > length { "more".to_owned() } else { have.to_string() }
    );
    Ok(PixelFile::new(path, file, start, labels))
}

/// The numbers after the magic one.
fn header<const N: usize>(file: &mut dyn Read, magic: u32) -> Result<[u32; N]> {
    let mut number = || -> Result<u32> {
        let mut bytes = [0; 4];
        file.read_exact(&mut bytes)
            .context("it ends within its first bytes: it is no IDX file, or damaged")?;
        Ok(u32::from_be_bytes(bytes))
    };
    let found = number()?;
    ensure!(
        found == magic,
        "it begins with {found:08x} instead of {magic:08x}: it is no IDX file of unsigned bytes with the dimensions \
         wanted here"
    );
    let mut numbers = [0; N];
    for value in &mut numbers {
        *value = number()?;
    }
    Ok(numbers)
}

/// The file of labels that belongs to these images.
fn labels_of(path: &Path) -> Result<PathBuf> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let name = name.replace("images", "labels").replace("idx3", "idx1");
    let plain = name.strip_suffix(".gz").unwrap_or(&name).to_owned();
    for candidate in [name.clone(), plain.clone(), format!("{plain}.gz")] {
        let candidate = path.with_file_name(candidate);
        if candidate.is_file() {
            return Ok(candidate);
        }
    }
    bail!("the labels of {} are missing: {name} must lie beside it", path.display())
}

fn read_labels(path: &Path, images: &Images) -> Result<Vec<u16>> {
    let shown = path.display();
    let mut file = reader(path)?;
    let [count] = header(file.as_mut(), LABELS).with_context(|| format!("reading {shown}"))?;
    ensure!(count as usize <= MAX_PICTURES, "{shown} says that it holds {count} labels: too many");
    let mut bytes = Vec::new();
    file.take(u64::from(count) + 1)
        .read_to_end(&mut bytes)
        .with_context(|| format!("cannot read {shown}"))?;
    ensure!(
        bytes.len() == count as usize,
        "{shown} says that it holds {count} labels, but has {}: it is damaged, get it again",
        if bytes.len() > count as usize { "more".to_owned() } else { bytes.len().to_string() }
    );
    let outside = bytes.iter().position(|label| u32::from(*label) >= images.classes);
    match outside {
        Some(at) => Err(no_such_class(&bytes[at].to_string(), &format!("picture {at} in {shown}"), images)),
        None => Ok(bytes.into_iter().map(u16::from).collect()),
    }
}
