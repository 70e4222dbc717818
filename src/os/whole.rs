//! How is a file read whole, also one that may be too long?

use super::file;
use std::io::{self, Read};
use std::path::Path;

/// More than `bytes_max` is an error, and is not read.
pub fn read(path: &Path, bytes_max: usize) -> io::Result<Vec<u8>> {
    let bytes = read_start(path, bytes_max + 1)?;
    match bytes.len() > bytes_max {
        true => Err(super::error(format!("longer than {bytes_max} bytes"))),
        false => Ok(bytes),
    }
}

/// A file of the kernel, which are all short.
pub fn read_all(path: &Path) -> io::Result<Vec<u8>> {
    read_start(path, usize::MAX)
}

/// As `read_all`. Bytes that are no text are an error.
pub fn read_text(path: &Path) -> io::Result<String> {
    String::from_utf8(read_all(path)?).map_err(|_| io::ErrorKind::InvalidData.into())
}

/// The first `bytes_max` bytes, or all if there are fewer.
pub fn read_start(path: &Path, bytes_max: usize) -> io::Result<Vec<u8>> {
    /// Most files of the kernel are shorter, and none is cut into more by it.
    const FIRST_BYTES: usize = 4096;
    let mut file = file::open(path, libc::O_RDONLY)?;
    let mut bytes = Vec::new();
    loop {
        let filled = bytes.len();
        bytes.resize(bytes_max.min(FIRST_BYTES.max(2 * filled)), 0);
        let count = match file.read(&mut bytes[filled..]) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => 0,
            Err(error) => return Err(error),
            Ok(0) => {
                bytes.truncate(filled);
                return Ok(bytes);
            }
            Ok(count) => count,
        };
        bytes.truncate(filled + count);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::os::testing::Scratch;

    #[test]
    fn a_file_is_read_to_its_end_or_to_the_limit() {
        let scratch = Scratch::new("whole");
        for length in [0, 1, 4095, 4096, 4097, 8192, 100_000] {
            let bytes: Vec<u8> = (0..length).map(|at| (at % 251) as u8).collect();
            std::fs::write(scratch.path(), &bytes).unwrap();
            assert!(read_all(scratch.path()).unwrap() == bytes);
            for limit in [0, 1, 4096, 5000, length, length + 1] {
                let start = read_start(scratch.path(), limit).unwrap();
                assert!(start == bytes[..limit.min(length)], "{length} {limit}");
                let all = read(scratch.path(), limit);
                assert_eq!(all.is_ok(), length <= limit, "{length} {limit}");
            }
        }
        assert!(read_text(Path::new("/proc/self/mountinfo")).unwrap().len() > 100);
        let odd = Scratch::new("odd");
        std::fs::write(odd.path(), b"\xff").unwrap();
        assert_eq!(
            read_text(odd.path()).unwrap_err().kind(),
            io::ErrorKind::InvalidData
        );
        let missing = Scratch::new("missing");
        assert_eq!(
            read_all(missing.path()).unwrap_err().kind(),
            io::ErrorKind::NotFound
        );
    }
}
