//! How is a file read whole that may be too long?

use std::fs::File;
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

/// The first `bytes_max` bytes, or all if there are fewer.
pub fn read_start(path: &Path, bytes_max: usize) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let file = File::open(path)?;
    file.take(bytes_max as u64).read_to_end(&mut bytes)?;
    Ok(bytes)
}
