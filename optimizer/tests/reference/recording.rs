//! One recorded run in memory: configuration, inputs (stored or generated), and recorded results.

use std::borrow::Cow;
use std::ops::Range;

use serde_json::Value;
use swarm_optimizer::demo::{ChunkGrid, DemoConfig, Sent};

use crate::files::Archive;

/// A recorded run. Steps and workers are counted from 0.
pub(crate) struct Recording {
    pub(crate) steps: usize,
    pub(crate) workers: usize,
    pub(crate) config: DemoConfig,
    /// Learning rates: by step, then by parameter group.
    rates: Vec<Vec<f64>>,
    /// Steps whose result hangs on how the reference broke ties.
    tie_dependent: Vec<usize>,
    pub(crate) params: Vec<Param>,
}

/// What was recorded of one parameter. Leading axes are steps, then workers, where there are any.
pub(crate) struct Param {
    pub(crate) name: String,
    pub(crate) shape: Vec<usize>,
    group: usize,
    /// The chunks as this crate would cut them.
    pub(crate) grid: ChunkGrid,
    /// The array of coefficients as the reference cut it, `[grid.., chunk..]`, and coefficients a chunk.
    pub(crate) xshape: Vec<i32>,
    pub(crate) totalk: i32,
    /// Coefficients sent a chunk.
    pub(crate) k: usize,
    /// Row-major indices of the elements whose `delta`, `merged` and `params` are stored, in order.
    pub(crate) stored: Vec<usize>,
    /// Initial parameters, all elements.
    pub(crate) params0: Vec<f32>,
    grads: Grads,
    idx: Vec<i32>,
    val: Vec<f32>,
    margin: Vec<f32>,
    delta: Vec<f32>,
    merged: Vec<f32>,
    params: Vec<f32>,
    pub(crate) sums: Option<Sums>,
    pub(crate) heads: Option<Heads>,
}

enum Grads {
    Stored(Vec<f32>),
    Generated(Vec<Generator>),
}

/// Sum and sum of magnitudes over whole tensors, of which not every element is stored.
pub(crate) struct Sums {
    pub(crate) delta: Vec<f64>,
    pub(crate) merged: Vec<f64>,
    pub(crate) params: Vec<f64>,
}

/// The first values of generated inputs.
pub(crate) struct Heads {
    pub(crate) params0: Vec<f32>,
    pub(crate) grad: Vec<f32>,
}

/// Values of a chunk row after row: what one worker sent in one chunk.
pub(crate) struct Chunk<'a> {
    pub(crate) idx: &'a [i32],
    pub(crate) val: &'a [f32],
    pub(crate) margin: f32,
}

impl Recording {
    pub(crate) fn load(archive: &Archive<'_>, config: &Value) -> Result<Recording, String> {
        let rates = list(config, "lr_per_step_per_group")?;
        let rates: Option<Vec<Vec<f64>>> =
            rates.iter().map(|step| step.as_array()?.iter().map(Value::as_f64).collect()).collect();
        let mut recording = Recording {
            steps: count(config, "steps")?,
            workers: count(config, "workers")?,
            config: DemoConfig {
                decay: number(config, "compression_decay")?,
                k: count(config, "compression_topk")?,
                chunk: count(config, "compression_chunk")?,
                weight_decay: number(config, "weight_decay")?,
            },
            rates: rates.ok_or("its `lr_per_step_per_group` is not a list of lists of numbers")?,
            tie_dependent: match config.get("tie_dependent_steps") {
                Some(_) => counts(&config["tie_dependent_steps"])?,
                None => Vec::new(),
            },
            params: Vec::new(),
        };
        if recording.workers == 0 {
            return Err("a run without workers".into());
        }
        for param in list(config, "params")? {
            let param = Param::load(archive, config, &recording, param)?;
            if recording.rates.len() != recording.steps
                || recording.rates.iter().any(|groups| groups.len() <= param.group)
            {
                return Err(format!("no learning rate for every step of group {}", param.group));
            }
            recording.params.push(param);
        }
        Ok(recording)
    }

    pub(crate) fn rate(&self, step: usize, param: &Param) -> f64 {
        self.rates[step][param.group]
    }

    pub(crate) fn is_tie_dependent(&self, step: usize) -> bool {
        self.tie_dependent.contains(&step)
    }
}

