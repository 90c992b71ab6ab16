//! Pictures with labels, in the forms in which people have them.
//!
//! - [`folder`]: a folder with a subfolder for each class, in them PNG or JPEG files;
//! - [`idx`]: MNIST's format, two files of bytes;
//! - [`table`]: CSV, a row a picture: the label, then the pixels;
//! - [`pixels`]: pictures that lie one after the other in a file.
//!
//! Labels are read when the data are opened, two bytes a picture; pixels when a picture is drawn. All pictures have
//! the size that the swarm's genesis names. A share of the pictures is held out of training: which ones follows from
//! their names or numbers alone, so it stays the same however often a node starts and whatever is added later.

mod folder;
mod idx;
mod pixels;
mod table;
#[cfg(test)]
mod tests;

use std::fmt::Debug;
use std::fs;
use std::ops::Range;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use swarm_protocol::architecture::Images;
use tch::{Kind, Tensor};

use super::examples::is_held_out;
use super::{Examples, Sampler, TestSet};
use crate::model::Batch;

/// Most pictures of one node.
const MAX_PICTURES: usize = 1 << 28;
/// Most numbers of one batch, a quarter of it its bytes.
const MAX_BATCH: usize = 1 << 31;
/// How often a picture is drawn anew before the data count as lost.
const ATTEMPTS: u32 = 100;

/// Pictures of one file or folder.
trait Pictures: Debug + Send {
    /// The class of each.
    fn labels(&self) -> &[u16];

    /// What tells picture number `at` from all others of the same path, wherever the path is.
    fn name(&self, at: usize) -> String;

    /// The pixels of picture number `at`, row by row, a pixel's channels together.
    ///
    /// # Errors
    /// A file that cannot be read any more.
    fn read(&self, at: usize, out: &mut [u8]) -> Result<()>;

    /// What could not be used of it, if there was anything: how many files, and the first with the reason.
    fn unreadable(&self) -> Option<(usize, &str)> {
        None
    }
}

/// Where a picture is: the number of its path, and its own.
type Place = (u32, u32);

/// The user's pictures.
#[derive(Debug)]
pub(crate) struct ImageExamples {
    images: Images,
    sources: Vec<Box<dyn Pictures>>,
    training: Vec<Place>,
    held_out: Vec<Place>,
    failed: u64,
}

impl ImageExamples {
    /// Opens the pictures below `paths`, and holds a share of them back.
    ///
    /// # Errors
    /// Nothing there, or not what the genesis says, in words that say what to do.
    pub(crate) fn open(paths: &[PathBuf], images: &Images, held_out_fraction: f64) -> Result<Self> {
        let mut opened = Self::all(paths, images)?;
        for (source, at) in std::mem::take(&mut opened.training) {
            let name = opened.sources[source as usize].name(at as usize);
            let held_out = is_held_out(&name, held_out_fraction)?;
            let part = if held_out { &mut opened.held_out } else { &mut opened.training };
            part.push((source, at));
        }
        for (part, have) in [("training", opened.training.len()), ("held-out", opened.held_out.len())] {
            ensure!(
                have > 0,
                "too few pictures: none of {} falls into the {part} part; add pictures, or change the held-out share \
                 ({held_out_fraction})",
                opened.training.len() + opened.held_out.len()
            );
        }
        Ok(opened)
    }

    /// Opens the pictures below `paths` to be measured on, all of them.
    ///
    /// # Errors
    /// As [`ImageExamples::open`].
    pub(crate) fn test_set(paths: &[PathBuf], images: &Images) -> Result<Self> {
        let mut opened = Self::all(paths, images)?;
        opened.held_out = std::mem::take(&mut opened.training);
        Ok(opened)
    }

    /// All pictures, for training.
    fn all(paths: &[PathBuf], images: &Images) -> Result<Self> {
        let mut sources: Vec<Box<dyn Pictures>> = Vec::new();
        for path in paths {
            open(path, images, &mut sources)?;
        }
        let mut places = Vec::new();
        for (number, source) in (0..).zip(&sources) {
            ensure!(
                places.len() + source.labels().len() <= MAX_PICTURES,
                "more than {MAX_PICTURES} pictures: name fewer"
            );
            places.extend((0..).zip(source.labels()).map(|(at, _)| (number, at)));
        }
        ensure!(!places.is_empty(), "no pictures in the data");
        Ok(Self { images: images.clone(), sources, training: places, held_out: Vec::new(), failed: 0 })
    }

    /// What there is, in words: pictures of each class, and what could not be read.
    pub(crate) fn summary(&self) -> String {
        let mut counts = vec![0u64; self.images.classes as usize];
        for (source, at) in self.training.iter().chain(&self.held_out) {
            let label = self.sources[*source as usize].labels()[*at as usize];
            if let Some(count) = counts.get_mut(usize::from(label)) {
                *count += 1;
            }
        }
        const SHOWN: usize = 12;
        let present = (0u32..).zip(&counts).filter(|(_, count)| **count > 0);
        let classes: Vec<String> = present
            .map(|(class, count)| format!("{count} of class {}", self.images.class_name(class)))
            .collect();
        let mut text = format!(
            "{} pictures ({} held out): {}",
            self.training.len() + self.held_out.len(),
            self.held_out.len(),
            classes.iter().take(SHOWN).cloned().collect::<Vec<_>>().join(", ")
        );
        if classes.len() > SHOWN {
            text += &format!(" and {} more classes", classes.len() - SHOWN);
        }
        for (count, first) in self.sources.iter().filter_map(|source| source.unreadable()) {
            text += &format!("; {count} files cannot be read, the first is {first}");
        }
        text
    }

