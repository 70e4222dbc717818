//! How do bytes get here over the network: connections to peers, HTTP exchanges, torrents?

pub mod dns;
pub mod http;
pub mod outbox;
pub mod peer_socket;
pub mod torrent;
