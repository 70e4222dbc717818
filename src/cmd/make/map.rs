//! What does the file of `--used-map` say about the source?

use std::fs::File;
use std::io::{self, Read};
use std::ops::Range;
use std::path::Path;

use swarm_proto::format::used_map;
use swarm_proto::limits::USED_MAP_BYTES_MAX;

use crate::cmd::Failure;
use crate::os::device::Device;

/// The used bytes, in order and apart from each other.
pub(super) fn read(path: &Path, source: &Device) -> Result<Vec<Range<u64>>, Failure> {
    let refused = |why: &str| Failure::Because(format!("used map {}: {why}", path.display()));
    let text = read_text(path).map_err(|error| refused(&error.to_string()))?;
    if text.len() > USED_MAP_BYTES_MAX {
        return Err(refused(&format!("more than {USED_MAP_BYTES_MAX} bytes")));
    }
    let used = used_map::parse(&text, source.size_bytes);
    used.map_err(|error| refused(&error.to_string()))
}

/// At most one byte more than is accepted.
fn read_text(path: &Path) -> io::Result<Vec<u8>> {
    let mut text = Vec::new();
    let limit = USED_MAP_BYTES_MAX as u64 + 1;
    File::open(path)?.take(limit).read_to_end(&mut text)?;
    Ok(text)
}
