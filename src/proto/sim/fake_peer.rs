//! What do rude peers say? Small scripts that speak the wire protocol by hand.

use alloc::boxed::Box;
use alloc::collections::{BTreeMap, VecDeque};
use alloc::vec;
use alloc::vec::Vec;
use core::net::SocketAddr;

use super::ids::EndId;
use super::image::Image;
use super::packet::Packet;
use crate::limits::BLOCK_BYTES;
use crate::rng::Rng;
use crate::units::{PeerId, PieceIndex};
use crate::wire::message::{Handshake, Message, RawBlock};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Manner {
    /// Has everything, and one block in so many is not what it should be.
    Corrupts { one_in: u32 },
    /// Says it has everything and rejects every request.
    Boasts,
    /// Says it has everything, unchokes, and never sends.
    Ignores,
    /// Sends a few blocks, then neither reads nor writes, and keeps the connection.
    Freezes,
    /// Says it has everything and never unchokes.
    Chokes,
    /// Sends whatever can be decoded, in any order.
    Babbles,
    /// Sends good blocks, closes in the middle, and calls again.
    Flaps,
    /// Sends good blocks, one each turn.
    Creeps,
    /// Asks for far more than anybody keeps, and gives nothing.
    Devours,
    /// Answers a request with another block, or with a part of it.
    Mistakes,
}

pub const MANNERS: [Manner; 10] = [
    Manner::Corrupts { one_in: 3 },
    Manner::Boasts,
    Manner::Ignores,
    Manner::Freezes,
    Manner::Chokes,
    Manner::Babbles,
    Manner::Flaps,
    Manner::Creeps,
    Manner::Devours,
    Manner::Mistakes,
];

pub struct FakePeer {
    manner: Manner,
    image: Image,
    peer_id: PeerId,
    rng: Rng,
    /// How much a `Devours` asks for: a flood for the agent, a trickle for its link.
    requests_per_turn: u64,
    talks: BTreeMap<EndId, Talk>,
}

/// One connection.
#[derive(Default)]
struct Talk {
    says: VecDeque<Packet>,
    asked: VecDeque<RawBlock>,
    said_handshake: bool,
    sent_blocks: u32,
    frozen: bool,
}

/// What a fake peer wants of the world when its turn comes.
pub enum Wish {
    Call(SocketAddr),
    Close(EndId),
}

/// Packets waiting to be sent, per connection: what does not fit is not said.
const SAYS_MAX: usize = 4096;

impl FakePeer {
    pub fn new(manner: Manner, image: &Image, rate: u64, mut rng: Rng) -> FakePeer {
        let mut peer_id = *b"-FK0001-000000000000";
        peer_id[8..16].copy_from_slice(&rng.next_u64().to_be_bytes());
        FakePeer {
            manner,
            image: image.clone(),
            peer_id: PeerId(peer_id),
            rng,
            requests_per_turn: (rate / 2000).min(200),
            talks: BTreeMap::new(),
        }
    }

    pub fn manner(&self) -> Manner {
        self.manner
    }

    pub fn ends(&self) -> Vec<EndId> {
        self.talks.keys().copied().collect()
    }

    pub fn connected(&mut self, end: EndId) {
        let mut talk = Talk::default();
        talk.greet(self.image.metainfo.info_hash, self.peer_id, &self.opening());
        self.talks.insert(end, talk);
    }

    pub fn closed(&mut self, end: EndId) {
        self.talks.remove(&end);
    }

    /// Reads nothing more from this connection.
    pub fn is_frozen(&self, end: EndId) -> bool {
        self.talks.get(&end).is_some_and(|talk| talk.frozen)
    }

    pub fn next_packet(&mut self, end: EndId) -> Option<Packet> {
        let talk = self.talks.get_mut(&end)?;
        if talk.frozen {
            None
        } else {
            talk.says.pop_front()
        }
    }

    pub fn receives(&mut self, end: EndId, packet: Packet) {
        let opening = self.opening();
        let talk = self.talks.entry(end).or_default();
        match packet {
            Packet::Handshake(_) => {
                talk.greet(self.image.metainfo.info_hash, self.peer_id, &opening)
            }
            Packet::Message(Message::Interested) if self.manner != Manner::Chokes => {
                talk.says.push_back(Packet::Message(Message::Unchoke));
            }
            Packet::Message(Message::Request(block)) => self.is_asked(end, block),
            Packet::Message(Message::Cancel(block)) => talk.asked.retain(|asked| *asked != block),
            _ => {}
        }
    }

    fn opening(&self) -> Vec<Message> {
        match self.manner {
            Manner::Devours => vec![Message::HaveNone, Message::Interested],
            Manner::Babbles => vec![],
            _ => vec![Message::HaveAll],
        }
    }

