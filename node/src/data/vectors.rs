//! Rows of numbers from CSV files: a model's inputs, then what belongs to them.
//!
//! A row has the inputs, and after them the class (a whole number) or the outputs. A first line of headings is passed
//! over. The rows are unpacked into a temporary file when they are opened, and read from there when they are drawn.
//! Which rows are held out of training follows from their place alone.

use std::fs::File;
use std::io::{BufRead, BufReader, BufWriter, Read, Seek, SeekFrom, Write};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use anyhow::{Context, Result, bail, ensure};
use swarm_protocol::architecture::Vectors;
use tch::{Kind, Tensor};

use super::examples::is_held_out;
use super::{Examples, Sampler, TestSet};
use crate::model::Batch;

/// Most rows of one node.
const MAX_ROWS: u64 = 1 << 28;
/// Most numbers of one batch.
const MAX_BATCH: usize = 1 << 29;
/// Most bytes of a number, its comma and spaces included.
const LONGEST_NUMBER: usize = 40;
/// Most bytes of a row's first and last fields together beyond that.
const SLACK: usize = 256;

/// The user's rows.
#[derive(Debug)]
pub(crate) struct VectorExamples {
    vectors: Vectors,
    /// f32, inputs then targets, row after row.
    rows: Mutex<File>,
    training: Vec<u32>,
    held_out: Vec<u32>,
}

impl VectorExamples {
    /// Opens the rows of these files, and holds a share of them back.
    ///
    /// # Errors
    /// Nothing there, or not what the genesis says, in words that say what to do.
    pub(crate) fn open(paths: &[PathBuf], vectors: Vectors, held_out_fraction: f64) -> Result<Self> {
        let mut opened = Self::test_set(paths, vectors)?;
        let all = std::mem::take(&mut opened.held_out);
        for row in all {
            let part = if is_held_out(&row.to_string(), held_out_fraction)? {
                &mut opened.held_out
            } else {
                &mut opened.training
            };
            part.push(row);
        }
        for (part, have) in [("training", opened.training.len()), ("held-out", opened.held_out.len())] {
            ensure!(
                have > 0,
                "too few rows: none of {} falls into the {part} part; add rows, or change the held-out share \
                 ({held_out_fraction})",
                opened.training.len() + opened.held_out.len()
            );
        }
        Ok(opened)
    }

    /// Opens rows to be measured on, all of them.
    ///
    /// # Errors
    /// As [`VectorExamples::open`].
    pub(crate) fn test_set(paths: &[PathBuf], vectors: Vectors) -> Result<Self> {
        let file = tempfile::tempfile().context("no temporary file to unpack rows into")?;
        let mut out = BufWriter::new(file);
        let mut count = 0u64;
        for path in paths {
            for file in tables(path)? {
                read(&file, vectors, &mut out, &mut count)?;
            }
        }
        ensure!(count > 0, "no rows in the data: a row has {}", described(vectors));
        let file = out.into_inner().context("cannot write a temporary file; is there space?")?;
        let held_out = (0..u32::try_from(count)?).collect();
        Ok(Self { vectors, rows: Mutex::new(file), training: Vec::new(), held_out })
    }

    /// What there is, in words.
    pub(crate) fn summary(&self) -> String {
        let all = self.training.len() + self.held_out.len();
        format!("{all} rows ({} held out), each {}", self.held_out.len(), described(self.vectors))
    }

    /// These rows as a batch.
    fn batch(&self, rows: &[u32]) -> Result<Batch> {
        let width = width(self.vectors);
        let length = rows.len().checked_mul(width).filter(|length| *length <= MAX_BATCH);
        let length = length.context("the batch is too large: take fewer rows")?;
        let mut bytes = vec![0; length * size_of::<f32>()];
        let mut file = self.rows.lock().unwrap_or_else(PoisonError::into_inner);
        for (row, out) in rows.iter().zip(bytes.chunks_exact_mut(width * size_of::<f32>())) {
            file.seek(SeekFrom::Start(u64::from(*row) * out.len() as u64))?;
            file.read_exact(out).context("cannot read the temporary file of rows")?;
        }
        let values: Vec<f32> =
            bytes.as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect();
        let all = Tensor::f_from_slice(&values)?.f_view([rows.len() as i64, width as i64])?;
        let inputs = i64::from(self.vectors.inputs);
        let targets = all.f_narrow(1, inputs, width as i64 - inputs)?;
        let targets = if self.vectors.classes {
            targets.f_select(1, 0)?.f_to_kind(Kind::Int64)?
        } else {
            targets.f_contiguous()?
        };
        Ok(Batch { inputs: all.f_narrow(1, 0, inputs)?.f_contiguous()?, targets })
    }
}

