//! The bytes of a layer, made as they are read: a gigabyte costs no disk and no memory.

use std::io::{Cursor, Read, Result};

use flate2::Compression;
use flate2::write::GzEncoder;

const BLOCK: usize = 1 << 20;
const TAR_BLOCK: u64 = 512;

/// An uncompressed tar with one file of `len` random bytes, the same for the same seed.
#[derive(Clone, Debug)]
pub(crate) struct LayerPlan {
    pub(crate) seed: u64,
    pub(crate) len: u64,
}

impl LayerPlan {
    /// Bytes of the whole tar.
    pub(crate) fn size(&self) -> u64 {
        TAR_BLOCK + self.padded() + 2 * TAR_BLOCK
    }

    pub(crate) fn reader(&self) -> impl Read + use<> {
        let header = header(&format!("data-{:016x}", self.seed), self.len);
        let rest = self.padded() - self.len + 2 * TAR_BLOCK;
        Cursor::new(header).chain(Noise::new(self.seed).take(self.len)).chain(std::io::repeat(0).take(rest))
    }

    fn padded(&self) -> u64 {
        self.len.div_ceil(TAR_BLOCK) * TAR_BLOCK
    }
}

/// A tar with one small file.
pub(crate) fn tar(name: &str, content: &[u8]) -> Vec<u8> {
    let mut out = header(name, content.len() as u64);
    out.extend_from_slice(content);
    out.resize(out.len().div_ceil(TAR_BLOCK as usize) * TAR_BLOCK as usize + 2 * TAR_BLOCK as usize, 0);
    out
}

pub(crate) fn gzip(bytes: &[u8]) -> Vec<u8> {
    use std::io::Write;
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(bytes).and_then(|()| encoder.finish()).expect("memory can be written")
}

fn header(name: &str, len: u64) -> Vec<u8> {
    let mut header = tar::Header::new_ustar();
    header.set_path(name).expect("the names here are short");
    header.set_size(len);
    header.set_mode(0o644);
    header.set_mtime(0);
    header.set_entry_type(tar::EntryType::Regular);
    header.set_cksum();
    header.as_bytes().to_vec()
}

/// Random bytes without end: one random block over and over, each time with another beginning. No compressor finds
/// anything in a block, and no block can stand for another.
struct Noise {
    block: Vec<u8>,
    at: usize,
    round: u64,
}

impl Noise {
    fn new(seed: u64) -> Noise {
        // xorshift64*, Vigna 2016; its state must not be zero.
        let mut state = seed | 1 << 63;
        let block = std::iter::repeat_with(|| {
            state ^= state >> 12;
            state ^= state << 25;
            state ^= state >> 27;
            state.wrapping_mul(0x2545_F491_4F6C_DD1D)
        });
        let block = block.take(BLOCK / 8).flat_map(u64::to_le_bytes).collect();
        Noise { block, at: 0, round: 0 }
    }
}

impl Read for Noise {
    fn read(&mut self, out: &mut [u8]) -> Result<usize> {
        if self.at == BLOCK {
            self.at = 0;
            self.round += 1;
            self.block[..8].copy_from_slice(&self.round.to_le_bytes());
        }
        let n = out.len().min(BLOCK - self.at);
        out[..n].copy_from_slice(&self.block[self.at..self.at + n]);
        self.at += n;
        Ok(n)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_planned_layer_is_a_tar_of_the_size_it_claims() {
        let plan = LayerPlan { seed: 7, len: 3 * BLOCK as u64 + 77 };
        let mut bytes = Vec::new();
        plan.reader().read_to_end(&mut bytes).unwrap();
        assert_eq!(bytes.len() as u64, plan.size());
        let mut archive = tar::Archive::new(bytes.as_slice());
        let sizes: Vec<u64> = archive.entries().unwrap().map(|e| e.unwrap().size()).collect();
        assert_eq!(sizes, [plan.len]);
        assert!(gzip(&bytes).len() as u64 > plan.size() * 99 / 100 || BLOCK < 32 * 1024);
    }
}
