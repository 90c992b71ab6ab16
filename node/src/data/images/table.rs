//! CSV: a row a picture. First its label, then its pixels as numbers from 0 to 255, row by row, a pixel's channels
//! together. A first line of headings is passed over.

use std::io::{BufRead, BufReader, BufWriter, Read, Seek, Write};
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use swarm_protocol::architecture::Images;

use super::pixels::{PixelFile, plain_name, reader};
use super::{MAX_PICTURES, no_such_class};

/// Most bytes of a label.
const LONGEST_LABEL: usize = 256;
/// Most bytes of a pixel, its comma and spaces included.
const LONGEST_PIXEL: usize = 8;

/// Whether the file's name says that it is a table.
pub(super) fn is_table(path: &Path) -> bool {
    plain_name(path).ends_with(".csv")
}

/// Opens the pictures of the table at `path`.
pub(super) fn open(path: &Path, images: &Images) -> Result<PixelFile> {
    let shown = path.display();
    let mut lines = BufReader::new(reader(path)?);
    let unpacked = tempfile::tempfile().context("no temporary file to unpack pictures into")?;
    let mut unpacked = BufWriter::new(unpacked);
    let numbers = images.numbers();
    let longest = LONGEST_LABEL + LONGEST_PIXEL * numbers;
    let (mut labels, mut line, mut pixels) = (Vec::new(), Vec::new(), Vec::with_capacity(numbers));
    for number in 1u64.. {
        line.clear();
        let read = lines.by_ref().take(longest as u64 + 1).read_until(b'\n', &mut line);
        if read.with_context(|| format!("cannot read line {number} of {shown}"))? == 0 {
            break;
        }
        let place = || format!("line {number} of {shown}");
        ensure!(
            line.len() <= longest,
            "{} is longer than a label and {numbers} pixels: is it a table of pictures of the swarm's size?",
            place()
        );
        let text = std::str::from_utf8(&line).with_context(|| format!("{} is no text", place()))?.trim();
        if text.is_empty() {
            continue;
        }
        let (label, rest) = text.split_once(',').unwrap_or((text, ""));
        let label = label.trim().trim_matches('"');
        pixels.clear();
        let mut wrong = None;
        for field in rest.split(',').map(str::trim) {
            match field.parse::<u8>() {
                Ok(pixel) => pixels.push(pixel),
                Err(_) => wrong = wrong.or(Some(field)),
            }
        }
        if number == 1 && pixels.is_empty() && images.class(label).is_none() {
            continue;
        }
        if let Some(field) = wrong {
            bail!("{}: {field:?} is no pixel, which is a whole number from 0 to 255", place());
        }
        ensure!(
            pixels.len() == numbers,
            "{} has {} pixels, but the swarm learns pictures of {} x {} with {} channels, which have {numbers}: scale \
             them, or begin a swarm of that size",
            place(),
            pixels.len(),
            images.height,
            images.width,
            images.channels
        );
        let class = images.class(label).and_then(|class| u16::try_from(class).ok());
        labels.push(class.ok_or_else(|| no_such_class(label, &place(), images))?);
        ensure!(labels.len() <= MAX_PICTURES, "{shown} has more than {MAX_PICTURES} pictures: too many");
        unpacked.write_all(&pixels).context("cannot write a temporary file; is there space?")?;
    }
    ensure!(!labels.is_empty(), "{shown} has no picture: a row is a label and {numbers} pixels");
    let mut file = unpacked.into_inner().context("cannot write a temporary file; is there space?")?;
    file.rewind()?;
    Ok(PixelFile::new(path, file, 0, labels))
}