impl TestSet for VectorExamples {
    fn len(&self) -> u64 {
        self.held_out.len() as u64
    }

    fn read(&self, which: Range<u64>, count: u64) -> Result<Batch> {
        let place = |number: u64| {
            let at = u128::from(number) * self.held_out.len() as u128 / u128::from(count.max(1));
            usize::try_from(at).ok().and_then(|at| self.held_out.get(at).copied())
        };
        let rows: Option<Vec<u32>> = which.map(place).collect();
        self.batch(&rows.context("a row that is not there")?)
    }

    /// A row has one target, so it takes many of them.
    fn examples_a_window(&self) -> u64 {
        8
    }

    fn amount(&self) -> String {
        format!("{} rows", self.held_out.len())
    }
}

impl Examples for VectorExamples {
    fn draw(&mut self, sampler: &mut Sampler, count: usize) -> Result<Batch> {
        ensure!(count <= MAX_BATCH, "the batch is too large: take fewer rows");
        let length = self.training.len() as u64;
        let rows: Vec<u32> = (0..count).map(|_| self.training[sampler.below(length) as usize]).collect();
        self.batch(&rows)
    }

    fn as_test_set(&self) -> &dyn TestSet {
        self
    }

    fn targets(&self) -> u64 {
        1
    }

    fn failed_reads(&self) -> u64 {
        0
    }
}

/// Numbers of a row.
fn width(vectors: Vectors) -> usize {
    vectors.inputs as usize + if vectors.classes { 1 } else { vectors.outputs as usize }
}

/// A row in words.
fn described(vectors: Vectors) -> String {
    let Vectors { inputs, outputs, classes } = vectors;
    let target =
        if classes { format!("a class from 0 to {}", outputs - 1) } else { format!("{outputs} outputs") };
    format!("{inputs} inputs and {target}")
}

/// The tables at `path`: itself, or those in the folder.
fn tables(path: &Path) -> Result<Vec<PathBuf>> {
    let failed = || format!("cannot open the data path {}", path.display());
    if !std::fs::metadata(path).with_context(failed)?.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let mut files = Vec::new();
    for entry in std::fs::read_dir(path).with_context(failed)? {
        let file = entry.with_context(failed)?.path();
        if file.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("csv")) {
            files.push(file);
        }
    }
    ensure!(!files.is_empty(), "{} has no .csv file", path.display());
    files.sort_unstable();
    Ok(files)
}