    /// The class and the pixels of a picture.
    fn fetch(&self, (source, at): Place, out: &mut [u8]) -> Result<i64> {
        let source = &self.sources[source as usize];
        source.read(at as usize, out)?;
        Ok(source.labels()[at as usize].into())
    }

    /// Pixels `[count, height, width, channels]` as what a network takes: -1 to 1, channels first.
    fn batch(&self, pixels: &[u8], labels: &[i64]) -> Result<Batch> {
        let Images { channels, height, width, .. } = self.images;
        let size = [labels.len() as i64, height.into(), width.into(), channels.into()];
        let pixels = Tensor::f_from_slice(pixels)?.f_view(size)?.f_permute([0, 3, 1, 2])?;
        let inputs = pixels.f_to_kind(Kind::Float)?.f_contiguous()?.f_div_scalar(127.5)?.f_sub_scalar(1.0)?;
        Ok(Batch { inputs, targets: Tensor::f_from_slice(labels)? })
    }

    /// Memory for `count` pictures.
    fn room(&self, count: usize) -> Result<Vec<u8>> {
        let length = count.checked_mul(self.images.numbers()).filter(|length| *length <= MAX_BATCH);
        let length =
            length.with_context(|| format!("a batch of {count} pictures is too large: take fewer"))?;
        Ok(vec![0; length])
    }
}

impl TestSet for ImageExamples {
    fn len(&self) -> u64 {
        self.held_out.len() as u64
    }

    fn read(&self, which: Range<u64>, count: u64) -> Result<Batch> {
        let mut pixels = self.room(which.clone().count())?;
        let mut labels = Vec::new();
        for (number, out) in which.zip(pixels.chunks_exact_mut(self.images.numbers())) {
            let at = u128::from(number) * self.held_out.len() as u128 / u128::from(count.max(1));
            let place = usize::try_from(at).ok().and_then(|at| self.held_out.get(at));
            labels.push(self.fetch(*place.context("a picture that is not there")?, out)?);
        }
        self.batch(&pixels, &labels)
    }

    /// A picture has one target only, so it takes many of them to tell what share is right.
    fn examples_a_window(&self) -> u64 {
        8
    }

    fn amount(&self) -> String {
        format!("{} pictures", self.held_out.len())
    }
}

impl Examples for ImageExamples {
    fn draw(&mut self, sampler: &mut Sampler, count: usize) -> Result<Batch> {
        let mut pixels = self.room(count)?;
        let mut labels = Vec::with_capacity(count);
        for out in pixels.chunks_exact_mut(self.images.numbers()) {
            let mut attempts = 0;
            loop {
                // Below the length of a vector.
                let at = sampler.below(self.training.len() as u64) as usize;
                match self.fetch(self.training[at], out) {
                    Ok(label) => break labels.push(label),
                    Err(error) if attempts == ATTEMPTS => {
                        return Err(error.context(format!("{ATTEMPTS} pictures in a row cannot be read")));
                    }
                    Err(error) => {
                        if self.failed == 0 {
                            tracing::warn!("{error:#}: passed over, as are others like it");
                        }
                        self.failed += 1;
                        attempts += 1;
                    }
                }
            }
        }
        self.batch(&pixels, &labels)
    }

    fn as_test_set(&self) -> &dyn TestSet {
        self
    }

    fn targets(&self) -> u64 {
        1
    }

    fn failed_reads(&self) -> u64 {
        self.failed
    }
}

/// Opens what is at `path`, whatever of the forms it has.
fn open(path: &Path, images: &Images, into: &mut Vec<Box<dyn Pictures>>) -> Result<()> {
    let shown = path.display();
    let kind = fs::metadata(path).with_context(|| format!("cannot open the data path {shown}"))?.file_type();
    if kind.is_file() {
        into.push(open_file(path, images)?);
        return Ok(());
    }
    ensure!(kind.is_dir(), "the data path {shown} is neither a file nor a folder");
    // A folder of files, or one of classes.
    let mut files: Vec<PathBuf> = Vec::new();
    for entry in fs::read_dir(path).with_context(|| format!("cannot list {shown}"))? {
        let file = entry.with_context(|| format!("cannot list {shown}"))?.path();
        if file.is_file() && (idx::is_images(&file) || table::is_table(&file)) {
            files.push(file);
        }
    }
    files.sort_unstable();
    if files.is_empty() {
        into.push(Box::new(folder::Folder::open(path, images)?));
    }
    for file in files {
        into.push(open_file(&file, images)?);
    }
    Ok(())
}

fn open_file(path: &Path, images: &Images) -> Result<Box<dyn Pictures>> {
    if table::is_table(path) {
        return Ok(Box::new(table::open(path, images)?));
    }
    if idx::is_images(path) {
        return Ok(Box::new(idx::open(path, images)?));
    }
    bail!(
        "{} is no data for a swarm that learns pictures: name a folder with a subfolder for each class, an IDX file of \
         images (such as train-images-idx3-ubyte, its labels beside it), or a .csv file",
        path.display()
    )
}

/// A label outside the range, in words.
fn no_such_class(label: &str, place: &str, images: &Images) -> anyhow::Error {
    anyhow::anyhow!(
        "the label {label:?} of {place} is outside the range: the swarm's classes are {}; correct the label, or begin \
         a swarm with more classes",
        images.labels()
    )
}
