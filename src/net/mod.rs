//! Sockets: connections to peers, HTTP exchanges, torrents from files and URLs.

pub mod fetch;
pub mod peer_socket;
