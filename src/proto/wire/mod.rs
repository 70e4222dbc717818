//! Bytes in flight: messages between peers, and HTTP with a tracker or a web server.

pub mod announce;
pub(crate) mod compact;
pub(crate) mod extension;
pub mod http;
pub mod message;
pub mod url;
