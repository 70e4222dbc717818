//! What goes out to one peer next, and how few system calls does that take?
//!
//! Messages are copied into one text buffer; the payload of a block stays in its pool buffer. One
//! `writev` sends several of both. No byte of payload is copied, unless it is compressed or
//! unpacked for its peer: then it is text, too. A block that lies packed goes to a peer that takes
//! it so from its buffer.

use std::collections::VecDeque;
use std::io::IoSlice;

use swarm_proto::swarm::Send;
use swarm_proto::units::{Block, BufferId};
use swarm_proto::wire::message as wire;

use super::packer::Packer;
use crate::os::pool::Pool;

/// Blocks queued in one connection. 16 of them are 256 KiB a `writev`. More would save no further
/// system calls, and every queued block pins its buffer and can no longer be cancelled.
pub(super) const BLOCKS_MAX: usize = 16;

/// Slices that `Outbox::slices` fills at most: text and payload of each block, and text behind the
/// last one.
pub(super) const SLICES_MAX: usize = 2 * BLOCKS_MAX + 2;

/// Bytes of small messages queued in one connection before no more are asked for (one `bitfield`
/// may exceed it).
pub(super) const TEXT_BYTES_MAX: usize = 64 * 1024;

/// The text buffer shrinks to this when it is empty.
const TEXT_BYTES_IDLE: usize = 4096;

/// Bytes that wait for the kernel: a queue of segments, each some small messages followed by the
/// payload of one block.
#[derive(Default)]
pub(super) struct Outbox {
    /// The small messages and headers of all segments, one after the other.
    text: Vec<u8>,
    text_sent: usize,
    segments: VecDeque<Segment>,
    /// Of the first segment's payload.
    payload_sent: u32,
}

struct Segment {
    text_bytes: usize,
    payload: Option<Payload>,
}

/// The part of a pool buffer that is one block.
#[derive(Clone, Copy)]
struct Payload {
    buffer: BufferId,
    offset: u32,
    length: u32,
}

impl Outbox {
    pub(super) fn is_empty(&self) -> bool {
        self.segments.is_empty()
    }

    pub(super) fn has_room(&self) -> bool {
        self.segments.len() < BLOCKS_MAX && self.text.len() - self.text_sent < TEXT_BYTES_MAX
    }

    /// Returns the length of the payload, if it was to be compressed.
    pub(super) fn push(
        &mut self,
        send: Send,
        pool: &Pool,
        packer: &mut Packer,
        job: usize,
    ) -> Option<u32> {
        assert!(self.has_room());
        let mut wire_bytes = None;
        let text_before = self.text.len();
        let payload = match send {
            Send::Handshake(handshake) => {
                self.text.extend_from_slice(&handshake.encode());
                None
            }
            Send::Message(message) => {
                message.encode(&mut self.text);
                None
            }
            Send::Block {
                block,
                buffer,
                offset,
                packed,
                encode,
            } => {
                let lies = pool.packed_bytes(buffer, offset, block.length);
                let length = match (packed, lies) {
                    (Some(id), Some(packed_bytes)) => {
                        let header = wire::packed_header(block, packed_bytes, id);
                        self.text.extend_from_slice(&header);
                        wire_bytes = Some(packed_bytes);
                        packed_bytes
                    }
                    _ if pool.is_packed(buffer, offset, block.length) => {
                        self.push_unpacked(block, buffer, offset, pool);
                        0
                    }
                    _ => {
                        let bytes = &pool.bytes(buffer)[offset as usize..][..block.length as usize];
                        let shorter = packed
                            .and_then(|id| Some((id, packer.pack(job, block, bytes, encode)?)));
                        let length = shorter.map(|(_, shorter)| shorter.len() as u32);
                        wire_bytes = length.or(encode.then_some(block.length));
                        self.push_shorter(block, shorter)
                    }
                };
                Some(Payload {
                    buffer,
                    offset,
                    length,
                })
            }
        };
        let text_bytes = self.text.len() - text_before;
        match self.segments.back_mut() {
            Some(last) if last.payload.is_none() => {
                last.text_bytes += text_bytes;
                last.payload = payload;
            }
            _ => self.segments.push_back(Segment {
                text_bytes,
                payload,
            }),
        }
        wire_bytes
    }

