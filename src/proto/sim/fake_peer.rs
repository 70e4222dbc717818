//! How does a peer that breaks the rules behave? Small scripts that speak the wire protocol by
//! hand.

use alloc::boxed::Box;
use alloc::collections::{BTreeMap, BTreeSet, VecDeque};
use alloc::vec;
use alloc::vec::Vec;
use core::net::SocketAddr;

use super::ids::EndId;
use super::image::Image;
use super::packet::Packet;
use crate::limits::{BLOCK_BYTES, PEX_PEER_COUNT_MAX};
use crate::rng::Rng;
use crate::units::{Mark, PeerId, PieceIndex};
use crate::wire::extension::{PEX_ID, Pex, TAIL_ID, Tail};
use crate::wire::message::{Handshake, Message, RawBlock};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Behaviour {
    /// Has everything, and one block in `one_in` is bad.
    Corrupts { one_in: u32 },
    /// Says it has everything and rejects every request.
    RejectsAll,
    /// Says it has everything, unchokes, and never sends.
    NeverAnswers,
    /// Sends a few blocks, then neither reads nor writes, and keeps the connection.
    Freezes,
    /// Says it has everything and never unchokes.
    NeverUnchokes,
    /// Sends anything that can be decoded, in any order.
    SendsAnything,
    /// Sends good blocks, closes the connection in the middle, and connects again.
    Reconnects,
    /// Connects again and again, and closes each connection soon.
    ComesAndGoes,
    /// Sends good blocks, one each time that it acts.
    SendsSlowly,
    /// Requests far more blocks than a peer queues, and sends none.
    RequestsTooMuch,
    /// Answers a request with another block, or with a part of it.
    SendsOtherBlocks,
    /// Sends messages of all kinds, and no block that it is asked for.
    SendsNoBlocks,
    /// Sends one bad block of each piece, and rejects further requests for the piece.
    Poisons,
    /// Sends one bad block of each piece, and the others one at a time.
    PoisonsSlowly,
    /// Requests blocks and cancels them at once.
    Cancels,
    /// Requests many blocks, and then neither reads nor writes.
    ReadsNothing,
    /// Tells of many peers that there are not, again and again.
    InventsPeers,
    /// Tells of tails that it does not have, with marks that are wrong, and sends bad blocks.
    InventsTails,
}

pub const BEHAVIOURS: [Behaviour; 18] = [
    Behaviour::Corrupts { one_in: 3 },
    Behaviour::RejectsAll,
    Behaviour::NeverAnswers,
    Behaviour::Freezes,
    Behaviour::NeverUnchokes,
    Behaviour::SendsAnything,
    Behaviour::Reconnects,
    Behaviour::ComesAndGoes,
    Behaviour::SendsSlowly,
    Behaviour::RequestsTooMuch,
    Behaviour::SendsOtherBlocks,
    Behaviour::SendsNoBlocks,
    Behaviour::Poisons,
    Behaviour::PoisonsSlowly,
    Behaviour::Cancels,
    Behaviour::ReadsNothing,
    Behaviour::InventsPeers,
    Behaviour::InventsTails,
];

pub struct FakePeer {
    behaviour: Behaviour,
    image: Image,
    peer_id: PeerId,
    rng: Rng,
    /// Requests of a `RequestsTooMuch` each time that it acts: a flood for the agent, and little
    /// for its link.
    requests_per_act: u64,
    /// Pieces of which a bad block was sent.
    poisoned: BTreeSet<u32>,
    conversations: BTreeMap<EndId, Conversation>,
}

/// One connection.
#[derive(Default)]
struct Conversation {
    to_send: VecDeque<Packet>,
    requests: VecDeque<RawBlock>,
    sent_handshake: bool,
    sent_blocks: u32,
    turns: u32,
    frozen: bool,
}

/// What a fake peer asks of the simulator when it acts.
pub enum FakeAction {
    Connect(SocketAddr),
    Close(EndId),
}

/// Packets that wait to be sent, per connection. Further ones are dropped.
const TO_SEND_MAX: usize = 4096;

impl FakePeer {
    pub fn new(behaviour: Behaviour, image: &Image, rate: u64, mut rng: Rng) -> FakePeer {
        let mut peer_id = *b"-FK0001-000000000000";
        peer_id[8..16].copy_from_slice(&rng.next_u64().to_be_bytes());
        FakePeer {
            behaviour,
            image: image.clone(),
            peer_id: PeerId(peer_id),
            rng,
            requests_per_act: (rate / 2000).min(200),
            poisoned: BTreeSet::new(),
            conversations: BTreeMap::new(),
        }
    }

    pub fn behaviour(&self) -> Behaviour {
        self.behaviour
    }

    pub fn ends(&self) -> Vec<EndId> {
        self.conversations.keys().copied().collect()
    }

