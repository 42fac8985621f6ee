//! Numbers that look random and are the same for the same seed, on every machine and in every version.

/// SplitMix64: <https://prng.di.unimi.it/splitmix64.c>.
pub struct Random(u64);

impl Random {
    /// The same seed makes the same numbers.
    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next number, of all 2^64.
    #[expect(clippy::should_implement_trait, reason = "it never ends, so it is no iterator")]
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `end`, which is not 0.
    pub fn below(&mut self, end: u64) -> u64 {
        let scaled = (u128::from(self.next()) * u128::from(end)) >> 64;
        u64::try_from(scaled).expect("it is below `end`")
    }

    /// One of them.
    pub fn pick<'a, T: ?Sized>(&mut self, from: &[&'a T]) -> &'a T {
        let index = self.below(from.len() as u64);
        from[usize::try_from(index).expect("it is below a length")]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_splitmix64() {
        let mut random = Random::new(1_234_567);
        assert_eq!([random.next(), random.next(), random.next()], [6_457_827_717_110_365_317, 3_203_168_211_198_807_973, 9_817_491_932_198_370_423]);
    }
}