    /// A block as an id and the bytes that it was compressed to, or else as it is. Returns how much
    /// of its payload follows: nothing of a compressed one, whose payload is text.
    fn push_shorter(&mut self, block: Block, shorter: Option<(u8, &[u8])>) -> u32 {
        let Some((id, shorter)) = shorter else {
            self.text.extend_from_slice(&wire::piece_header(block));
            return block.length;
        };
        let header = wire::packed_header(block, shorter.len() as u32, id);
        self.text.extend_from_slice(&header);
        self.text.extend_from_slice(shorter);
        0
    }

    /// A block that lies packed, for a peer that does not take it so.
    fn push_unpacked(&mut self, block: Block, buffer: BufferId, offset: u32, pool: &Pool) {
        self.text.extend_from_slice(&wire::piece_header(block));
        let start = self.text.len();
        self.text.resize(start + block.length as usize, 0);
        pool.unpack(buffer, offset, &mut self.text[start..]);
    }

    /// Fills `slices` with what is to be sent next. Returns how many slices that is, and how many
    /// bytes.
    pub(super) fn slices<'a>(
        &'a self,
        pool: &'a Pool,
        slices: &mut [IoSlice<'a>; SLICES_MAX],
    ) -> (usize, usize) {
        let (mut count, mut wanted, mut text_start) = (0, 0, self.text_sent);
        let mut payload_start = self.payload_sent;
        let mut add = |bytes: &'a [u8]| {
            if !bytes.is_empty() {
                slices[count] = IoSlice::new(bytes);
                count += 1;
                wanted += bytes.len();
            }
        };
        for segment in &self.segments {
            add(&self.text[text_start..text_start + segment.text_bytes]);
            text_start += segment.text_bytes;
            if let Some(payload) = segment.payload {
                let start = payload.offset + payload_start;
                let end = payload.offset + payload.length;
                add(&pool.bytes(payload.buffer)[start as usize..end as usize]);
            }
            payload_start = 0;
        }
        assert!(wanted > 0);
        (count, wanted)
    }

    /// Removes the first `bytes` bytes, which the kernel has taken. Returns how many blocks are
    /// completely sent by them.
    pub(super) fn consume(&mut self, mut bytes: usize) -> u32 {
        let mut blocks = 0;
        while let Some(segment) = self.segments.front_mut() {
            let text = bytes.min(segment.text_bytes);
            segment.text_bytes -= text;
            self.text_sent += text;
            bytes -= text;
            if segment.text_bytes > 0 {
                break;
            }
            if let Some(payload) = segment.payload {
                let part = bytes.min((payload.length - self.payload_sent) as usize);
                self.payload_sent += part as u32;
                bytes -= part;
                if self.payload_sent < payload.length {
                    break;
                }
                blocks += 1;
            }
            self.payload_sent = 0;
            self.segments.pop_front();
        }
        assert_eq!(bytes, 0);
        self.drop_sent_text();
        blocks
    }

    /// Keeps `text` from growing without end on a connection whose queue is never quite empty.
    fn drop_sent_text(&mut self) {
        if self.text_sent == self.text.len() {
            self.text.clear();
            self.text.shrink_to(TEXT_BYTES_IDLE);
            self.text_sent = 0;
        } else if self.text_sent >= TEXT_BYTES_MAX {
            self.text.drain(..self.text_sent);
            self.text_sent = 0;
        }
    }

    #[cfg(test)]
    pub(super) fn text_bytes(&self) -> usize {
        self.text.len()
    }
}
