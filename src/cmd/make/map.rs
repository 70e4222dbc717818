//! What does the file of `--used-map` say about the source?

use std::fmt::Display;
use std::ops::Range;
use std::path::Path;

use swarm_proto::format::used_map;
use swarm_proto::limits::USED_MAP_BYTES_MAX;

use crate::cmd::Failure;
use crate::os::device::Device;
use crate::os::whole;

/// The used bytes, in order and apart from each other. `is_partition`: the source has no partition
/// table.
pub(super) fn read(
    path: &Path,
    source: &Device,
    is_partition: bool,
) -> Result<Vec<Range<u64>>, Failure> {
    let refused = |why: &dyn Display| {
        let path = path.display();
        Failure::Because(format!("used map {path}: {why}"))
    };
    let text = whole::read(path, USED_MAP_BYTES_MAX).map_err(|error| refused(&error))?;
    used_map::parse(&text, source.size_bytes, is_partition).map_err(|error| refused(&error))
}
