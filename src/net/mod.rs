//! How do bytes get here over the network: connections to peers, HTTP exchanges, torrents?

pub mod dns;
pub mod http;
mod outbox;
pub mod packer;
pub mod peer_socket;
pub mod torrent;
