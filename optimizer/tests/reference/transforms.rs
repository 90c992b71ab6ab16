//! Transform vectors and the table of chunk lengths.

use std::path::Path;

use swarm_optimizer::dct::{Dct, Real, TileDct};
use swarm_optimizer::demo::chunk_length;

use crate::compare::{Outcome, Place};
use crate::files::Archive;

/// Largest absolute difference, for inputs of unit variance.
const F64_TOLERANCE: f64 = 1e-12;
const F32_TOLERANCE: f64 = 5e-6;

/// `n<len>/x` holds lines of that length, `h<rows>w<cols>/x` one tile.
fn size(group: &str) -> Option<(Option<usize>, usize)> {
    if let Some(length) = group.strip_prefix('n') {
        return Some((None, length.parse().ok()?));
    }
    let (rows, cols) = group.strip_prefix('h')?.split_once('w')?;
    Some((Some(rows.parse().ok()?), cols.parse().ok()?))
}

/// The DCT-II and the DCT-III of each line or of the tile.
fn transform<T: Real>(rows: Option<usize>, cols: usize, x: &[T]) -> [Vec<T>; 2] {
    let (mut forward, mut inverse) = (x.to_vec(), x.to_vec());
    match rows {
        None => {
            let mut dct = Dct::new(cols);
            forward.chunks_exact_mut(cols).for_each(|line| dct.forward(line));
            inverse.chunks_exact_mut(cols).for_each(|line| dct.inverse(line));
        }
        Some(rows) => {
            let mut dct = TileDct::new(rows, cols);
            dct.forward(&mut forward);
            dct.inverse(&mut inverse);
        }
    }
    [forward, inverse]
}

pub(crate) fn check_vectors(archive: &Archive<'_>) -> Result<Outcome, String> {
    let mut outcome = Outcome::default();
    for name in archive.names() {
        let Some(group) = name.strip_suffix("/x") else { continue };
        let (rows, cols) = size(group).ok_or_else(|| format!("{name}: neither n<len> nor h<rows>w<cols>"))?;
        let shape = archive.shape(name)?;
        if shape.last() != Some(&cols) || cols == 0 || rows.is_some_and(|rows| shape != [rows, cols]) {
            return Err(format!("{name}: shape {shape:?} does not fit its name"));
        }
        let x = archive.f32(name, &shape)?;
        let wide: Vec<f64> = x.iter().map(|&x| f64::from(x)).collect();
        let kinds = ["dct2", "dct3"];
        for (kind, got) in kinds.iter().zip(transform(rows, cols, &wide)) {
            let tensor = format!("{group}/{kind}_f64");
            let want = archive.f64(&tensor, &shape)?;
            let pairs = got.into_iter().zip(want).map(|(got, want)| (got, want, F64_TOLERANCE));
            outcome.compare(Place { tensor, step: None, worker: None }, pairs);
        }
        for (kind, got) in kinds.iter().zip(transform(rows, cols, &x)) {
            let tensor = format!("{group}/{kind}_f32");
            let want = archive.f32(&tensor, &shape)?;
            let pairs = got.into_iter().zip(want).map(|(got, want)| (got.into(), want.into(), F32_TOLERANCE));
            outcome.compare(Place { tensor, step: None, worker: None }, pairs);
        }
    }
    if outcome.values == 0 {
        return Err("neither a recorded run (no `config`) nor transform vectors (no n<len>/x)".into());
    }
    Ok(outcome)
}

/// A table with header `n,c<target>,c<target>,..`: the chunk length for each dimension and target.
pub(crate) fn check_chunk_lengths(path: &Path) -> Result<Outcome, String> {
    let mut table = csv::Reader::from_path(path).map_err(|why| why.to_string())?;
    let header = table.headers().map_err(|why| why.to_string())?.clone();
    let targets = header.iter().skip(1).map(|name| {
        name.strip_prefix('c')
            .and_then(|target| target.parse().ok())
            .ok_or("its header is not n,c<target>,..")
    });
    let targets: Vec<usize> = targets.collect::<Result<_, _>>()?;
    let mut outcome = Outcome::default();
    for record in table.records() {
        let record = record.map_err(|why| why.to_string())?;
        let cells: Result<Vec<usize>, _> = record.iter().map(str::parse).collect();
        let cells = cells.map_err(|why| format!("row {record:?}: {why}"))?;
        let (n, lengths) = cells.split_first().ok_or("an empty row")?;
        let pairs = targets.iter().zip(lengths);
        let pairs = pairs.map(|(&target, &want)| (chunk_length(*n, target) as f64, want as f64, 0.0));
        outcome.compare(Place { tensor: format!("n = {n}"), step: None, worker: None }, pairs);
    }
    if outcome.values == 0 { Err("an empty table".into()) } else { Ok(outcome) }
}
