//! Memory of the machine, and of this process what is free and still held.

/// Returns how much memory the machine has, in bytes.
pub fn total() -> Option<u64> {
    total_of(&std::fs::read_to_string("/proc/meminfo").ok()?)
}

fn total_of(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    line.trim().strip_suffix(" kB")?.parse::<u64>().ok()?.checked_mul(1024)
}

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

    #[test]
    fn the_memory_of_the_machine_is_told_in_bytes() {
        assert_eq!(total_of("MemTotal:       16384 kB\nMemFree:         1 kB\n"), Some(16 << 20));
        assert_eq!(total_of("MemFree: 1 kB\n"), None);
        assert!(total().is_some_and(|total| total > 1 << 20));
    }

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
