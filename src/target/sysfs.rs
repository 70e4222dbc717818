//! How is a file of sysfs or proc read?
//!
//! Read first: Documentation/filesystems/sysfs.rst of the kernel, proc_pid_mountinfo(5).

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use crate::os::{directory, whole};

/// `size` and `start` count units of 512 bytes, whatever the sector.
pub(super) fn read_bytes(directory: &Path, file: &str) -> Option<u64> {
    read_text(directory, file)?
        .parse::<u64>()
        .ok()?
        .checked_mul(512)
}

/// An attribute; `None` if it is missing or blank.
pub(super) fn read_text(directory: &Path, file: &str) -> Option<String> {
    clean(&String::from_utf8_lossy(
        &whole::read_all(&directory.join(file)).ok()?,
    ))
}

/// An attribute that is a number and not 0.
pub(super) fn read_flag(directory: &Path, file: &str) -> bool {
    read_text(directory, file).is_some_and(|text| text != "0")
}

/// Printable ASCII with single spaces: disks pad their names with spaces, and some with control
/// characters, and the result goes to terminals and into reports.
pub(super) fn clean(text: &str) -> Option<String> {
    let words = text.split(|letter: char| !letter.is_ascii_graphic());
    let words: Vec<&str> = words.filter(|word| !word.is_empty()).collect();
    (!words.is_empty()).then(|| words.join(" "))
}

/// The names in a directory, sdb before sdaa; none if there is no directory. The kernel's names are
/// ASCII.
pub(super) fn list(directory: &Path) -> Vec<String> {
    let names = directory::names(directory).unwrap_or_default().into_iter();
    let mut names: Vec<String> = names.filter_map(|name| name.into_string().ok()).collect();
    names.sort_unstable_by(|a, b| a.len().cmp(&b.len()).then_with(|| a.cmp(b)));
    names
}

/// Undoes the octal escapes of space, tab, newline and backslash in mountinfo and swaps: "\040" is
/// a space.
pub(super) fn unescape(text: &str) -> String {
    let mut parts = text.split('\\');
    let mut result = String::from(parts.next().unwrap_or_default());
    for part in parts {
        match part
            .get(..3)
            .and_then(|digits| u8::from_str_radix(digits, 8).ok())
        {
            Some(byte) => {
                result.push(char::from(byte));
                result.push_str(&part[3..]);
            }
            None => {
                result.push('\\');
                result.push_str(part);
            }
        }
    }
    result
}

/// A file that cannot be read, and without which nothing is known about disks.
#[derive(Debug)]
pub struct InventoryError {
    pub(super) path: PathBuf,
    pub(super) error: io::Error,
}

impl fmt::Display for InventoryError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "cannot list the disks: {}: {}",
            self.path.display(),
            self.error
        )
    }
}

impl std::error::Error for InventoryError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_made_printable() {
        assert_eq!(
            clean("  WDC  \u{1b}[31mRED\0\n").as_deref(),
            Some("WDC [31mRED")
        );
        assert_eq!(clean(" \0 "), None);
        assert_eq!(unescape(r"a\040b\134c\x"), r"a b\c\x");
    }
}
