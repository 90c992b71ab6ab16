//! The tensors of a Hugging Face folder: `model.safetensors`, or several files with an index.
//!
//! A safetensors file is the length of a header (u64), the header (JSON: name, type, shape and place of each tensor)
//! and the numbers, little-endian, row-major (the format's own text: github.com/huggingface/safetensors). Headers are
//! read whole, numbers only as they are asked for.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, bail, ensure};
use half::{bf16, f16};
use safetensors::Dtype;
use safetensors::tensor::{Metadata, TensorInfo};
use serde::Deserialize;

use crate::store::read_limited;

/// The headers of models with a hundred billion parameters have less than a MiB.
const MAX_HEADER: u64 = 16 << 20;
/// As the headers; it names the tensors, too.
const MAX_INDEX: u64 = 16 << 20;
const SINGLE: &str = "model.safetensors";
const INDEX: &str = "model.safetensors.index.json";

/// All tensors of a folder.
pub(super) struct Weights {
    folder: PathBuf,
    files: Vec<Shard>,
    tensors: BTreeMap<String, (usize, TensorInfo)>,
    bytes: Vec<u8>,
}

/// One file.
struct Shard {
    path: PathBuf,
    file: File,
    /// Where its numbers begin.
    begin: u64,
}

/// `model.safetensors.index.json`: which file each tensor is in.
#[derive(Deserialize)]
struct Index {
    weight_map: BTreeMap<String, String>,
}

impl Weights {
    /// Opens the files of `folder` and reads their headers.
    ///
    /// # Errors
    /// No such files, or what is no safetensors file; the text names the file.
    pub(super) fn open(folder: &Path) -> Result<Self> {
        let mut all = Self {
            folder: folder.to_owned(),
            files: Vec::new(),
            tensors: BTreeMap::new(),
            bytes: Vec::new(),
        };
        if folder.join(SINGLE).exists() {
            let (shard, metadata) = Shard::open(folder.join(SINGLE))?;
            all.files.push(shard);
            all.tensors =
                metadata.tensors().into_iter().map(|(name, info)| (name, (0, info.clone()))).collect();
        } else if folder.join(INDEX).exists() {
            all.read_index(&folder.join(INDEX))?;
        } else {
            return Err(without_safetensors(folder));
        }
        Ok(all)
    }

    fn read_index(&mut self, path: &Path) -> Result<()> {
        let bytes = read_limited(path, MAX_INDEX)?;
        let index: Index = serde_json::from_slice(&bytes).map_err(|error| {
            anyhow!("{} is no index of tensors ({error}): fetch it again", path.display())
        })?;
        let mut headers: BTreeMap<String, (usize, Metadata)> = BTreeMap::new();
        for (tensor, name) in index.weight_map {
            // Only files of this folder, whatever the index says.
            let plain = Path::new(&name).file_name().is_some_and(|file| file.to_str() == Some(&name));
            ensure!(
                plain,
                "{}: the tensor {tensor} is said to be in {name:?}, which is no file name: fetch the index again",
                path.display()
            );
            if !headers.contains_key(&name) {
                let (shard, metadata) = Shard::open(self.folder.join(&name))?;
                headers.insert(name.clone(), (self.files.len(), metadata));
                self.files.push(shard);
            }
            let found =
                headers.get(&name).and_then(|(at, metadata)| Some((*at, metadata.info(&tensor)?.clone())));
            let found = found.with_context(|| {
                format!(
                    "{} has no tensor {tensor}, though {INDEX} says so: fetch both again",
                    self.folder.join(&name).display()
                )
            })?;
            self.tensors.insert(tensor, found);
        }
        Ok(())
    }

