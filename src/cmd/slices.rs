//! Which slices are in a directory?
//!
//! Slices lie in the directory itself, or where other clients look for them: in one that is called
//! as the torrent is. For the volumes of LVM partclone's script makes two directories of a name
//! (FSBT: `vg` and below it `lv`), so one more may be in between if nothing else is there.
//!
//! Files that are named otherwise are not read. Of what is named as a slice all must be one: a
//! symbolic link or a pipe is refused by its name before it is opened.

use std::ffi::OsString;
use std::fs;
use std::io::{self, ErrorKind};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use swarm_proto::format::slices::{self, NotASlice, Slice, SliceName};
use swarm_proto::limits::FILE_COUNT_MAX;

use super::Failure;
use crate::os::directory;

/// What partclone writes beside its slices.
pub const TORRENT_INFO: &str = "torrent.info";

/// Called between the steps of what may take long, so that others have their turn. False ends it.
pub type Pause<'a> = &'a mut dyn FnMut() -> bool;

/// A directory of slices.
pub struct Directory {
    pub path: PathBuf,
    /// By their offsets; none overlap. At least one.
    pub slices: Vec<Slice>,
    /// Names that are no offsets: one of them, and how many more there are.
    ignored: Option<(OsString, u64)>,
}

impl Directory {
    /// The slices of a torrent of this name, or of the directory alone.
    pub fn find(
        path: &Path,
        torrent_name: Option<&str>,
        pause: Pause,
    ) -> Result<Directory, Failure> {
        let below = torrent_name.map(|name| path.join(name));
        let below = below.filter(|below| below.is_dir());
        if let Some(below) = below {
            let directory = Directory::read(&below, pause)?;
            if !directory.slices.is_empty() {
                return Ok(directory);
            }
            if let Some(only) = only_directory(&below) {
                let directory = Directory::read(&only, pause)?;
                if !directory.slices.is_empty() {
                    return Ok(directory);
                }
            }
        }
        let directory = Directory::read(path, pause)?;
        if directory.slices.is_empty() {
            let why = match path.join("parts").is_file() {
                true => {
                    "a Clonezilla image, which scripts/serve deploys and scripts/unshelve unpacks"
                }
                false => "a directory without slices, whose names are offsets in hexadecimal",
            };
            return Err(refusal(path, why));
        }
        Ok(directory)
    }

    fn read(path: &Path, pause: Pause) -> Result<Directory, Failure> {
        let failed = |error: io::Error| refusal(path, &format!("cannot be read: {error}"));
        let mut directory = Directory {
            path: path.into(),
            slices: Vec::new(),
            ignored: None,
        };
        for name in directory::names(path).map_err(failed)? {
            directory.take(name)?;
            if !pause() {
                return Err(failed(ErrorKind::Interrupted.into()));
            }
        }
        let found = &mut directory.slices;
        found.shrink_to_fit();
        slices::sort(found).map_err(|error| refusal(path, &error.to_string()))?;
        Ok(directory)
    }

    fn take(&mut self, file_name: OsString) -> Result<(), Failure> {
        let shown = file_name.to_string_lossy();
        let refused = |why: &str| refusal(&self.path, &format!("slice {shown} {why}"));
        let name = match SliceName::parse(file_name.as_bytes()) {
            Ok(name) => name,
            Err(NotASlice::NotHexadecimal) => {
                self.ignore(file_name);
                return Ok(());
            }
            Err(NotASlice::TooLarge) => return Err(refused("is at an offset that no disk has")),
            Err(NotASlice::MixedCase) => return Err(refused("has capital and small letters")),
        };
        let found = fs::symlink_metadata(self.path.join(&file_name));
        let found = found.map_err(|error| refused(&format!("cannot be asked: {error}")))?;
        match found.file_type() {
            kind if kind.is_dir() => self.ignore(file_name),
            kind if !kind.is_file() => return Err(refused("is not a regular file")),
            _ if self.slices.len() == FILE_COUNT_MAX => {
                return Err(refused(&format!("is one more than {FILE_COUNT_MAX}")));
            }
            _ => {
                let length = found.len();
                self.slices.push(Slice { name, length });
            }
        }
        Ok(())
    }

    /// Of several, the first name that is seen is told; `torrent.info` is nearly always the only
    /// one.
    fn ignore(&mut self, name: OsString) {
        match &mut self.ignored {
            Some((_, more)) => *more += 1,
            None => self.ignored = Some((name, 0)),
        }
    }

    /// The sentence about names that are no slices.
    pub fn note(&self) -> Option<String> {
        let (name, more) = self.ignored.as_ref()?;
        let (path, name) = (self.path.display(), name.to_string_lossy());
        let more = match more {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        Some(format!(
            "source {path}: {name}{more} is no slice and left out"
        ))
    }
}

/// The directory in a directory that has nothing else.
fn only_directory(path: &Path) -> Option<PathBuf> {
    let names = directory::names(path).ok()?;
    let [name] = names.as_slice() else {
        return None;
    };
    Some(path.join(name)).filter(|only| only.is_dir())
}

fn refusal(path: &Path, why: &str) -> Failure {
    Failure::Because(format!("source {}: {why}", path.display()))
}
