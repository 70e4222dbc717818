//! Which slices are open?
//!
//! A directory may have a million, and a process a thousand descriptors. So a slice is opened when
//! the kernel can take a request for it, and the one that was used longest ago is closed for it.
//! A request needs its descriptor until `io_submit` has taken it; from then on the kernel holds the
//! file itself (fs/aio.c, `ki_filp`). If at most N requests are handed over and have not completed,
//! those not yet taken are the last of them, and so the last N slices that were used contain all
//! that are needed.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::Arc;

use swarm_proto::format::slices::SliceTable;

use crate::os::device::Device;

pub(super) struct OpenSlices {
    device: Device,
    table: Arc<SliceTable>,
    /// The one that was used last is at the end.
    open: Vec<(u32, File)>,
    open_count_max: usize,
}

impl OpenSlices {
    pub(super) fn new(
        device: &Device,
        table: Arc<SliceTable>,
        open_count_max: usize,
    ) -> io::Result<OpenSlices> {
        Ok(OpenSlices {
            device: device.duplicate()?,
            table,
            open: Vec::new(),
            open_count_max,
        })
    }

    /// The descriptor of a slice, or the errno of opening it. It stays open while fewer than
    /// `open_count_max` others are asked for.
    pub(super) fn fd(&mut self, index: u32) -> Result<RawFd, i32> {
        let found = self.open.iter().rposition(|(open, _)| *open == index);
        let used = match found {
            Some(place) => self.open.remove(place),
            None => {
                if self.open.len() == self.open_count_max {
                    self.open.remove(0);
                }
                let name = self.table.name(index).to_string();
                let file = self.device.open_slice(&name);
                (index, file.map_err(|error| errno(&error))?)
            }
        };
        let fd = used.1.as_raw_fd();
        self.open.push(used);
        Ok(fd)
    }
}

/// What is at a path but is no file has none.
fn errno(error: &io::Error) -> i32 {
    error.raw_os_error().unwrap_or(libc::ESTALE)
}