impl Param {
    fn load(archive: &Archive<'_>, config: &Value, run: &Recording, entry: &Value) -> Result<Param, String> {
        let name = entry["name"].as_str().ok_or("a parameter without a `name`")?.to_owned();
        let shape = counts(&entry["shape"])?;
        let grid =
            ChunkGrid::new(&shape, run.config.chunk).ok_or_else(|| format!("{name}: shape {shape:?}"))?;
        let (s, n) = (run.steps, run.workers);
        let tensor = |kind: &str| format!("{kind}/{name}");
        let with = |lead: &[usize], tail: &[usize]| [lead, tail].concat();

        let chunks: &[usize] = match shape.len() {
            1 => &[grid.cols / grid.chunk_cols],
            _ => &[grid.rows / grid.chunk_rows, grid.cols / grid.chunk_cols],
        };
        let k = run.config.k.min(grid.area());
        let ranges: Option<Vec<Range<usize>>> = match config.get("stored_rows") {
            Some(rows) => Some(rows_of(rows, shape[0])?),
            None => None,
        };
        // Of a matrix, rows are stored; of a vector, elements.
        let width = if shape.len() == 1 { 1 } else { grid.cols };
        let ranges_or_all = ranges.clone().unwrap_or_else(|| std::iter::once(0..shape[0]).collect());
        let stored: Vec<usize> =
            ranges_or_all.iter().flat_map(|rows| rows.start * width..rows.end * width).collect();
        let kept = with(&[stored.len() / width], &shape[1..]);

        let generated = config.get("generated_inputs").and_then(Value::as_object);
        let input = |key: String| -> Result<Option<Generator>, String> {
            generated.and_then(|inputs| inputs.get(&key)).map(Generator::load).transpose()
        };
        let params0 = match input(tensor("params0"))? {
            Some(generator) => generator.values(grid.elements()),
            None if ranges.is_none() => archive.f32(&tensor("params0"), &shape)?,
            None => return Err(missing_input(&tensor("params0"))),
        };
        let grads = if archive.has(&tensor("grad")) {
            Grads::Stored(archive.f32(&tensor("grad"), &with(&[s, n], &shape))?)
        } else {
            let mut generators = Vec::with_capacity(s * n);
            for (step, worker) in (0..s).flat_map(|step| (0..n).map(move |worker| (step, worker))) {
                let key = format!("grad/s{step}/w{worker}/{name}");
                generators.push(input(key.clone())?.ok_or_else(|| missing_input(&key))?);
            }
            Grads::Generated(generators)
        };
        let sums = match archive.has(&tensor("delta_sum")) {
            true => Some(Sums {
                delta: archive.f64(&tensor("delta_sum"), &[s, n, 2])?,
                merged: archive.f64(&tensor("merged_sum"), &[s, 2])?,
                params: archive.f64(&tensor("params_sum"), &[s, 2])?,
            }),
            false => None,
        };
        let heads = match archive.has(&tensor("grad_head")) {
            true => {
                let length = archive.shape(&tensor("params0_head"))?.into_iter().product();
                Some(Heads {
                    params0: archive.f32(&tensor("params0_head"), &[length])?,
                    grad: archive.f32(&tensor("grad_head"), &[s, n, length])?,
                })
            }
            false => None,
        };
        Ok(Param {
            xshape: archive.i32(&tensor("xshape"), &[2 * shape.len()])?,
            totalk: archive.i32(&tensor("totalk"), &[1])?[0],
            idx: archive.i32(&tensor("idx"), &with(&with(&[s, n], chunks), &[k]))?,
            val: archive.f32(&tensor("val"), &with(&with(&[s, n], chunks), &[k]))?,
            margin: archive.f32(&tensor("margin"), &with(&[s, n], chunks))?,
            delta: archive.f32(&tensor("delta"), &with(&[s, n], &kept))?,
            merged: archive.f32(&tensor("merged"), &with(&[s], &kept))?,
            params: archive.f32(&tensor("params"), &with(&[s], &kept))?,
            group: entry.get("group").map_or(Ok(0), |_| count(entry, "group"))?,
            name,
            shape,
            grid,
            k,
            stored,
            params0,
            grads,
            sums,
            heads,
        })
    }

    /// The chunk that an element (row-major index) lies in.
    pub(crate) fn chunk_of(&self, element: usize) -> usize {
        let ChunkGrid { cols, chunk_rows, chunk_cols, .. } = self.grid;
        (element / cols / chunk_rows) * (cols / chunk_cols) + element % cols / chunk_cols
    }

