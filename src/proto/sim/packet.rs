//! What travels between two machines?

use alloc::boxed::Box;
use core::time::Duration;

use super::ids::EndId;
use crate::units::Instant;
use crate::wire::message::{
    HANDSHAKE_BYTES, Handshake, Message, PACKED_HEADER_BYTES, PIECE_HEADER_BYTES, RawBlock,
};

/// One message. No payload travels, only whether the bytes are those of the torrent (`good`).
#[derive(Clone, Debug)]
pub enum Packet {
    Handshake(Box<Handshake>),
    Message(Message),
    Block {
        block: RawBlock,
        good: bool,
        /// What its payload is compressed to.
        packed: Option<u32>,
    },
}

impl Packet {
    pub fn bytes(&self) -> u32 {
        match self {
            Packet::Handshake(_) => HANDSHAKE_BYTES as u32,
            Packet::Block {
                packed: Some(wire_bytes),
                ..
            } => PACKED_HEADER_BYTES as u32 + wire_bytes,
            Packet::Block { block, .. } => PIECE_HEADER_BYTES as u32 + block.length,
            Packet::Message(message) => match message {
                Message::KeepAlive => 4,
                Message::Bitfield(bits) => 5 + bits.len() as u32,
                Message::Extended { payload, .. } => 6 + payload.len() as u32,
                Message::Have(_) | Message::Suggest(_) | Message::AllowedFast(_) => 9,
                Message::Request(_) | Message::Cancel(_) | Message::Reject(_) => 17,
                Message::Port(_) => 7,
                _ => 5,
            },
        }
    }
}

/// Consecutive messages of one connection that an uplink sends as a whole.
#[derive(Clone, Copy, Debug)]
pub struct Segment {
    /// The end that sent it.
    pub from: EndId,
    /// Messages before the block.
    pub small_count: u32,
    pub has_block: bool,
    pub bytes: u32,
    /// Time that the uplink of the sender takes.
    pub sending: Duration,
    /// When the downlink of the receiver has received it.
    pub ends_at: Instant,
}
