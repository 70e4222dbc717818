//! How is a number of bytes read from the command line, and how is it shown to people?

use alloc::format;
use alloc::string::String;
use core::fmt;

/// A size or a rate on the command line: digits, then at most one of `K M G T` in either case,
/// which are powers of 1024. "4M" is 4,194,304.
pub fn parse_size(text: &str) -> Result<u64, SizeError> {
    let (digits, shift) = match text.as_bytes().last().map(u8::to_ascii_uppercase) {
        Some(b'K') => (&text[..text.len() - 1], 10),
        Some(b'M') => (&text[..text.len() - 1], 20),
        Some(b'G') => (&text[..text.len() - 1], 30),
        Some(b'T') => (&text[..text.len() - 1], 40),
        _ => (text, 0),
    };
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(SizeError::NotASize { text: text.into() });
    }
    let too_large = || SizeError::TooLarge { text: text.into() };
    let number: u64 = digits.parse().map_err(|_| too_large())?;
    number.checked_mul(1 << shift).ok_or_else(too_large)
}

/// A size as it is printed on a disk, in powers of 1000: `512 B`, `500.1 GB`. Rounded.
pub fn decimal(bytes: u64) -> String {
    let mut divisor = 1_u64;
    for unit in ["kB", "MB", "GB", "TB", "PB", "EB"] {
        divisor *= 1000;
        let tenths = bytes.saturating_add(divisor / 20) / (divisor / 10);
        // What would be printed as 1000.0 is 1.0 of the next unit.
        if bytes >= 1000 && tenths < 10_000 {
            return format!("{}.{} {unit}", tenths / 10, tenths % 10);
        }
    }
    format!("{bytes} B")
}

/// `decimal`, and the number itself: disks of the same printed size differ by a few sectors.
pub fn exact(bytes: u64) -> String {
    format!("{} ({bytes} bytes)", decimal(bytes))
}

/// An amount of data or a rate, in powers of 1024: `512 B`, `1.5 KiB`, `56.9 MiB`. Rounded down,
/// so that a total is never reached early.
pub fn binary(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    // 1024 has 11 bits: each further 10 bits are the next unit.
    let unit = (63 - bytes.leading_zeros()) / 10 - 1;
    let tenths = ((u128::from(bytes) * 10) >> (10 * (unit + 1))) as u64;
    format!("{}.{} {}", tenths / 10, tenths % 10, UNITS[unit as usize])
}

/// Text on the command line that is not a size.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SizeError {
    NotASize { text: String },
    TooLarge { text: String },
}

impl fmt::Display for SizeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SizeError::NotASize { text } => {
                write!(
                    f,
                    "\"{text}\" is no size: a whole number, then K, M, G or T (powers of 1024) or nothing"
                )
            }
            SizeError::TooLarge { text } => write!(f, "\"{text}\" is larger than 16 EiB"),
        }
    }
}

impl core::error::Error for SizeError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_parsed() {
        let cases = [
            ("0", 0),
            ("512", 512),
            ("4K", 4096),
            ("4m", 4 << 20),
            ("16777215T", 16_777_215 << 40),
            ("18446744073709551615", u64::MAX),
        ];
        for (text, bytes) in cases {
            assert_eq!(parse_size(text), Ok(bytes), "{text}");
        }
    }

    #[test]
    fn text_that_is_no_size_is_refused() {
        for text in [
            "", "K", "4MB", "4 M", "-1", "+1", "1.5G", "0x10", "M4", "4µ", "K4K",
        ] {
            assert_eq!(
                parse_size(text),
                Err(SizeError::NotASize { text: text.into() }),
                "{text}"
            );
        }
        for text in [
            "16777216T",
            "18446744073709551616",
            "99999999999999999999999K",
        ] {
            assert_eq!(
                parse_size(text),
                Err(SizeError::TooLarge { text: text.into() }),
                "{text}"
            );
        }
    }

    #[test]
    fn disk_sizes_are_shown_in_powers_of_1000() {
        let cases = [
            (0, "0 B"),
            (999, "999 B"),
            (1000, "1.0 kB"),
            (1049, "1.0 kB"),
            (1050, "1.1 kB"),
            (999_949, "999.9 kB"),
            (999_950, "1.0 MB"),
            (1_000_204_886_016, "1.0 TB"),
            (u64::MAX, "18.4 EB"),
        ];
        for (bytes, text) in cases {
            assert_eq!(decimal(bytes), text);
        }
    }

    #[test]
    fn amounts_are_shown_in_powers_of_1024() {
        let cases = [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.0 KiB"),
            (1536, "1.5 KiB"),
            ((1 << 20) - 1, "1023.9 KiB"),
            (5 << 30, "5.0 GiB"),
            (u64::MAX, "15.9 EiB"),
        ];
        for (bytes, text) in cases {
            assert_eq!(binary(bytes), text);
        }
    }
}
