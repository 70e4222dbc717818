//! How does the torrent file appear complete or not at all, and over nothing that must not be lost?

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::cmd::Failure;
use crate::os::device::sync_directory;
use crate::os::file;

/// An existing torrent is replaced, as every maker does. Anything else with this name is not.
pub(super) fn refuse_output(output: &Path, source: &Path) -> Result<(), Failure> {
    let identity = |metadata: &fs::Metadata| (metadata.dev(), metadata.ino());
    let (found, source) = (fs::metadata(output), fs::metadata(source));
    let output = output.display();
    match (found, source) {
        (Ok(found), Ok(source)) if identity(&found) == identity(&source) => Err(Failure::Because(
            format!("-o {output} is the source itself"),
        )),
        (Ok(found), _) if !found.is_file() => Err(Failure::Because(format!(
            "-o {output} is not a regular file"
        ))),
        _ => Ok(()),
    }
}

/// A file that becomes `path` when it is complete, and never before. If it is dropped before that,
/// it is removed.
pub(super) struct Draft {
    path: PathBuf,
    temporary: PathBuf,
    file: File,
}

impl Draft {
    pub(super) fn create(path: &Path) -> Result<Draft, Failure> {
        let failed = |error| Failure::Because(format!("cannot write {}: {error}", path.display()));
        let Some(name) = path.file_name() else {
            return Err(failed(io::ErrorKind::IsADirectory.into()));
        };
        let temporary = path.with_file_name(format!(
            ".{}.{}",
            name.to_string_lossy(),
            std::process::id()
        ));
        let file = file::create(&temporary, 0o666).map_err(failed)?;
        Ok(Draft {
            path: path.into(),
            temporary,
            file,
        })
    }

    pub(super) fn commit(mut self, bytes: &[u8]) -> Result<(), Failure> {
        let written = self
            .file
            .write_all(bytes)
            .and_then(|()| self.file.sync_all());
        let renamed = written
            .and_then(|()| fs::rename(&self.temporary, &self.path))
            .and_then(|()| sync_directory(&self.path));
        renamed.map_err(|error| {
            Failure::Because(format!("cannot write {}: {error}", self.path.display()))
        })
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        // After the rename there is nothing to remove, and a file that stays would only be untidy.
        let _ = fs::remove_file(&self.temporary);
    }
}
