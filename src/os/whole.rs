//! How is a file read whole that may be too long?

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

/// More than `bytes_max` is an error, and is not read.
pub fn read(path: &Path, bytes_max: usize) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let limit = bytes_max as u64 + 1;
    File::open(path)?.take(limit).read_to_end(&mut bytes)?;
    match bytes.len() > bytes_max {
        true => Err(io::Error::other(format!("longer than {bytes_max} bytes"))),
        false => Ok(bytes),
    }
}