    /// The gradient of a worker in a step, all elements; `at` is step x workers + worker, here and below.
    pub(crate) fn grad(&self, at: usize) -> Cow<'_, [f32]> {
        match &self.grads {
            Grads::Stored(values) => Cow::Borrowed(slice(values, at, self.grid.elements())),
            Grads::Generated(generators) => Cow::Owned(generators[at].values(self.grid.elements())),
        }
    }

    pub(crate) fn chunk(&self, at: usize, chunk: usize) -> Chunk<'_> {
        let row = at * self.grid.chunks() + chunk;
        Chunk {
            idx: slice(&self.idx, row, self.k),
            val: slice(&self.val, row, self.k),
            margin: self.margin[row],
        }
    }

    /// What a worker of the reference sent, in this crate's form.
    pub(crate) fn sent(&self, at: usize) -> Sent {
        let mut sent = Sent::default();
        for chunk in 0..self.grid.chunks() {
            let recorded = self.chunk(at, chunk);
            let mut pairs: Vec<(i32, f32)> =
                recorded.idx.iter().copied().zip(recorded.val.iter().copied()).collect();
            pairs.sort_by_key(|&(index, _)| index);
            for (index, value) in pairs {
                sent.indices.push(((chunk * self.grid.area()) as u32).wrapping_add(index as u32));
                sent.values.push(value);
            }
        }
        sent
    }

    /// The stored elements of the momentum of a worker after a step.
    pub(crate) fn delta(&self, at: usize) -> &[f32] {
        slice(&self.delta, at, self.stored.len())
    }

    /// The stored elements of the decoded mean of a step.
    pub(crate) fn merged(&self, step: usize) -> &[f32] {
        slice(&self.merged, step, self.stored.len())
    }

    /// The stored elements of the parameter after a step.
    pub(crate) fn params(&self, step: usize) -> &[f32] {
        slice(&self.params, step, self.stored.len())
    }
}

fn slice<T>(values: &[T], at: usize, length: usize) -> &[T] {
    &values[at * length..(at + 1) * length]
}

/// Inputs that are given by a rule instead of being stored: weighted sums of splitmix64 streams.
struct Generator {
    terms: Vec<(u64, f64)>,
    scale: f64,
}

impl Generator {
    fn load(entry: &Value) -> Result<Generator, String> {
        let term = |term: &Value| {
            let key = term[0].as_str()?.strip_prefix("0x")?;
            Some((u64::from_str_radix(key, 16).ok()?, term[1].as_f64()?))
        };
        let terms: Option<Vec<_>> = list(entry, "terms")?.iter().map(term).collect();
        Ok(Generator {
            terms: terms.ok_or("a generator's terms are not [\"0x<key>\", weight]")?,
            scale: number(entry, "scale")?,
        })
    }

    fn values(&self, length: usize) -> Vec<f32> {
        let value = |i| {
            let sum: f64 = self.terms.iter().map(|&(key, weight)| weight * uniform(key, i)).sum();
            (self.scale * sum) as f32
        };
        (0..length as u64).map(value).collect()
    }
}

/// Element `i` of the stream `key`, in [-1, 1) with 20 bits.
fn uniform(key: u64, i: u64) -> f64 {
    let mut z = key.wrapping_add((i + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15));
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^= z >> 31;
    ((z >> 44) as f64 - 524_288.0) / 524_288.0
}

fn missing_input(name: &str) -> String {
    format!("{name} is neither stored whole nor under `generated_inputs` in manifest.json")
}

fn rows_of(ranges: &Value, rows: usize) -> Result<Vec<Range<usize>>, String> {
    let fail = || format!("its `stored_rows` are not ranges within {rows} rows: {ranges}");
    let mut all = Vec::new();
    for range in ranges.as_array().ok_or_else(fail)? {
        match counts(range)?.as_slice() {
            &[start, end] if start < end && end <= rows => all.push(start..end),
            _ => return Err(fail()),
        }
    }
    Ok(all)
}

fn list<'a>(value: &'a Value, key: &str) -> Result<&'a Vec<Value>, String> {
    value[key].as_array().ok_or_else(|| format!("its configuration has no list `{key}`"))
}

fn number(value: &Value, key: &str) -> Result<f64, String> {
    value[key].as_f64().ok_or_else(|| format!("its configuration has no number `{key}`"))
}

fn count(value: &Value, key: &str) -> Result<usize, String> {
    value[key].as_u64().map(|n| n as usize).ok_or_else(|| format!("its configuration has no count `{key}`"))
}

fn counts(value: &Value) -> Result<Vec<usize>, String> {
    let all: Option<Vec<usize>> =
        value.as_array().and_then(|list| list.iter().map(|n| n.as_u64().map(|n| n as usize)).collect());
    all.ok_or_else(|| format!("not a list of counts: {value}"))
}
