//! What is wrong with a partclone image, and where?

use core::fmt;

/// Offsets are those in the image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ImageError {
    /// The caller could not read it.
    Unread,
    /// At this offset, this is wrong.
    At(u64, &'static str),
    /// A field, its offset, and its value, which cannot be.
    Field(&'static str, u64, u64),
    SmallDevice {
        offset: u64,
        device_bytes: u64,
        total_blocks: u64,
        block_bytes: u32,
    },
    /// The CRC-32 of this part, stored at this offset, is of other bytes.
    Sum {
        what: &'static str,
        offset: u64,
        computed: u32,
        stored: u32,
    },
    Truncated {
        file_bytes: u64,
        needed_bytes: u64,
        what: &'static str,
    },
}

pub(super) fn check_sum(
    what: &'static str,
    offset: u64,
    computed: u32,
    stored: u32,
) -> Result<(), ImageError> {
    match computed == stored {
        true => Ok(()),
        false => Err(ImageError::Sum {
            what,
            offset,
            computed,
            stored,
        }),
    }
}

impl fmt::Display for ImageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ImageError::Unread => f.write_str("it cannot be read"),
            ImageError::At(offset, what) => write!(f, "byte {offset}: {what}"),
            ImageError::Field(name, offset, value) => {
                write!(f, "byte {offset}: the {name} cannot be {value}")
            }
            ImageError::SmallDevice {
                offset,
                device_bytes,
                total_blocks,
                block_bytes,
            } => write!(
                f,
                "byte {offset}: a device of {device_bytes} bytes has no room for {total_blocks} blocks of {block_bytes} bytes"
            ),
            ImageError::Sum {
                what,
                offset,
                computed,
                stored,
            } => write!(
                f,
                "the {what} is damaged: its CRC-32 is {computed:08x}, at byte {offset} is {stored:08x}"
            ),
            ImageError::Truncated {
                file_bytes,
                needed_bytes,
                what,
            } => write!(
                f,
                "it is cut short: it ends at byte {file_bytes}, its {what} at byte {needed_bytes}"
            ),
        }
    }
}