    pub fn connected(&mut self, end: EndId) {
        let mut conversation = Conversation::default();
        conversation.open(self.image.metainfo.info_hash, self.peer_id, &self.opening());
        self.conversations.insert(end, conversation);
    }

    pub fn closed(&mut self, end: EndId) {
        self.conversations.remove(&end);
    }

    /// Reads nothing more from this connection.
    pub fn is_frozen(&self, end: EndId) -> bool {
        self.conversations
            .get(&end)
            .is_some_and(|conversation| conversation.frozen)
    }

    pub fn next_packet(&mut self, end: EndId) -> Option<Packet> {
        let conversation = self.conversations.get_mut(&end)?;
        if conversation.frozen {
            None
        } else {
            conversation.to_send.pop_front()
        }
    }

    pub fn receive(&mut self, end: EndId, packet: Packet) {
        let opening = self.opening();
        let conversation = self.conversations.entry(end).or_default();
        match packet {
            Packet::Handshake(_) => {
                conversation.open(self.image.metainfo.info_hash, self.peer_id, &opening)
            }
            Packet::Message(Message::Interested) if self.behaviour != Behaviour::NeverUnchokes => {
                conversation
                    .to_send
                    .push_back(Packet::Message(Message::Unchoke));
            }
            Packet::Message(Message::Request(block)) => self.requested(end, block),
            Packet::Message(Message::Cancel(block)) => {
                conversation.requests.retain(|asked| *asked != block)
            }
            _ => {}
        }
    }

    fn opening(&self) -> Vec<Message> {
        match self.behaviour {
            Behaviour::RequestsTooMuch | Behaviour::Cancels | Behaviour::ReadsNothing => {
                vec![Message::HaveNone, Message::Interested]
            }
            Behaviour::InventsTails => vec![Message::HaveNone, Message::Unchoke],
            Behaviour::SendsAnything => vec![],
            _ => vec![Message::HaveAll],
        }
    }

    fn requested(&mut self, end: EndId, block: RawBlock) {
        let conversation = self
            .conversations
            .get_mut(&end)
            .expect("a request comes on a known connection");
        // Asked for or not, it may compress what it sends.
        let packed = self
            .rng
            .chance(1, 4)
            .then_some(block.length / 2)
            .filter(|bytes| *bytes > 0);
        let sends = |good| Packet::Block {
            block,
            good,
            packed,
        };
        match self.behaviour {
            Behaviour::Corrupts { one_in } => conversation
                .to_send
                .push_back(sends(!self.rng.chance(1, one_in))),
            Behaviour::RejectsAll => conversation
                .to_send
                .push_back(Packet::Message(Message::Reject(block))),
            Behaviour::Freezes => {
                conversation.to_send.push_back(sends(true));
                conversation.sent_blocks += 1;
                conversation.frozen = conversation.sent_blocks > 3;
            }
            Behaviour::Reconnects => conversation.to_send.push_back(sends(true)),
            Behaviour::InventsTails => {
                let answer = match self.rng.below(3) {
                    0 => sends(false),
                    1 => sends(true),
                    _ => Packet::Message(Message::Reject(block)),
                };
                conversation.to_send.push_back(answer);
            }
            Behaviour::SendsSlowly => conversation.requests.push_back(block),
            Behaviour::SendsOtherBlocks => {
                let block = other_block(block, &mut self.rng);
                conversation.to_send.push_back(Packet::Block {
                    block,
                    good: true,
                    packed: None,
                });
            }
            Behaviour::Poisons | Behaviour::PoisonsSlowly if self.poisoned.insert(block.index) => {
                conversation.to_send.push_back(sends(false));
            }
            Behaviour::Poisons => conversation
                .to_send
                .push_back(Packet::Message(Message::Reject(block))),
            Behaviour::PoisonsSlowly => conversation.requests.push_back(block),
            Behaviour::NeverAnswers
            | Behaviour::ComesAndGoes
            | Behaviour::SendsNoBlocks
            | Behaviour::Cancels
            | Behaviour::ReadsNothing
            | Behaviour::InventsPeers
            | Behaviour::NeverUnchokes
            | Behaviour::SendsAnything
            | Behaviour::RequestsTooMuch => {}
        }
        conversation.requests.truncate(TO_SEND_MAX);
        conversation.to_send.truncate(TO_SEND_MAX);
    }

