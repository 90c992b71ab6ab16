//! The work on tiles: what moved into R, R's largest out of it, C - R into the model; one pass over memory each.
//!
//! A tile of 64 x 64 scalars is 16 KiB, so everything that happens to it happens while it is in the first-level
//! cache: its displacement is transformed by columns, transposed, transformed by rows and added to R; then the
//! largest of R are found, quantised and taken out, all before the next tile is touched. Sides that are powers of
//! two take the fast transform ([`crate::dct::lee`]) in the machine's longest vectors ([`Path`]); ragged tiles and
//! vectors take [`TileDct`].
//!
//! Tiles are independent of each other, so the result does not depend on the number of threads, bit for bit. A
//! thread takes whole *bands*: a band is one row of tiles of one parameter, the smallest piece that is contiguous
//! in parameter order as well as in coefficient order.

#[cfg(test)]
mod tests;
mod tile;

use std::ops::Range;

use pulp::Scalar128b;

use crate::coefficients::Coefficients;
use crate::dct::TileDct;
use crate::dct::lee::Factors;
use crate::lanes::Lanes;
pub use crate::lanes::Path;
use crate::layout::{Layout, Tile};
use crate::sparse::SparseDelta;
use crate::topk::Selector;

/// The kernels for one layout, with the memory they work in. Nothing is allocated after the first pass.
pub struct Kernels {
    path: Path,
    pool: Option<rayon::ThreadPool>,
    parts: Vec<Part>,
}

/// Why there are no [`Kernels`]: the system gives no threads.
#[derive(Debug, thiserror::Error)]
#[error("cannot start {threads} threads for the optimizer: {source}; allow fewer (--threads)")]
pub struct NoThreads {
    threads: usize,
    source: rayon::ThreadPoolBuildError,
}

/// A run of whole bands, and one thread's memory for it.
struct Part {
    tiles: Range<usize>,
    /// Its scalars, the same in both orders.
    scalars: Range<usize>,
    work: Work,
}

/// What a thread works in.
struct Work {
    factors: Factors,
    plans: Vec<((usize, usize), TileDct<f32>)>,
    /// Tiles that lie side by side, and one on its way from columns to rows.
    staged: Buffer,
    turned: Buffer,
    selector: Selector,
    /// What came of the pass: what was taken out of R, ...
    delta: SparseDelta,
    /// ... the sum of squares of what moved, a tile each, ...
    squares: Vec<f64>,
    /// ... and the first tile that moved by something not finite.
    bad: Option<usize>,
}

/// Memory whose vectors do not straddle two cache lines.
struct Buffer(Vec<f32>);

impl Buffer {
    /// A cache line, in scalars.
    const LINE: usize = 16;

    fn new(len: usize) -> Self {
        Self(vec![0.0; len + Self::LINE])
    }

    /// The first `len` scalars; no more than there are.
    fn get(&mut self, len: usize) -> &mut [f32] {
        let skip = self.0.as_ptr().align_offset(Self::LINE * size_of::<f32>()).min(Self::LINE);
        &mut self.0[skip..skip + len]
    }
}

/// What a pass over R does.
#[derive(Clone, Copy)]
pub(crate) struct Pass<'a> {
    /// The parameters before and after local training, if there was any.
    pub(crate) moved: Option<(&'a [f32], &'a [f32])>,
    /// Take the `k` largest out, up to a value of `2^max_exponent` units.
    pub(crate) extract: Option<(usize, u8)>,
}

impl Kernels {
    /// Plans for `layout`, with the fastest instructions of this machine and at most `threads` threads (0 counts
    /// as 1).
    ///
    /// # Errors
    /// [`NoThreads`] if the system refuses.
    pub fn new(layout: &Layout, threads: usize) -> Result<Self, NoThreads> {
        Self::with_path(layout, threads, Path::best(layout.side()))
    }

    /// As [`Kernels::new`] with one thread, the caller's, which cannot fail.
    pub fn single(layout: &Layout) -> Self {
        let path = Path::best(layout.side());
        Self { path, pool: None, parts: cut(layout, 1, path.lanes()) }
    }

    /// As [`Kernels::new`], in the instructions of `path`.
    ///
    /// # Errors
    /// As [`Kernels::new`].
    pub fn with_path(layout: &Layout, threads: usize, path: Path) -> Result<Self, NoThreads> {
        let threads = threads.clamp(1, bands(layout).count());
        let build = || rayon::ThreadPoolBuilder::new().num_threads(threads).build();
        let pool = (threads > 1).then(build).transpose();
        let pool = pool.map_err(|source| NoThreads { threads, source })?;
        // Several parts a thread, so that one that is held up does not hold up the others.
        let parts = if threads == 1 { 1 } else { 4 * threads };
        Ok(Self { path, pool, parts: cut(layout, parts, path.lanes()) })
    }

    /// The vector instructions in use.
    pub fn path(&self) -> Path {
        self.path
    }

    /// Threads in use.
    pub fn threads(&self) -> usize {
        self.pool.as_ref().map_or(1, rayon::ThreadPool::current_num_threads)
    }

