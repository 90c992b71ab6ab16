//! The vector instructions that the kernels use, chosen when the program runs.
//!
//! The kernels are written once, over [`pulp::Simd`]: arithmetic on vectors whose length the machine decides.
//! Two things that they need are not in it and are in [`Lanes`] here: turning a square block round, and a mask
//! as bits. A [`Path`] is one set of instructions; each gives the same result but for the last bits, and nothing
//! that peers share depends on those.

use pulp::{Scalar128b, Simd, bytemuck};

/// Vectors with what the kernels need beyond arithmetic.
pub(crate) trait Lanes: Simd {
    /// Transposes a block of as many vectors as a vector has lanes, in place.
    fn transpose(self, block: &mut [Self::f32s]) {
        let lanes = Self::F32_LANES;
        let scalars: &mut [f32] = bytemuck::cast_slice_mut(block);
        for row in 0..lanes {
            for col in 0..row {
                scalars.swap(row * lanes + col, col * lanes + row);
            }
        }
    }

    /// `a b + c`, rounded once where there is an instruction for it.
    #[inline(always)]
    fn fused(self, a: Self::f32s, b: Self::f32s, c: Self::f32s) -> Self::f32s {
        self.mul_add_f32s(a, b, c)
    }

    /// One bit a lane, the first lane lowest.
    fn bits(self, mask: Self::m32s) -> u32 {
        let ones = self.select_u32s(mask, self.splat_u32s(1), self.splat_u32s(0));
        let ones: &[u32] = bytemuck::cast_slice(std::slice::from_ref(&ones));
        ones.iter().zip(0..).fold(0, |bits, (one, lane)| bits | one << lane)
    }
}

impl Lanes for Scalar128b {
    // Rounded once, it is a call of a function for every lane.
    #[inline(always)]
    fn fused(self, a: Self::f32s, b: Self::f32s, c: Self::f32s) -> Self::f32s {
        self.add_f32s(self.mul_f32s(a, b), c)
    }
}

#[cfg(target_arch = "aarch64")]
impl Lanes for pulp::aarch64::Neon {}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::{__m256, __m512};

    use pulp::x86::{V3, V4};
    use pulp::{Simd, cast};

    use super::Lanes;

    impl Lanes for V3 {
        /// Fours within each half, then the halves.
        #[inline(always)]
        fn transpose(self, block: &mut [Self::f32s]) {
            let Some(block) = block.first_chunk_mut::<8>() else { return };
            let avx = self.avx;
            let zero = avx._mm256_setzero_ps();
            // Four rows, a pair of columns in each half.
            let mut fours = [[zero; 4]; 2];
            for (four, rows) in fours.iter_mut().zip(block.as_chunks::<4>().0) {
                let [a, b, c, d]: [__m256; 4] = cast(*rows);
                let low = [avx._mm256_unpacklo_ps(a, b), avx._mm256_unpacklo_ps(c, d)];
                let high = [avx._mm256_unpackhi_ps(a, b), avx._mm256_unpackhi_ps(c, d)];
                *four = [
                    avx._mm256_shuffle_ps::<0x44>(low[0], low[1]),
                    avx._mm256_shuffle_ps::<0xee>(low[0], low[1]),
                    avx._mm256_shuffle_ps::<0x44>(high[0], high[1]),
                    avx._mm256_shuffle_ps::<0xee>(high[0], high[1]),
                ];
            }
            for i in 0..4 {
                block[i] = cast(avx._mm256_permute2f128_ps::<0x20>(fours[0][i], fours[1][i]));
                block[i + 4] = cast(avx._mm256_permute2f128_ps::<0x31>(fours[0][i], fours[1][i]));
            }
        }

        #[inline(always)]
        fn bits(self, mask: Self::m32s) -> u32 {
            self.avx._mm256_movemask_ps(cast(mask)) as u32
        }
    }

    impl Lanes for V4 {
        /// Fours within each quarter, then the quarters.
        #[inline(always)]
        fn transpose(self, block: &mut [Self::f32s]) {
            let Some(block) = block.first_chunk_mut::<16>() else { return };
            let avx = self.avx512f;
            let zero = avx._mm512_setzero_ps();
            // fours[g][i]: of the rows 4g to 4g + 3, the columns i, 4 + i, 8 + i and 12 + i.
            let mut fours = [[zero; 4]; 4];
            for (four, rows) in fours.iter_mut().zip(block.as_chunks::<4>().0) {
                let [a, b, c, d]: [__m512; 4] = cast(*rows);
                let low = [avx._mm512_unpacklo_ps(a, b), avx._mm512_unpacklo_ps(c, d)];
                let high = [avx._mm512_unpackhi_ps(a, b), avx._mm512_unpackhi_ps(c, d)];
                *four = [
                    avx._mm512_shuffle_ps::<0x44>(low[0], low[1]),
                    avx._mm512_shuffle_ps::<0xee>(low[0], low[1]),
                    avx._mm512_shuffle_ps::<0x44>(high[0], high[1]),
                    avx._mm512_shuffle_ps::<0xee>(high[0], high[1]),
                ];
            }
            for i in 0..4 {
                let even = [
                    avx._mm512_shuffle_f32x4::<0x88>(fours[0][i], fours[1][i]),
                    avx._mm512_shuffle_f32x4::<0x88>(fours[2][i], fours[3][i]),
                ];
                let odd = [
                    avx._mm512_shuffle_f32x4::<0xdd>(fours[0][i], fours[1][i]),
                    avx._mm512_shuffle_f32x4::<0xdd>(fours[2][i], fours[3][i]),
                ];
                block[i] = cast(avx._mm512_shuffle_f32x4::<0x88>(even[0], even[1]));
                block[i + 4] = cast(avx._mm512_shuffle_f32x4::<0x88>(odd[0], odd[1]));
                block[i + 8] = cast(avx._mm512_shuffle_f32x4::<0xdd>(even[0], even[1]));
                block[i + 12] = cast(avx._mm512_shuffle_f32x4::<0xdd>(odd[0], odd[1]));
            }
        }

        #[inline(always)]
        fn bits(self, mask: Self::m32s) -> u32 {
            u32::from(mask.0)
        }
    }

    const _: () = assert!(V3::F32_LANES == 8 && V4::F32_LANES == 16);
}

