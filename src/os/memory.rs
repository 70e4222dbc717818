//! How much memory could programs still get?
//!
//! Read first: proc_meminfo(5).

/// `None` where the kernel does not say it. It counts caches that can be given up, and never what
/// is on swap.
pub fn available_bytes() -> Option<u64> {
    available_in(&super::whole::read_text("/proc/meminfo".as_ref()).ok()?)
}

fn available_in(meminfo: &str) -> Option<u64> {
    let rest = meminfo
        .lines()
        .find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let kib: u64 = rest.trim_ascii().strip_suffix(" kB")?.parse().ok()?;
    kib.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_is_found() {
        let text = "MemTotal:  111 kB\nMemFree:  5 kB\nMemAvailable:   61440 kB\nBuffers: 1 kB\n";
        assert_eq!(available_in(text), Some(60 << 20));
        assert_eq!(available_in("MemTotal:  111 kB\n"), None);
        assert_eq!(available_in("MemAvailable: x kB\n"), None);
        assert!(available_bytes().is_some());
    }
}
