//! How does text from the network become text that a terminal may show? And where in a text does
//! another one stand?
//!
//! A tracker's failure reason and a peer's client name can be any bytes. Printed unchanged, they
//! could move the cursor, recolour the screen or reverse the line. Kept unchanged, they could be as
//! long as the message that held them.

use alloc::string::String;

/// The text, cut to at most `bytes_max` bytes, with U+FFFD for everything that does not print.
pub fn printable(bytes: &[u8], bytes_max: usize) -> String {
    // No character becomes shorter, so nothing after `bytes_max` can be part of the result. Cutting
    // first keeps the lossy copy small.
    let bytes = &bytes[..bytes.len().min(bytes_max)];
    let mut text = String::new();
    for character in String::from_utf8_lossy(bytes).chars() {
        let shown = if is_printable(character) {
            character
        } else {
            char::REPLACEMENT_CHARACTER
        };
        if text.len() + shown.len_utf8() > bytes_max {
            break;
        }
        text.push(shown);
    }
    text
}

/// False for control characters, line breaks, and characters that hide text or reverse its
/// direction.
pub fn is_printable(character: char) -> bool {
    let hides_or_reverses = matches!(character,
        '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}');
    !character.is_control() && !hides_or_reverses
}

/// `part` stands in the text.
///
/// Like `str::contains`, which finds long parts in long texts faster, by 2 KiB of code.
pub fn contains(text: &str, part: &str) -> bool {
    part.is_empty() || split_once(text, part).is_some()
}

/// What stands before and after the first `mark`.
///
/// Like `str::split_once`, which finds long marks in long texts faster, by 3 KiB of code.
pub fn split_once<'a>(text: &'a str, mark: &str) -> Option<(&'a str, &'a str)> {
    let mut places = text.as_bytes().windows(mark.len());
    let at = places.position(|place| place == mark.as_bytes())?;
    Some((&text[..at], &text[at + mark.len()..]))
}

/// The text with `new` in place of each `mark`.
pub fn replace(text: &str, mark: &str, new: &str) -> String {
    let (mut replaced, mut rest) = (String::new(), text);
    while let Some((before, after)) = split_once(rest, mark) {
        replaced.push_str(before);
        replaced.push_str(new);
        rest = after;
    }
    replaced + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_is_found() {
        for (text, part) in [
            ("", ""),
            ("ab", ""),
            ("ab", "ab"),
            ("aab", "ab"),
            ("äb", "ä"),
        ] {
            assert!(contains(text, part), "{part} in {text}");
        }
        for (text, part) in [("", "a"), ("ab", "abc"), ("ab", "ba")] {
            assert!(!contains(text, part), "{part} in {text}");
        }
    }

    #[test]
    fn plain_text_is_kept() {
        assert_eq!(
            printable(b"unregistered torrent", 256),
            "unregistered torrent"
        );
        assert_eq!(printable("größer €5".as_bytes(), 256), "größer €5");
    }

    #[test]
    fn marks_are_found_as_by_std() {
        for text in ["", "a", "ab", "aab", "-ab-ab-", "abab", "€ab€", "ba"] {
            assert_eq!(split_once(text, "ab"), text.split_once("ab"), "{text}");
            for new in ["", "ab", "FILE"] {
                assert_eq!(replace(text, "ab", new), text.replace("ab", new), "{text}");
            }
        }
    }

    #[test]
    fn control_characters_are_replaced() {
        assert_eq!(
            printable(b"\x1b[2Jgone\r\n", 256),
            "\u{fffd}[2Jgone\u{fffd}\u{fffd}"
        );
        assert_eq!(
            printable("a\u{9b}2Jb\u{202e}c".as_bytes(), 256),
            "a\u{fffd}2Jb\u{fffd}c"
        );
        assert_eq!(printable(b"\xff\xfe", 256), "\u{fffd}\u{fffd}");
    }

    #[test]
    fn length_is_bounded_without_splitting_a_character() {
        assert_eq!(printable(b"abcdef", 4), "abcd");
        assert_eq!(printable("ab€".as_bytes(), 4), "ab");
        for bytes_max in 0..40 {
            assert!(printable(&[0xff; 64], bytes_max).len() <= bytes_max);
            assert!(printable("ä€😀".repeat(20).as_bytes(), bytes_max).len() <= bytes_max);
        }
    }
}
