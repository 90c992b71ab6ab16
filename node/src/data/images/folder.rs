//! A folder with a subfolder for each class, called by the class' name or number, in it PNG or JPEG files.
//!
//! When it is opened only the files' headers are read, for their size. A picture is decoded when it is drawn, and
//! stays decoded while there is room: pictures are drawn at random, so that none is likelier to come again than
//! another, and throwing one out for the next would gain nothing.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use anyhow::{Context, Result, anyhow, bail, ensure};
use image::{ImageReader, Limits};
use swarm_protocol::architecture::Images;
use walkdir::WalkDir;

use super::{MAX_PICTURES, Pictures};

/// Most bytes of pictures that stay decoded.
const CACHE: usize = 256 << 20;
/// Most bytes that decoding one picture may take besides the picture.
const DECODER: u64 = 64 << 20;
/// Deepest folder within a class.
const DEEPEST: usize = 16;

/// Pictures in files of their own.
#[derive(Debug)]
pub(super) struct Folder {
    root: PathBuf,
    images: Images,
    /// Relative to the root.
    files: Vec<PathBuf>,
    labels: Vec<u16>,
    decoded: Mutex<HashMap<usize, Box<[u8]>>>,
    unreadable: Option<(usize, String)>,
}

impl Folder {
    /// Finds the pictures.
    pub(super) fn open(root: &Path, images: &Images) -> Result<Self> {
        let shown = root.display();
        let mut folder = Self {
            root: root.to_owned(),
            images: images.clone(),
            files: Vec::new(),
            labels: Vec::new(),
            decoded: Mutex::default(),
            unreadable: None,
        };
        let listed = std::fs::read_dir(root).and_then(|entries| entries.collect::<Result<Vec<_>, _>>());
        let listed = listed.with_context(|| format!("cannot list {shown}"))?;
        let mut classes: Vec<PathBuf> = listed.into_iter().map(|entry| entry.path()).collect();
        classes.retain(|path| path.is_dir() && !is_hidden(path));
        classes.sort_unstable();
        ensure!(
            !classes.is_empty(),
            "{shown} has no pictures: it needs a subfolder with PNG or JPEG files for each class ({})",
            images.labels()
        );
        for path in classes {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let class = images.class(&name).and_then(|class| u16::try_from(class).ok());
            let class = class.ok_or_else(|| {
                anyhow!(
                    "the folder {} is called like no class of the swarm ({}): rename it, or move it away",
                    path.display(),
                    images.labels()
                )
            })?;
            folder.add(&path, class)?;
        }
        Ok(folder)
    }

    /// Adds the pictures of a class.
    fn add(&mut self, class_folder: &Path, class: u16) -> Result<()> {
        let before = self.files.len();
        let walk = WalkDir::new(class_folder).max_depth(DEEPEST).sort_by_file_name().into_iter();
        for entry in walk.filter_entry(|entry| entry.depth() == 0 || !is_hidden(entry.path())) {
            let path = match entry {
                Ok(entry) if entry.path().is_file() => entry.into_path(),
                Ok(_) => continue,
                Err(error) => {
                    let path = error.path().unwrap_or(class_folder).to_owned();
                    self.pass_over(&path, error);
                    continue;
                }
            };
            match image::image_dimensions(&path) {
                Err(error) => self.pass_over(&path, error),
                Ok((width, height)) => {
                    self.check(&path, width, height)?;
                    ensure!(
                        self.files.len() < MAX_PICTURES,
                        "more than {MAX_PICTURES} pictures below {}: name a narrower folder",
                        self.root.display()
                    );
                    self.files.push(path.strip_prefix(&self.root).unwrap_or(&path).to_owned());
                    self.labels.push(class);
                }
            }
        }
        if self.files.len() == before {
            let why = self.unreadable.as_ref().map(|(_, first)| format!(" ({first})")).unwrap_or_default();
            bail!(
                "the folder {} has no picture that can be read{why}: put PNG or JPEG files of its class into it, or \
                 remove it",
                class_folder.display()
            );
        }
        Ok(())
    }

    /// Fails unless a picture has the swarm's size.
    fn check(&self, path: &Path, width: u32, height: u32) -> Result<()> {
        let images = &self.images;
        ensure!(
            (width, height) == (images.width, images.height),
            "{} is {width} pixels wide and {height} high, but the swarm learns pictures {} wide and {} high: scale it, \
             or move it away",
            path.display(),
            images.width,
            images.height
        );
        Ok(())
    }

    fn pass_over(&mut self, path: &Path, reason: impl std::fmt::Display) {
        let (count, _) = self.unreadable.get_or_insert_with(|| (0, format!("{}: {reason}", path.display())));
        *count += 1;
    }

    /// Decodes a file.
    fn decode(&self, path: &Path) -> Result<Box<[u8]>> {
        let mut reader = ImageReader::open(path)?.with_guessed_format()?;
        let mut limits = Limits::default();
        limits.max_image_width = Some(self.images.width);
        limits.max_image_height = Some(self.images.height);
        limits.max_alloc = Some(DECODER + 8 * self.images.numbers() as u64);
        reader.limits(limits);
        let picture = reader.decode()?;
        self.check(path, picture.width(), picture.height())?;
        Ok(match self.images.channels {
            1 => picture.into_luma8().into_raw(),
            _ => picture.into_rgb8().into_raw(),
        }
        .into())
    }
}

impl Pictures for Folder {
    fn labels(&self) -> &[u16] {
        &self.labels
    }

    fn name(&self, at: usize) -> String {
        self.files.get(at).map(|file| file.to_string_lossy().into_owned()).unwrap_or_default()
    }

    fn read(&self, at: usize, out: &mut [u8]) -> Result<()> {
        let mut decoded = self.decoded.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(picture) = decoded.get(&at) {
            out.copy_from_slice(picture);
            return Ok(());
        }
        let path = self.root.join(self.files.get(at).context("a picture that is not there")?);
        let picture = self.decode(&path).with_context(|| format!("cannot read {}", path.display()))?;
        ensure!(picture.len() == out.len(), "{} has another size than it had", path.display());
        out.copy_from_slice(&picture);
        if decoded.len() * out.len() < CACHE {
            decoded.insert(at, picture);
        }
        Ok(())
    }

    fn unreadable(&self) -> Option<(usize, &str)> {
        self.unreadable.as_ref().map(|(count, first)| (*count, first.as_str()))
    }
}

fn is_hidden(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."))
}
