//! What a device's memory is here: bytes at an aligned address, full of noise until written.

/// Noise: NaN to floats, far out of range to ids.
const NOISE: u128 = u128::MAX;
/// Words behind the last byte that nobody may touch.
const GUARD_WORDS: usize = 64;

/// An allocation.
pub struct Memory {
    words: Vec<u128>,
    bytes: usize,
}

impl Memory {
    pub fn new(bytes: usize) -> Memory {
        Memory { words: vec![NOISE; bytes.div_ceil(16) + GUARD_WORDS], bytes }
    }

    pub fn of(from: &[u8]) -> Memory {
        let mut memory = Memory::new(from.len());
        memory.write(0, from);
        memory
    }

    pub fn address(&mut self, offset: usize) -> u64 {
        assert!(offset <= self.bytes);
        self.words.as_mut_ptr() as u64 + offset as u64
    }

    pub fn write(&mut self, offset: usize, from: &[u8]) {
        let address = self.address(offset) as *mut u8;
        assert!(offset + from.len() <= self.bytes);
        // SAFETY: within the allocation, as was just checked; `from` cannot lie in it.
        unsafe { std::ptr::copy_nonoverlapping(from.as_ptr(), address, from.len()) };
    }

    pub fn read(&mut self, offset: usize, length: usize) -> Vec<u8> {
        let address = self.address(offset) as *const u8;
        assert!(offset + length <= self.bytes);
        // SAFETY: within the allocation, as was just checked; any bytes are good bytes.
        unsafe { std::slice::from_raw_parts(address, length) }.to_vec()
    }

    /// That nobody has written behind the end.
    pub fn check(&self) {
        let guard = &self.words[self.words.len() - GUARD_WORDS..];
        assert!(guard.iter().all(|word| *word == NOISE), "written beyond {} bytes", self.bytes);
    }
}