    /// Called about once a second. `known` are all peers that the tracker knows.
    pub fn act(&mut self, known: &[SocketAddr]) -> Vec<FakeAction> {
        let mut actions = Vec::new();
        for (end, conversation) in &mut self.conversations {
            match self.behaviour {
                Behaviour::SendsSlowly | Behaviour::PoisonsSlowly => {
                    let block = conversation.requests.pop_front();
                    conversation
                        .to_send
                        .extend(block.map(|block| Packet::Block {
                            block,
                            good: true,
                            packed: None,
                        }));
                }
                Behaviour::SendsAnything => (0..self.rng.below(20)).for_each(|_| {
                    conversation
                        .to_send
                        .push_back(any_packet(&self.image, &mut self.rng));
                }),
                Behaviour::RequestsTooMuch | Behaviour::Cancels | Behaviour::ReadsNothing => {
                    for _ in 0..self.requests_per_act {
                        let block = RawBlock {
                            index: self.rng.below(self.image.piece_count),
                            begin: 0,
                            length: 1 + self.rng.below(BLOCK_BYTES.min(self.image.piece_bytes)),
                        };
                        conversation.say(Message::Request(block));
                        if self.behaviour == Behaviour::Cancels {
                            conversation.say(Message::Cancel(block));
                        }
                    }
                    // What was said in the first turn is sent by the second one.
                    let reads = self.behaviour != Behaviour::ReadsNothing;
                    conversation.frozen = !reads && conversation.turns > 1;
                    conversation.turns += 1;
                }
                Behaviour::InventsPeers => {
                    let address = |number: u32| SocketAddr::from((number.to_be_bytes(), 6881));
                    let added = (0..PEX_PEER_COUNT_MAX)
                        .map(|_| address(0x0a63_0000 | self.rng.below(1 << 16)))
                        .collect();
                    let (id, dropped) = (PEX_ID, Vec::new());
                    let payload = Pex { added, dropped }.encode();
                    conversation.say(Message::Extended { id, payload });
                }
                Behaviour::InventsTails => {
                    for _ in 0..20 {
                        conversation.say(any_tail(&self.image, &mut self.rng));
                    }
                }
                Behaviour::SendsNoBlocks => {
                    let piece = self.rng.below(self.image.piece_count);
                    conversation.say_something_useless(piece, self.rng.below(6));
                }
                Behaviour::Reconnects if self.rng.chance(1, 3) => {
                    actions.push(FakeAction::Close(*end))
                }
                Behaviour::ComesAndGoes => actions.push(FakeAction::Close(*end)),
                _ => {}
            }
            conversation.to_send.truncate(TO_SEND_MAX);
        }
        let calls = match self.behaviour {
            Behaviour::ComesAndGoes => 8,
            _ => usize::from(self.conversations.len() < 8 && self.rng.chance(1, 2)),
        };
        for _ in 0..calls.min(known.len()) {
            let at = self.rng.below(known.len() as u32) as usize;
            actions.push(FakeAction::Connect(known[at]));
        }
        actions
    }
}

impl Conversation {
    fn say(&mut self, message: Message) {
        self.to_send.push_back(Packet::Message(message));
    }

    /// One of six kinds of messages, each true and of no use.
    fn say_something_useless(&mut self, piece: u32, kind: u32) {
        match kind {
            0 => self.say(Message::Unchoke),
            1 => {
                self.say(Message::Choke);
                self.say(Message::Unchoke);
            }
            2 => self.say(Message::KeepAlive),
            3 => self.say(Message::Have(piece)),
            4 => self.say(Message::Suggest(piece)),
            _ => self.say(Message::AllowedFast(piece)),
        }
    }

    fn open(&mut self, info_hash: crate::units::InfoHash, peer_id: PeerId, opening: &[Message]) {
        if core::mem::replace(&mut self.sent_handshake, true) {
            return;
        }
        let handshake = Handshake {
            fast: true,
            extended: false,
            info_hash,
            peer_id,
        };
        self.to_send
            .push_back(Packet::Handshake(Box::new(handshake)));
        self.to_send
            .extend(opening.iter().cloned().map(Packet::Message));
    }
}

/// A block near the requested one, or the requested one.
fn other_block(block: RawBlock, rng: &mut Rng) -> RawBlock {
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

/// A tail with right and wrong marks at places where marks may be, and few where they may not.
fn any_tail(image: &Image, rng: &mut Rng) -> Message {
    let piece = rng.below(image.piece_count);
    let blocks = image.piece_bytes.div_ceil(BLOCK_BYTES);
    let (first, step) = (rng.below(blocks + 1), 1 + rng.below(3));
    let mark = |at: u32| {
        let right = image.mark(PieceIndex(piece), at * BLOCK_BYTES);
        match rng.chance(1, 2) {
            true => right,
            false => Mark {
                state: image.mark(PieceIndex(piece), 1).state,
                ..right
            },
        }
    };
    let places = (1..=first.max(1)).rev().step_by(step as usize).take(4);
    let tail = Tail {
        piece,
        marks: places.map(mark).collect(),
    };
    Message::Extended {
        id: TAIL_ID,
        payload: tail.encode(),
    }
}

/// Any packet that can be decoded.
fn any_packet(image: &Image, rng: &mut Rng) -> Packet {
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
        16 if block.begin.is_multiple_of(2) => any_tail(image, rng),
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
                packed: (length > 1 && rng.chance(1, 2)).then(|| 1 + rng.below(length - 1)),
            };
        }
    };
    Packet::Message(message)
}
