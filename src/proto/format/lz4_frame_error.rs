//! Why is a packed image not read in place?

use core::fmt;

/// Offsets are those in the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PackedError {
    /// Something that is no skippable frame begins here, behind the end of the frame.
    Behind(u64),
    /// The block at this place is damaged.
    Block(u64),
    /// Blocks of this many bytes.
    BlockBytes(u64),
    /// The file ends here, and not the frame.
    Cut(u64),
    /// The header is not what its checksum says.
    Header,
    /// The header and the blocks say this of the length of the image.
    Length { stated: u64, found: u64 },
    /// Another kind of file.
    Other(&'static str),
    /// The caller could not read it.
    Unread,
}

impl PackedError {
    /// `lz4` can read what we do not.
    pub fn is_whole(&self) -> bool {
        matches!(
            self,
            PackedError::Behind(_) | PackedError::BlockBytes(_) | PackedError::Other(_)
        )
    }
}

impl fmt::Display for PackedError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PackedError::Behind(at) => {
                write!(
                    f,
                    "its frame ends at byte {at}, and only one frame is read in place"
                )
            }
            PackedError::Block(at) => write!(f, "its block at byte {at} is damaged"),
            PackedError::BlockBytes(bytes) => write!(
                f,
                "its blocks have {bytes} bytes, and only 4096, 8192, ... 262144 are read in place"
            ),
            PackedError::Cut(at) => write!(f, "it is cut short: it ends at byte {at}"),
            PackedError::Header => f.write_str("its header is damaged"),
            PackedError::Length { stated, found } => write!(
                f,
                "its header says {stated} bytes, and its blocks hold {found}"
            ),
            PackedError::Other(what) => write!(f, "it {what}"),
            PackedError::Unread => f.write_str("it cannot be read"),
        }
    }
}
