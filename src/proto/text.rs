//! How do words from strangers become words a terminal may show?
//!
//! A tracker's failure reason or a peer's client name is whatever they sent. Printed as it is, it
//! could move the cursor, recolour the screen or turn the line around; kept as it is, it could be
//! as long as the answer that held it.

use alloc::string::String;

/// The text cut to at most `bytes_max` bytes, everything that does not print replaced by U+FFFD.
pub fn printable(bytes: &[u8], bytes_max: usize) -> String {
    // Nothing behind this can still be wanted; it keeps the lossy copy as small as its result.
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

/// Not a control character, a line break, or one of those that hide text or turn its direction
/// around.
fn is_printable(character: char) -> bool {
    let hides_or_turns = matches!(character,
        '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}');
    !character.is_control() && !hides_or_turns
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_text_stays() {
        assert_eq!(
            printable(b"unregistered torrent", 256),
            "unregistered torrent"
        );
        assert_eq!(printable("größer €5".as_bytes(), 256), "größer €5");
    }

    #[test]
    fn what_a_terminal_would_obey_is_replaced() {
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
