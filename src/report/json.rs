//! How does a program read where a job stands, or how it ended?
//!
//! One object on one line, whose members and their order are fixed: programs depend on them.
//! Nothing here knows where the object is sent.

use std::fmt;

use super::progress::Progress;
use super::{Disk, Outcome, State, Status};
use crate::target::Identity;

/// Where a job stands, in `state`. The last object of a job has the members of its `outcome` too.
pub(super) fn object(progress: &Progress, state: State, outcome: Option<&Outcome>) -> String {
    let disk = option(progress.status.disk.as_ref().map(disk));
    let ending = match outcome {
        Some(outcome) => outcome_members(outcome, &disk),
        None => {
            let good = progress.status.good;
            let waiting = waiting(&progress.status);
            format!("\"good\":{good},\"disk\":{disk}{waiting}")
        }
    };
    format!("{{{},{ending}}}", status_members(progress, state))
}

fn waiting(status: &Status) -> String {
    let member = |waiting| format!(",\"waiting\":{}", string(waiting));
    status.waiting.as_deref().map_or(String::new(), member)
}

fn status_members(progress: &Progress, state: State) -> String {
    let Status {
        torrent,
        target,
        have,
        pieces,
        fetched,
        uploaded,
        fetched_wire,
        uploaded_wire,
        peers,
        ..
    } = &progress.status;
    let (torrent, target) = (string(torrent), string(target));
    let permille = progress.status.permille();
    let (down, up) = (
        progress.down.bytes_per_second(),
        progress.up.bytes_per_second(),
    );
    let eta = option(progress.eta_seconds());
    let state = state.name();
    format!(
        "\"state\":\"{state}\",\"torrent\":{torrent},\"target\":{target},\"percent\":{}.{},\"have\":{have},\
         \"pieces\":{pieces},\"fetched\":{fetched},\"uploaded\":{uploaded},\"down\":{down},\"up\":{up},\
         \"peers\":{peers},\"eta\":{eta},\"fetched_wire\":{fetched_wire},\"uploaded_wire\":{uploaded_wire}",
        permille / 10,
        permille % 10,
    )
}

fn outcome_members(outcome: &Outcome, disk: &str) -> String {
    let Outcome {
        verified,
        good,
        took,
        bytes,
        ..
    } = outcome;
    let (seconds, millis) = (took.as_secs(), took.subsec_millis());
    let bad_offset = option(outcome.bad_offset);
    let info_hash = string(&outcome.info_hash);
    let error = option(outcome.error.as_deref().map(string));
    let (wiped, remains) = (list(&outcome.wiped), list(&outcome.remains));
    // In units of 0.1 MB.
    let speed = outcome.bytes_per_second() / 100_000;
    format!(
        "\"verified\":{verified},\"good\":{good},\"bad_offset\":{bad_offset},\"seconds\":{seconds}.{millis:03},\
         \"mb_per_second\":{}.{},\"bytes\":{bytes},\"info_hash\":{info_hash},\
         \"wiped\":[{wiped}],\"remains\":[{remains}],\"disk\":{disk},\"error\":{error}",
        speed / 10,
        speed % 10,
    )
}

fn disk(disk: &Disk) -> String {
    let Identity { model, serial } = &disk.identity;
    let text = |text: &Option<String>| option(text.as_deref().map(string));
    format!(
        "{{\"path\":{},\"model\":{},\"serial\":{},\"size\":{}}}",
        string(&disk.path),
        text(model),
        text(serial),
        disk.bytes,
    )
}

/// A string of JSON, with its quotes.
pub fn string(text: &str) -> String {
    let mut json = String::from('"');
    for letter in text.chars() {
        match letter {
            '"' | '\\' => json.extend(['\\', letter]),
            // RFC 8259 section 7 requires escapes for U+0000 to U+001F only. The other control
            // characters are escaped too, because a console may obey them.
            letter if letter.is_control() => {
                json.push_str(&format!("\\u{:04x}", u32::from(letter)))
            }
            letter => json.push(letter),
        }
    }
    json.push('"');
    json
}

fn list(texts: &[String]) -> String {
    let texts: Vec<String> = texts.iter().map(|text| string(text)).collect();
    texts.join(",")
}

pub(super) fn option(value: Option<impl fmt::Display>) -> String {
    value.map_or("null".into(), |value| value.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strings_are_escaped() {
        assert_eq!(
            string("a\"b\\c\n\u{1}\u{7f}é€"),
            "\"a\\\"b\\\\c\\u000a\\u0001\\u007fé€\""
        );
        assert_eq!(option(None::<u64>), "null");
    }
}
