//! Bytes in flight: what do peers, trackers and web servers send each other?
//!
//! `message` and `extension` are the protocol between peers. `url` and `http` fetch torrents and
//! carry announces, `announce` is what a tracker is told and answers, `compact` is how peer
//! addresses are packed. `dns` is what a name server is asked and answers. `json` is what programs
//! of this machine ask the daemon in.
#![cfg_attr(
    not(test),
    warn(clippy::cast_possible_truncation, clippy::cast_sign_loss)
)]

pub mod announce;
pub mod compact;
pub mod dns;
pub mod extension;
pub mod http;
pub mod json;
pub mod message;
pub mod url;
