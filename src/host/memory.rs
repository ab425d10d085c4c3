//! Memory of this process that is free and still held.

/// Gives free memory back to the kernel. Of what an `up` of many containers needed for a moment, glibc keeps whatever
/// lies below something that lives on: many times what the agent itself has. Takes some milliseconds; others who
/// allocate may wait for it.
#[cfg(target_env = "gnu")]
pub fn give_back() {
    #[expect(unsafe_code, reason = "no safe wrapper")]
    // SAFETY: it takes no pointer, and may be called at any time by any thread.
    unsafe {
        libc::malloc_trim(0);
    }
}

/// Other allocators give back by themselves.
#[cfg(not(target_env = "gnu"))]
pub fn give_back() {}

#[cfg(all(test, target_env = "gnu"))]
mod tests {
    use super::*;

    /// Bytes of memory of the process's own.
    fn resident() -> usize {
        let status = std::fs::read_to_string("/proc/self/status").expect("there");
        let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).expect("a line");
        line.trim().trim_end_matches(" kB").parse::<usize>().expect("a number") * 1024
    }

    #[test]
    fn what_lies_below_something_that_lives_on_is_given_back() {
        const BLOCK: usize = 4096;
        const BLOCKS: usize = 16 << 10;
        let mut blocks: Vec<Vec<u8>> = (0..BLOCKS).map(|_| vec![1; BLOCK]).collect();
        let last = blocks.pop();
        drop(blocks);
        let before = resident();
        give_back();
        let after = resident();
        assert!(before > BLOCK * BLOCKS / 2, "{before}");
        assert!(after < before / 4, "{before} {after}");
        drop(last);
    }
}
