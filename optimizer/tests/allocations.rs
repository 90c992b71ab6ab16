//! In the steady state, a round allocates nothing.

use std::alloc::{GlobalAlloc, Layout as Memory, System};
use std::sync::atomic::{AtomicUsize, Ordering};

use swarm_optimizer::coefficients::{Coefficients, Direction};
use swarm_optimizer::kernels::Kernels;
use swarm_optimizer::layout::Layout;
use swarm_optimizer::residual::{Residual, model};
use swarm_optimizer::sparse::SparseDelta;

struct Counting;

static ALLOCATIONS: AtomicUsize = AtomicUsize::new(0);

// SAFETY: everything is passed on to the system's allocator; the count is an atomic.
#[allow(unsafe_code)]
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, memory: Memory) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        unsafe { System.alloc(memory) }
    }

    unsafe fn dealloc(&self, place: *mut u8, memory: Memory) {
        unsafe { System.dealloc(place, memory) }
    }

    unsafe fn realloc(&self, place: *mut u8, memory: Memory, size: usize) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        unsafe { System.realloc(place, memory, size) }
    }
}

#[global_allocator]
static GLOBAL: Counting = Counting;

#[test]
fn a_round_allocates_nothing() {
    let layout = Layout::new([("m", vec![200, 330]), ("v", vec![100])], 64).unwrap();
    let noise = |seed: u64| -> Vec<f32> {
        (0..layout.len() as u64).map(|i| ((i + 1).wrapping_mul(seed) % 1999) as f32 / 1e4 - 0.1).collect()
    };
    let (before, after) = (noise(0x9E37_79B9_7F4A_7C15), noise(0x2545_F491_4F6C_DD1D));
    let mut kernels = Kernels::single(&layout);
    let mut r = Residual::zeros(&layout);
    let mut shared = Coefficients::new(vec![0; layout.len()]);
    let mut touched = vec![false; layout.tiles().len()];
    let (mut delta, mut q) = (SparseDelta::default(), vec![0.0; layout.len()]);
    let mut round = |r: &mut Residual, delta: &mut SparseDelta| {
        r.accumulate_and_extract(&layout, &mut kernels, &before, &after, 128, 18, delta).unwrap();
        model(&layout, &mut kernels, &shared, Some(r), None, &mut q);
    };
    // Memory grows to what the largest of the rounds needs; then it stays.
    for _ in 0..5 {
        round(&mut r, &mut delta);
    }
    let used = ALLOCATIONS.load(Ordering::Relaxed);
    round(&mut r, &mut delta);
    assert_eq!(ALLOCATIONS.load(Ordering::Relaxed) - used, 0);
    assert!(!delta.is_empty() && used > 0);

    // The fold needs its sums and one cursor a delta, whatever the number of tiles.
    shared.fold(&layout, &[&delta], Direction::In, &mut touched);
    let used = ALLOCATIONS.load(Ordering::Relaxed);
    shared.fold(&layout, &[&delta], Direction::In, &mut touched);
    assert!(ALLOCATIONS.load(Ordering::Relaxed) - used < 20);
}