/// One set of vector instructions of this machine.
#[derive(Clone, Copy, Debug)]
pub enum Path {
    /// Four lanes in what every machine of the kind has (SSE2, or what the compiler makes of it).
    Portable,
    /// AVX2 and FMA.
    #[cfg(target_arch = "x86_64")]
    Avx2(pulp::x86::V3),
    /// AVX-512 (F, BW, CD, DQ, VL).
    #[cfg(target_arch = "x86_64")]
    Avx512(pulp::x86::V4),
    /// NEON.
    #[cfg(target_arch = "aarch64")]
    Neon(pulp::aarch64::Neon),
}

impl Path {
    /// All that this machine can run, the fastest last.
    pub fn all() -> Vec<Self> {
        let mut all = vec![Self::Portable];
        #[cfg(target_arch = "x86_64")]
        {
            all.extend(pulp::x86::V3::try_new().map(Self::Avx2));
            all.extend(pulp::x86::V4::try_new().map(Self::Avx512));
        }
        #[cfg(target_arch = "aarch64")]
        all.extend(pulp::aarch64::Neon::try_new().map(Self::Neon));
        all
    }

    /// The fastest for tiles of `side`: the longest vectors that a row fills.
    pub fn best(side: usize) -> Self {
        Self::all().into_iter().rfind(|path| path.lanes() <= side).unwrap_or(Self::Portable)
    }

    /// Scalars in a vector.
    pub fn lanes(self) -> usize {
        match self {
            Self::Portable => Scalar128b::F32_LANES,
            #[cfg(target_arch = "x86_64")]
            Self::Avx2(_) => pulp::x86::V3::F32_LANES,
            #[cfg(target_arch = "x86_64")]
            Self::Avx512(_) => pulp::x86::V4::F32_LANES,
            #[cfg(target_arch = "aarch64")]
            Self::Neon(_) => pulp::aarch64::Neon::F32_LANES,
        }
    }

    /// What to call it in a table.
    pub fn name(self) -> &'static str {
        match self {
            Self::Portable => "portable",
            #[cfg(target_arch = "x86_64")]
            Self::Avx2(_) => "AVX2",
            #[cfg(target_arch = "x86_64")]
            Self::Avx512(_) => "AVX-512",
            #[cfg(target_arch = "aarch64")]
            Self::Neon(_) => "NEON",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn turns_and_counts<S: Lanes>(simd: S) {
        let lanes = S::F32_LANES;
        let mut scalars: Vec<f32> = (0..lanes * lanes).map(|i| i as f32).collect();
        let (block, _) = S::as_mut_simd_f32s(&mut scalars);
        simd.transpose(block);
        for (i, value) in scalars.iter().enumerate() {
            assert_eq!(*value, (i % lanes * lanes + i / lanes) as f32, "{i} of {lanes} lanes");
        }
        for one in 0..lanes {
            let row: Vec<f32> = (0..lanes).map(|lane| if lane == one { 2.0 } else { 0.5 }).collect();
            let (row, _) = S::as_simd_f32s(&row);
            let mask = simd.greater_than_or_equal_f32s(row[0], simd.splat_f32s(1.0));
            assert_eq!(simd.bits(mask), 1 << one);
        }
    }

    #[test]
    fn every_path_transposes_and_names_its_lanes() {
        for path in Path::all() {
            match path {
                Path::Portable => turns_and_counts(Scalar128b),
                #[cfg(target_arch = "x86_64")]
                Path::Avx2(simd) => turns_and_counts(simd),
                #[cfg(target_arch = "x86_64")]
                Path::Avx512(simd) => turns_and_counts(simd),
                #[cfg(target_arch = "aarch64")]
                Path::Neon(simd) => turns_and_counts(simd),
            }
            assert!(!path.name().is_empty() && path.lanes() >= 4);
        }
        assert_eq!((Path::best(8).lanes() <= 8, Path::best(4).lanes()), (true, 4));
    }
}