    /// The names of all tensors.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.tensors.keys().map(String::as_str)
    }

    /// Whether there is such a tensor.
    pub(super) fn has(&self, name: &str) -> bool {
        self.tensors.contains_key(name)
    }

    /// Fails unless the tensor `name` is there, with this shape, in a number format that can be read.
    ///
    /// # Errors
    /// What is wrong with it, with its file.
    pub(super) fn check(&self, name: &str, shape: &[usize]) -> Result<()> {
        let (file, info) = self.tensors.get(name).with_context(|| {
            format!("{} has no tensor {name}, which its config.json asks for", self.folder.display())
        })?;
        let path = self.path_of(*file);
        ensure!(
            info.shape == shape,
            "{path}: the tensor {name} has the shape {:?}, but {shape:?} follows from config.json: they are not of \
             the same model",
            info.shape
        );
        ensure!(
            matches!(info.dtype, Dtype::F32 | Dtype::F16 | Dtype::BF16),
            "{path}: the tensor {name} is of type {:?}: convert it to F32, F16 or BF16",
            info.dtype
        );
        Ok(())
    }

    /// The file that the tensor `name` is in, for messages.
    pub(super) fn file_of(&self, name: &str) -> String {
        self.tensors
            .get(name)
            .map_or_else(|| self.folder.display().to_string(), |(file, _)| self.path_of(*file))
    }

    fn path_of(&self, file: usize) -> String {
        self.files.get(file).map_or_else(String::new, |shard| shard.path.display().to_string())
    }

    /// Reads the scalars of the tensor `name` from number `start` on, row-major, as many as `out` is long.
    ///
    /// # Errors
    /// A tensor that does not have them, or a file that cannot be read.
    pub(super) fn read(&mut self, name: &str, start: usize, out: &mut [f32]) -> Result<()> {
        let (file, info) = self.tensors.get(name).with_context(|| format!("no tensor {name}"))?;
        let width = info.dtype.bitsize() / 8;
        let (first, end) = info.data_offsets;
        let bytes = first + start * width..first + (start + out.len()) * width;
        let shard = self.files.get_mut(*file).filter(|_| bytes.end <= end);
        let shard = shard.with_context(|| format!("the tensor {name} is too short"))?;
        self.bytes.resize(bytes.len(), 0);
        shard
            .file
            .seek(SeekFrom::Start(shard.begin + bytes.start as u64))
            .and_then(|_| shard.file.read_exact(&mut self.bytes))
            .with_context(|| format!("cannot read the tensor {name} in {}", shard.path.display()))?;
        let pairs = || self.bytes.chunks_exact(2).map(|bytes| [bytes[0], bytes[1]]);
        match info.dtype {
            Dtype::F32 => {
                for (out, bytes) in out.iter_mut().zip(self.bytes.chunks_exact(4)) {
                    *out = f32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
                }
            }
            Dtype::F16 => {
                out.iter_mut().zip(pairs()).for_each(|(out, two)| *out = f16::from_le_bytes(two).to_f32())
            }
            Dtype::BF16 => {
                out.iter_mut().zip(pairs()).for_each(|(out, two)| *out = bf16::from_le_bytes(two).to_f32())
            }
            other => bail!("the tensor {name} is of type {other:?}"),
        }
        Ok(())
    }
}

impl Shard {
    fn open(path: PathBuf) -> Result<(Self, Metadata)> {
        let mut file = File::open(&path).with_context(|| format!("cannot open {}", path.display()))?;
        let (begin, metadata) = header(&mut file).with_context(|| format!("{}", path.display()))?;
        Ok((Self { path, file, begin }, metadata))
    }
}

/// The header of a safetensors file, and where its numbers begin. Nothing is allocated that the file is too short for.
fn header(file: &mut File) -> Result<(u64, Metadata)> {
    let again = "fetch it again";
    let total = file.metadata().context("cannot read it")?.len();
    let mut length = [0; 8];
    file.read_exact(&mut length).map_err(|_| anyhow!("it is too short for a safetensors file: {again}"))?;
    // A zip archive, or the pickle protocols 2 to 5.
    if length.starts_with(b"PK\x03\x04")
        || (length[0] == 0x80 && (2..=5).contains(&length[1]) && length[7] != 0)
    {
        bail!("it is a pickle under another name, which can run code: convert it to safetensors");
    }
    let length = u64::from_le_bytes(length);
    ensure!(
        length <= MAX_HEADER && length <= total.saturating_sub(8),
        "its header claims {length} bytes, but the file has {total} and a header at most {MAX_HEADER}: it is damaged \
         or no safetensors file; {again}"
    );
    let mut bytes = vec![0; length as usize];
    file.read_exact(&mut bytes).context("cannot read its header")?;
    let metadata: Metadata = serde_json::from_slice(&bytes)
        .map_err(|error| anyhow!("its header is no safetensors header ({error}): it is damaged; {again}"))?;
    let begin = 8 + length;
    let wanted = begin.saturating_add(metadata.data_len() as u64);
    ensure!(
        wanted == total,
        "it has {total} bytes, but its header describes {wanted}: it was cut short or is damaged; {again}"
    );
    Ok((begin, metadata))
}

/// Why a folder without safetensors files cannot be used.
fn without_safetensors(folder: &Path) -> anyhow::Error {
    let pickled = |name: &String| {
        let name = name.to_lowercase();
        ["bin", "pt", "pth", "ckpt"].iter().any(|end| name.ends_with(&format!(".{end}")))
    };
    let mut names: Vec<String> = std::fs::read_dir(folder)
        .into_iter()
        .flatten()
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter(pickled)
        .collect();
    names.sort_unstable();
    match names.first() {
        Some(name) => anyhow!(
            "{} is a pickle and is not read, because it can run code: convert it to safetensors (in Python: \
             model.save_pretrained(FOLDER) of transformers)",
            folder.join(name).display()
        ),
        None => {
            anyhow!("{} has neither {SINGLE} nor {INDEX}: put the model's weights there", folder.display())
        }
    }
}
