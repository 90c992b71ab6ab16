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

/// Sums of three uniform numbers, drawn from BLAKE3's output.
fn noise(n: usize) -> Vec<f32> {
    let mut bytes = vec![0; 6 * n];
    blake3::Hasher::new().finalize_xof().fill(&mut bytes);
    let uniform = |pair: &[u8]| f32::from(i16::from_le_bytes([pair[0], pair[1]])) / 32_768.0;
    bytes.chunks_exact(6).map(|six| 0.01 * six.chunks_exact(2).map(uniform).sum::<f32>()).collect()
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
