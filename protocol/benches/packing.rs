//! Packing and unpacking deltas, a coefficient, beside a plain copy of the coefficients (`copy`, the baseline).
//!
//!     cargo bench -p swarm-protocol

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use swarm_optimizer::kernels::Kernels;
use swarm_optimizer::layout::Layout;
use swarm_optimizer::residual::Residual;
use swarm_optimizer::sparse::{Entry, SparseDelta};
use swarm_protocol::genesis::Rule;
use swarm_protocol::packing::Packer;

/// Sums of three uniform numbers.
fn noise(n: usize) -> Vec<f32> {
    let mut state = 0x9E37_79B9_7F4A_7C15u64;
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
    let mut group = criterion.benchmark_group("a coefficient");
    group.sample_size(20);
    for k in [8, 32, 128, 1024] {
        let rule = Rule { tile: 64, k, max_exponent: 18, publishers: 64 };
        let Some(mut learned) = Residual::from_values(&layout, noise(layout.len())) else { return };
        let delta = learned.extract(&layout, &mut Kernels::single(&layout), k as usize, rule.max_exponent);
        let entries: Vec<Entry> = delta.tiles().flat_map(|(.., entries)| entries.iter().copied()).collect();
        let (mut packer, mut body, mut back) = (Packer::default(), Vec::new(), SparseDelta::default());
        let mut copy = entries.clone();
        group.throughput(Throughput::Elements(entries.len() as u64));
        group.bench_with_input(BenchmarkId::new("copy", k), &k, |bencher, _| {
            bencher.iter(|| copy.copy_from_slice(&entries));
        });
        group.bench_with_input(BenchmarkId::new("encode", k), &k, |bencher, &k| {
            bencher.iter(|| {
                body.clear();
                packer.encode_into(&layout, &rule, k, &delta, &mut body)
            });
        });
        group.bench_with_input(BenchmarkId::new("decode", k), &k, |bencher, _| {
            bencher.iter(|| packer.decode_into(&layout, &rule, &body, &mut back));
        });
    }
    group.finish();
}

criterion_group!(all, benches);
criterion_main!(all);
