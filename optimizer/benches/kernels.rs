//! The kernels a round consists of, beside a plain copy of as many bytes (`copy`, the baseline).
//!
//!     cargo bench -p swarm-optimizer
//!
//! 4.2 M parameters in tiles of 64 x 64, one thread; `swarm bench optimizer` measures whole rounds.

use std::sync::Arc;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use swarm_optimizer::coefficients::Coefficients;
use swarm_optimizer::kernels::Kernels;
use swarm_optimizer::layout::Layout;
use swarm_optimizer::residual::{Residual, model};
use swarm_optimizer::sparse::SparseDelta;
use swarm_optimizer::sum::Sum;

const CAP: u8 = 18;
const PEERS: u64 = 8;

fn noise(seed: u64, n: usize) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    };
    (0..n).map(|_| 0.01 * (next() + next() + next())).collect()
}

fn benches(criterion: &mut Criterion) {
    let Ok(layout) = Layout::new([("m", vec![2048, 2048])], 64) else { return };
    let n = layout.len();
    let mut group = criterion.benchmark_group("a parameter");
    group.throughput(Throughput::Elements(n as u64));
    group.sample_size(20);

    let (before, after) = (noise(1, n), noise(2, n));
    let mut out = vec![0.0f32; n];
    group.bench_function("copy", |bencher| bencher.iter(|| out.copy_from_slice(&before)));

    let mut kernels = Kernels::single(&layout);
    let mut residual = Residual::zeros(&layout);
    group.bench_function("accumulate", |bencher| {
        bencher.iter(|| residual.accumulate(&layout, &mut kernels, &before, &after));
    });
    for k in [8, 32, 128, 1024] {
        let mut delta = SparseDelta::default();
        group.bench_with_input(BenchmarkId::new("extract", k), &k, |bencher, &k| {
            bencher.iter(|| {
                residual.accumulate_and_extract(&layout, &mut kernels, &before, &after, k, CAP, &mut delta)
            });
        });
        let deltas: Vec<Arc<SparseDelta>> = (0..PEERS)
            .filter_map(|peer| {
                let mut learned = Residual::from_values(&layout, noise(peer + 3, n))?;
                Some(Arc::new(learned.extract(&layout, &mut kernels, k, CAP)))
            })
            .collect();
        let mut sum = Sum::zeros(&layout);
        let mut c = Coefficients::new(vec![0; n]);
        let mut touched = vec![false; layout.tiles().len()];
        group.bench_with_input(BenchmarkId::new("fold 8", k), &k, |bencher, _| {
            bencher.iter(|| {
                sum.clear();
                deltas.iter().for_each(|delta| sum.add(&layout, delta.clone()));
                c.fold_sum(&layout, &mut sum, &mut touched);
            });
        });
    }
    let c = Coefficients::new(vec![1000; n]);
    group.bench_function("model", |bencher| {
        bencher.iter(|| model(&layout, &mut kernels, &c, Some(&residual), None, &mut out));
    });
    group.finish();
}

criterion_group!(all, benches);
criterion_main!(all);