    fn is_asked(&mut self, end: EndId, block: RawBlock) {
        let talk = self.talks.get_mut(&end).expect("somebody asked on it");
        let sends = |good| Packet::Block { block, good };
        match self.manner {
            Manner::Corrupts { one_in } => talk.says.push_back(sends(!self.rng.chance(1, one_in))),
            Manner::Boasts => talk.says.push_back(Packet::Message(Message::Reject(block))),
            Manner::Freezes => {
                talk.says.push_back(sends(true));
                talk.sent_blocks += 1;
                talk.frozen = talk.sent_blocks > 3;
            }
            Manner::Flaps => talk.says.push_back(sends(true)),
            Manner::Creeps => talk.asked.push_back(block),
            Manner::Mistakes => {
                let block = mistake(block, &mut self.rng);
                talk.says.push_back(Packet::Block { block, good: true });
            }
            Manner::Ignores | Manner::Chokes | Manner::Babbles | Manner::Devours => {}
        }
        talk.asked.truncate(SAYS_MAX);
        talk.says.truncate(SAYS_MAX);
    }

    /// Comes round about once a second. `known` is everybody the tracker knows.
    pub fn turn(&mut self, known: &[SocketAddr]) -> Vec<Wish> {
        let mut wishes = Vec::new();
        for (end, talk) in &mut self.talks {
            match self.manner {
                Manner::Creeps => {
                    let block = talk.asked.pop_front();
                    talk.says
                        .extend(block.map(|block| Packet::Block { block, good: true }));
                }
                Manner::Babbles => (0..self.rng.below(20)).for_each(|_| {
                    talk.says.push_back(babble(&self.image, &mut self.rng));
                }),
                Manner::Devours => (0..self.requests_per_turn).for_each(|_| {
                    let block = RawBlock {
                        index: self.rng.below(self.image.piece_count),
                        begin: 0,
                        length: 1 + self.rng.below(BLOCK_BYTES.min(self.image.piece_bytes)),
                    };
                    talk.says
                        .push_back(Packet::Message(Message::Request(block)));
                }),
                Manner::Flaps if self.rng.chance(1, 3) => wishes.push(Wish::Close(*end)),
                _ => {}
            }
            talk.says.truncate(SAYS_MAX);
        }
        if !known.is_empty() && self.talks.len() < 8 && self.rng.chance(1, 2) {
            wishes.push(Wish::Call(
                known[self.rng.below(known.len() as u32) as usize],
            ));
        }
        wishes
    }
}

impl Talk {
    fn greet(&mut self, info_hash: crate::units::InfoHash, peer_id: PeerId, opening: &[Message]) {
        if core::mem::replace(&mut self.said_handshake, true) {
            return;
        }
        let handshake = Handshake {
            fast: true,
            extended: false,
            info_hash,
            peer_id,
        };
        self.says.push_back(Packet::Handshake(Box::new(handshake)));
        self.says
            .extend(opening.iter().cloned().map(Packet::Message));
    }
}

/// Something near what was asked for.
fn mistake(block: RawBlock, rng: &mut Rng) -> RawBlock {
    let RawBlock {
        index,
        begin,
        length,
    } = block;
    match rng.below(5) {
        0 => RawBlock {
            index: index.wrapping_add(1),
            begin,
            length,
        },
        1 => RawBlock {
            index,
            begin: begin ^ BLOCK_BYTES,
            length,
        },
        2 => RawBlock {
            index,
            begin,
            length: length / 2 + 1,
        },
        3 => RawBlock {
            index,
            begin: begin.wrapping_add(1),
            length,
        },
        _ => block,
    }
}

/// Anything that can be decoded.
fn babble(image: &Image, rng: &mut Rng) -> Packet {
    let small = rng.chance(2, 3);
    let mut number = |bound: u32| {
        if small {
            rng.below(bound)
        } else {
            rng.next_u64() as u32
        }
    };
    let block = RawBlock {
        index: number(image.piece_count),
        begin: number(image.piece_length(PieceIndex(0))),
        length: number(BLOCK_BYTES + 1),
    };
    let message = match rng.below(19) {
        0 => Message::KeepAlive,
        1 => Message::Choke,
        2 => Message::Unchoke,
        3 => Message::Interested,
        4 => Message::NotInterested,
        5 | 6 => Message::Have(block.index),
        7 => Message::Bitfield(vec![
            rng.next_u64() as u8;
            rng.below(image.piece_count.div_ceil(8) + 1) as usize
        ]),
        8 => Message::Request(block),
        9 => Message::Cancel(block),
        10 => Message::Port(1),
        11 => Message::Suggest(block.index),
        12 => Message::HaveAll,
        13 => Message::HaveNone,
        14 => Message::Reject(block),
        15 => Message::AllowedFast(block.index),
        16 => Message::Extended {
            id: rng.below(4) as u8,
            payload: b"d4:reqqi99999999999999e1:md6:ut_pexi1eee".into(),
        },
        17 => Message::Unknown(77),
        _ => {
            // The frame decoder lets through 1 to BLOCK_BYTES.
            let length = block.length.clamp(1, BLOCK_BYTES);
            return Packet::Block {
                block: RawBlock { length, ..block },
                good: rng.chance(1, 2),
            };
        }
    };
    Packet::Message(message)
}
