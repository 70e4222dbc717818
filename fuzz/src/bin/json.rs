//! Is every line that a program sends the daemon an object or an error?
//!
//! Holds: nothing panics; what was read, written again and read again is the same; a line that was
//! cut short is an error. Input: the line.
#![no_main]

use libfuzzer_sys::fuzz_target;
use swarm_proto::wire::json::{Value, object};

fuzz_target!(|line: &[u8]| {
    let Ok(members) = object(line) else { return };
    let written = write(&members);
    assert_eq!(
        object(written.as_bytes()).as_ref(),
        Ok(&members),
        "{written}"
    );
    for end in 0..written.len() {
        assert!(
            object(&written.as_bytes()[..end]).is_err(),
            "{written}, {end}"
        );
    }
});

fn write(members: &[(String, Value)]) -> String {
    let member = |(name, value): &(String, Value)| {
        let value = match value {
            Value::Text(text) => string(text),
            Value::Word(word) => word.clone(),
        };
        format!("{}:{value}", string(name))
    };
    let members: Vec<String> = members.iter().map(member).collect();
    format!("{{{}}}", members.join(","))
}

/// Every unit of UTF-16 as an escape.
fn string(text: &str) -> String {
    let escapes: String = text
        .encode_utf16()
        .map(|unit| format!("\\u{unit:04x}"))
        .collect();
    format!("\"{escapes}\"")
}
