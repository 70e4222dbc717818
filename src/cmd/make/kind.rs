//! Is a source a raw disk image, and not a file of another format?

use std::path::Path;

use swarm_proto::format::file_formats::{self, FileFormat};
use swarm_proto::text;

use super::cannot_read;
use crate::cmd::Failure;
use crate::cmd::source::quoted;
use crate::os::device::Device;
use crate::os::tty;
use crate::storage::sectors;

/// Refuses a file of another format: it would be deployed byte for byte, as if it were a raw image.
/// Returns whether a partition table or a file system was recognised.
pub(super) fn check(device: &Device, has_table: bool) -> Result<bool, Failure> {
    let failed = |error| cannot_read(device, error);
    let end = |length: usize| device.size_bytes.min(length as u64);
    let (first, last) = (end(file_formats::HEAD_BYTES), end(file_formats::TAIL_BYTES));
    let head = sectors::read(device, 0, first as u32).map_err(failed)?;
    let tail = match device.is_block() {
        true => Vec::new(),
        false => sectors::read(device, device.size_bytes - last, last as u32).map_err(failed)?,
    };
    let known = has_table
        || !sectors::signatures(device, 0..device.size_bytes)
            .map_err(failed)?
            .found
            .is_empty();
    let path = &device.path;
    let source = path.display();
    match FileFormat::of(&head, &tail, known) {
        Some(FileFormat { name, help }) => Err(Failure::Because(format!(
            "source {source} is {name}, not a raw disk image; try: {}; --raw takes it as it is",
            text::replace(help, "FILE", &quoted(&source.to_string()))
        ))),
        None => Ok(known),
    }
}

/// The user decides whether such an image is worth deploying.
pub(super) fn say_unknown(source: &Path) {
    let source = source.display();
    tty::complain(&format!(
        "source {source} has no partition table and no known file system"
    ));
}
