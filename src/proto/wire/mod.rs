//! Bytes in flight: messages between peers, and HTTP with a tracker or a web server.

pub mod announce;
pub mod compact;
pub mod extension;
pub mod http;
pub mod message;
pub mod url;
