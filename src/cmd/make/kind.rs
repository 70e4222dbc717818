//! Is a source a raw disk image, and not a file of another format?

use std::io::{self, Write};
use std::path::Path;

use swarm_proto::format::file_formats::{self, FileFormat};
use swarm_proto::format::signatures::{self, Signatures};

use super::cannot_read;
use crate::cmd::Failure;
use crate::os::device::Device;
use crate::storage::sectors;

pub(super) fn refuse_directory(source: &Path) -> Result<(), Failure> {
    match source.is_dir() {
        true => Err(not_yet(source, "a directory of slices")),
        false => Ok(()),
    }
}

/// Refuses a file of another format: it would be deployed byte for byte, as if it were a raw image.
/// Returns whether a partition table or a file system was recognised.
pub(super) fn check(device: &Device, has_table: bool) -> Result<bool, Failure> {
    let size_bytes = device.size_bytes;
    let ends = |head_bytes: usize, tail_bytes: usize| {
        let (head, tail) = (
            size_bytes.min(head_bytes as u64),
            size_bytes.min(tail_bytes as u64),
        );
        let head_read = sectors::read(device, 0, head as u32)?;
        io::Result::Ok((
            head_read,
            sectors::read(device, size_bytes - tail, tail as u32)?,
        ))
    };
    let (head, tail) = ends(signatures::HEAD_BYTES, signatures::TAIL_BYTES)
        .map_err(|error| cannot_read(device, error))?;
    let known = has_table || !Signatures::of(&head, &tail, size_bytes).found.is_empty();
    let path = &device.path;
    if head.starts_with(b"partclone-image") {
        return Err(not_yet(path, "a partclone image"));
    }
    let footer = match device.is_block() {
        true => &[],
        false => &tail[tail.len().saturating_sub(file_formats::TAIL_BYTES)..],
    };
    let head = &head[..head.len().min(file_formats::HEAD_BYTES)];
    let source = path.display();
    match FileFormat::of(head, footer, known) {
        Some(FileFormat { name, help }) => Err(Failure::Because(format!(
            "source {source} is {name}, not a raw disk image; try: {}; --raw takes it as it is",
            help.replace("FILE", &source.to_string())
        ))),
        None => Ok(known),
    }
}

/// The user decides whether such an image is worth deploying.
pub(super) fn say_unknown(source: &Path) {
    let source = source.display();
    // If stderr is closed, there is nobody to warn.
    let _ = writeln!(
        io::stderr(),
        "swarmdd: source {source} has no partition table and no known file system"
    );
}

fn not_yet(source: &Path, kind: &str) -> Failure {
    let source = source.display();
    Failure::Because(format!(
        "source {source}: {kind} is not yet supported, a device or a raw image is"
    ))
}
