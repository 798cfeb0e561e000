//! The hash function for hosts.

use std::hash::{BuildHasherDefault, Hasher};

/// For maps with the hosts of routes as keys. The operator chooses these keys, not a client, so a keyed
/// hash would have no benefit, and would cost more than the rest of a lookup.
pub(crate) type BuildHasher = BuildHasherDefault<HostHasher>;

/// Multiplies and folds, eight bytes at a time.
#[derive(Default)]
pub(crate) struct HostHasher(u64);

impl HostHasher {
    fn mix(&mut self, word: u64) {
        // The odd constant of the golden ratio; folding the halves of the product mixes all bits.
        let product = u128::from(self.0 ^ word) * u128::from(0x9e37_79b9_7f4a_7c15_u64);
        self.0 = (product as u64) ^ ((product >> 64) as u64).wrapping_add(1);
    }
}

impl Hasher for HostHasher {
    fn write(&mut self, bytes: &[u8]) {
        let (words, rest) = bytes.as_chunks();
        for word in words {
            self.mix(u64::from_le_bytes(*word));
        }
        let rest = rest
            .iter()
            .fold(0, |word, byte| word << 8 | u64::from(*byte));
        self.mix(rest ^ (bytes.len() as u64) << 56);
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;
    use std::hash::BuildHasher as _;

    #[test]
    fn similar_hosts_are_spread() {
        let build = BuildHasher::default();
        let hashes: Vec<u64> = (0..20_000)
            .map(|n| build.hash_one(format!("shop-{n}.example.com").as_bytes()))
            .collect();
        assert_eq!(hashes.iter().collect::<HashSet<_>>().len(), hashes.len());
        // Maps use the low bits for the bucket, and the high ones to distinguish keys within it.
        for shift in [0, 57] {
            let mut counts = [0_u32; 128];
            for hash in &hashes {
                counts[(hash >> shift) as usize & 127] += 1;
            }
            // 156 each on average; four standard deviations are 50.
            let (min, max) = (counts.iter().min(), counts.iter().max());
            assert!(
                counts.iter().all(|n| (106..=206).contains(n)),
                "{min:?} {max:?}"
            );
        }
    }
}
