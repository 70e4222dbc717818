//! Sizes and rates as they stand on the command line: a number and `K M G T`, powers of 1024.

use alloc::string::String;
use core::fmt;

/// "4M" is 4,194,304. Nothing but digits and at most one letter, in either case.
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
    fn sizes() {
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
    fn what_is_no_size_is_named() {
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
}