/// Appends the rows of a table to `out`.
fn read(path: &Path, vectors: Vectors, out: &mut impl Write, count: &mut u64) -> Result<()> {
    let shown = path.display();
    let width = width(vectors);
    let longest = SLACK + LONGEST_NUMBER * width;
    let mut lines = BufReader::new(File::open(path).with_context(|| format!("cannot open {shown}"))?);
    let (mut line, mut values) = (Vec::new(), Vec::with_capacity(width));
    for number in 1u64.. {
        line.clear();
        let read = lines.by_ref().take(longest as u64 + 1).read_until(b'\n', &mut line);
        if read.with_context(|| format!("cannot read line {number} of {shown}"))? == 0 {
            break;
        }
        let place = || format!("line {number} of {shown}");
        ensure!(
            line.len() <= longest,
            "{} is longer than {}: is it a table of such rows?",
            place(),
            described(vectors)
        );
        let text = std::str::from_utf8(&line).with_context(|| format!("{} is no text", place()))?.trim();
        if text.is_empty() {
            continue;
        }
        values.clear();
        let mut wrong = None;
        for field in text.split(',').map(str::trim) {
            match field.parse::<f32>() {
                Ok(value) if value.is_finite() => values.push(value),
                _ => wrong = wrong.or(Some(field)),
            }
        }
        if number == 1 && values.is_empty() {
            continue;
        }
        if let Some(field) = wrong {
            bail!("{}: {field:?} is no finite number", place());
        }
        ensure!(
            values.len() == width,
            "{} has {} numbers, but the swarm's model needs {} ({width})",
            place(),
            values.len(),
            described(vectors)
        );
        let class = values[width - 1];
        ensure!(
            !vectors.classes || class >= 0.0 && class < vectors.outputs as f32 && class.fract() == 0.0,
            "{}: the label {class} is outside the range: the swarm's classes are 0 to {}; correct it, or begin a swarm \
             with more classes",
            place(),
            vectors.outputs - 1
        );
        *count += 1;
        ensure!(*count <= MAX_ROWS, "{shown}: more than {MAX_ROWS} rows are too many");
        let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        out.write_all(&bytes).context("cannot write a temporary file; is there space?")?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use tempfile::TempDir;

    const CLASSES: Vectors = Vectors { inputs: 2, outputs: 3, classes: true };
    const NUMBERS: Vectors = Vectors { inputs: 2, outputs: 1, classes: false };

    fn table(dir: &TempDir, text: &str) -> [PathBuf; 1] {
        let path = dir.path().join("rows.csv");
        std::fs::write(&path, text).unwrap();
        [path]
    }

    #[test]
    fn rows_become_inputs_and_targets() {
        let dir = TempDir::new().unwrap();
        let paths = table(&dir, "a,b,class\n0.5,-1e3,2\n\n4, 5 ,0\r\n");
        for paths in [&paths[..], &[dir.path().to_owned()]] {
            let set = VectorExamples::test_set(paths, CLASSES).unwrap();
            let batch = set.read(0..2, 2).unwrap();
            assert_eq!((batch.inputs.size(), batch.targets.size()), (vec![2, 2], vec![2]));
            assert_eq!(batch.inputs.double_value(&[0, 1]), -1000.0);
            assert_eq!(batch.targets.int64_value(&[0]), 2);
            let set = VectorExamples::test_set(paths, NUMBERS).unwrap();
            let batch = set.read(0..2, 2).unwrap();
            assert_eq!((batch.targets.size(), batch.targets.kind()), (vec![2, 1], Kind::Float));
        }
    }

    #[test]
    fn what_is_held_out_is_never_drawn() {
        let dir = TempDir::new().unwrap();
        let text: String = (0..500).map(|at| format!("{at},0,1\n")).collect();
        let mut rows = VectorExamples::open(&table(&dir, &text), CLASSES, 0.1).unwrap();
        assert!((25..100).contains(&rows.len()), "{}", rows.summary());
        let held_out = rows.held_out.clone();
        let batch = rows.draw(&mut Sampler::new(1), 2000).unwrap();
        for at in 0..2000 {
            let row = batch.inputs.double_value(&[at, 0]) as u32;
            assert!(!held_out.contains(&row));
        }
        let error = VectorExamples::open(&table(&dir, "1,2,0\n"), CLASSES, 0.1).unwrap_err().to_string();
        assert!(error.contains("too few rows"), "{error}");
    }

    #[test]
    fn wrong_rows_are_refused_in_a_sentence() {
        let dir = TempDir::new().unwrap();
        for (text, vectors, words) in [
            ("1,2,0\n1,2,3\n", CLASSES, &["line 2 of", "the label 3 is outside the range", "0 to 2"][..]),
            ("1,2,0.5\n", CLASSES, &["the label 0.5"]),
            ("1,2\n", CLASSES, &["line 1 of", "has 2 numbers", "2 inputs and a class from 0 to 2 (3)"]),
            ("1,2,x\n", NUMBERS, &["\"x\" is no finite number"]),
            ("1,nan,1\n", NUMBERS, &["\"nan\" is no finite number"]),
            ("a,b,c\n", NUMBERS, &["no rows in the data", "2 inputs and 1 outputs"]),
        ] {
            let error = VectorExamples::test_set(&table(&dir, text), vectors).unwrap_err().to_string();
            assert!(words.iter().all(|word| error.contains(word)), "{text:?}: {error}");
        }
        let long = table(&dir, &"1".repeat(10_000));
        let error = VectorExamples::test_set(&long, NUMBERS).unwrap_err().to_string();
        assert!(error.contains("line 1 of") && error.contains("longer than"), "{error}");
    }
}