    /// Runs `pass` over R; returns the sum of squares of what moved, or the first tile that moved by something
    /// that is not finite. What is taken out of R is appended to `delta`. After an error R may have changed: see
    /// [`Kernels::undo`].
    pub(crate) fn advance(
        &mut self,
        layout: &Layout,
        residual: &mut [f32],
        pass: Pass<'_>,
        delta: &mut SparseDelta,
    ) -> Result<f64, usize> {
        let path = self.path;
        self.each(residual, |part, residual| run(path, layout, part, Task::Advance { residual, pass }));
        for part in &self.parts {
            delta.append(&part.work.delta);
        }
        match self.parts.iter().find_map(|part| part.work.bad) {
            Some(tile) => Err(tile),
            None => Ok(self.parts.iter().flat_map(|part| &part.work.squares).sum()),
        }
    }

    /// Writes the inverse transform of C - R (of C, without R) into `out`, where `only` says so.
    pub(crate) fn model(
        &mut self,
        layout: &Layout,
        shared: &Coefficients,
        residual: Option<&[f32]>,
        only: Option<&[bool]>,
        out: &mut [f32],
    ) {
        let path = self.path;
        let shared = shared.values();
        self.each(out, |part, out| run(path, layout, part, Task::Model { shared, residual, only, out }));
    }

    /// Runs `work` on every part with its scalars of `all`.
    fn each(&mut self, all: &mut [f32], work: impl Fn(&mut Part, &mut [f32]) + Sync) {
        let parts = &mut self.parts[..];
        match &self.pool {
            Some(pool) => pool.install(|| split(parts, all, &work)),
            None => split(parts, all, &work),
        }
    }
}

/// Halves the parts until one is left. (Joins, unlike spawned tasks, allocate nothing.)
fn split(parts: &mut [Part], all: &mut [f32], work: &(impl Fn(&mut Part, &mut [f32]) + Sync)) {
    match parts {
        [] => {}
        [part] => work(part, all),
        parts => {
            let (left, right) = parts.split_at_mut(parts.len() / 2);
            let first = left.first().map_or(0, |part| part.scalars.start);
            let middle = right.first().map_or(0, |part| part.scalars.start) - first;
            let (all_left, all_right) = all.split_at_mut(middle);
            rayon::join(|| split(left, all_left, work), || split(right, all_right, work));
        }
    }
}

/// The bands of `layout`, in order: runs of tiles.
fn bands(layout: &Layout) -> impl Iterator<Item = Range<usize>> + '_ {
    layout.parameters().iter().flat_map(move |place| {
        let wide = place.shape.1.div_ceil(layout.side());
        place.tiles.clone().step_by(wide).map(move |first| first..first + wide)
    })
}

/// At most `parts` runs of bands of about the same size, to be worked on in vectors of `lanes`.
fn cut(layout: &Layout, parts: usize, lanes: usize) -> Vec<Part> {
    let tiles = layout.tiles();
    let start = |tile: usize| tiles.get(tile).map_or(layout.len(), |tile| tile.offset);
    let mut cut: Vec<Part> = Vec::new();
    let mut first = 0;
    for band in bands(layout) {
        let share = layout.len() * (cut.len() + 1) / parts;
        if band.end == tiles.len() || start(band.end) >= share {
            let work = Work::new(layout, &tiles[first..band.end], lanes);
            cut.push(Part { tiles: first..band.end, scalars: start(first)..start(band.end), work });
            first = band.end;
        }
    }
    cut
}

impl Work {
    fn new(layout: &Layout, tiles: &[Tile], lanes: usize) -> Self {
        let area = layout.side() * layout.side();
        let mut plans: Vec<((usize, usize), TileDct<f32>)> = Vec::new();
        for tile in tiles.iter().filter(|tile| !tile::is_fast(tile, lanes)) {
            let shape = (tile.rows, tile.cols);
            if plans.iter().all(|(planned, _)| *planned != shape) {
                plans.push((shape, TileDct::new(tile.rows, tile.cols)));
            }
        }
        Self {
            factors: Factors::new(),
            plans,
            staged: Buffer::new(area * tile::SIDE_BY_SIDE.min(tiles.len())),
            turned: Buffer::new(area),
            selector: Selector::default(),
            delta: SparseDelta::default(),
            squares: Vec::with_capacity(tiles.len()),
            bad: None,
        }
    }
}

/// What is to be done with a part.
enum Task<'a, 'b> {
    Advance { residual: &'b mut [f32], pass: Pass<'a> },
    Model { shared: &'a [i32], residual: Option<&'a [f32]>, only: Option<&'a [bool]>, out: &'b mut [f32] },
}

fn run(path: Path, layout: &Layout, part: &mut Part, task: Task<'_, '_>) {
    match path {
        Path::Portable => run_with(Scalar128b, layout, part, task),
        #[cfg(target_arch = "x86_64")]
        Path::Avx2(simd) => run_with(simd, layout, part, task),
        #[cfg(target_arch = "x86_64")]
        Path::Avx512(simd) => run_with(simd, layout, part, task),
        #[cfg(target_arch = "aarch64")]
        Path::Neon(simd) => run_with(simd, layout, part, task),
    }
}

fn run_with<S: Lanes>(simd: S, layout: &Layout, part: &mut Part, task: Task<'_, '_>) {
    simd.vectorize(
        #[inline(always)]
        || match task {
            Task::Advance { residual, pass } => tile::advance(simd, layout, part, residual, pass),
            Task::Model { shared, residual, only, out } => {
                tile::model(simd, layout, part, shared, residual, only, out);
            }
        },
    );
}
