//! What does the torrent of a partclone image describe, and what is said of the image?

use swarm_proto::format::partclone::{Checksum, Image, Version};
use swarm_proto::limits::FILE_COUNT_MAX;
use swarm_proto::size::binary;

use super::{Contents, Options, source};
use crate::cmd::Failure;
use crate::os::device::Device;

/// The used blocks of a partclone image, and nothing else: that is what it has.
pub(super) fn contents(options: &Options, device: &Device) -> Result<Contents, Failure> {
    let refused = |why: &str| {
        let path = device.path.display();
        Failure::Because(format!("partclone image {path}: {why}"))
    };
    if options.decides() {
        let why = "its used blocks are described as they are, no option decides about them";
        return Err(refused(why));
    }
    let mut files = Vec::new();
    let image = source::read_image(device, &mut || true, &mut |start, length| {
        // More are refused, whatever their number.
        if files.len() < FILE_COUNT_MAX {
            files.push((start, length));
        }
    })?;
    if files.is_empty() {
        return Err(refused("none of its blocks is used"));
    }
    Ok(Contents {
        files,
        table: None,
        image: Some(image),
        known: true,
    })
}

/// What was found in its header, a line each.
pub(super) fn summary(image: &Image) -> String {
    let header = &image.header;
    let left_out = header.device_bytes - image.data.bytes();
    let version = match header.version {
        Version::Old => "0001",
        Version::New => "0002",
    };
    let mut text = format!(
        "left out: {left_out} bytes of unused blocks ({}), a target keeps what lies there\n\
         partclone image: {}, version {version}, {} of {} blocks of {} bytes are used\n",
        binary(left_out),
        header.file_system,
        image.used_blocks,
        header.total_blocks,
        header.block_bytes
    );
    if header.stated_blocks != image.used_blocks {
        let stated = header.stated_blocks;
        text += &format!("its header says that {stated} blocks are used, which is not so\n");
    }
    let result = match header.checksum {
        Checksum::Nothing => return text + "checksums: none\n",
        Checksum::Crc32 => "all of them fit",
        _ => "not checked",
    };
    let (checksum, blocks) = (header.checksum, header.strip_blocks);
    text + &format!("checksums: {checksum} of {blocks} blocks each, {result}\n")
}
