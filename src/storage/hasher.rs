//! What is the SHA-1 of a piece whose bytes arrive in steps?
//!
//! The core (or `reader`) decides what to hash next ([`Hash`]); the bytes are in the pool. A piece
//! is hashed from its first byte to its last, in any number of steps. Several pieces are hashed
//! side by side, because that takes little longer than hashing one.

use swarm_proto::format::layout::Layout;
use swarm_proto::limits::HASHED_AT_ONCE;
use swarm_proto::swarm::{Hash, HashOf};
use swarm_proto::units::{Mark, PieceHash, PieceIndex};
use swarm_proto::vec_map::VecMap;

use crate::os::pool::Pool;
use crate::os::sha1::{LANES, Sha1};

const _: () = assert!(HASHED_AT_ONCE == LANES);

/// What came of some steps.
#[derive(Default)]
pub struct Hashed {
    /// The hash of each piece whose last byte was among them.
    pub finished: Vec<(HashOf, PieceHash)>,
    /// The states that were asked for.
    pub marks: Vec<(PieceIndex, Mark)>,
}

/// The hashes of pieces of which some bytes have been hashed, but not yet all.
#[derive(Default)]
pub struct Hasher {
    running: VecMap<HashOf, Sha1>,
    /// What was packed in a buffer, in each lane.
    unpacked: [Vec<u8>; LANES],
}

impl Hasher {
    /// Hashes all steps, each of another piece, before it returns, so that their buffers may be
    /// reused.
    pub fn hash(&mut self, steps: &[Hash], pool: &Pool, layout: &Layout) -> Hashed {
        let mut lanes: Vec<(Sha1, &[u8])> = Vec::with_capacity(LANES);
        let running = steps.iter().map(|step| self.running_hash(step));
        let running: Vec<Sha1> = running.collect();
        let bytes = steps.iter().zip(&mut self.unpacked);
        let bytes = bytes.map(|(step, unpacked)| bytes_of(step, pool, unpacked));
        lanes.extend(running.into_iter().zip(bytes));
        let mut hashed = Hashed {
            marks: update_with_marks(steps, &mut lanes, layout),
            finished: Vec::new(),
        };
        for (step, (running, _)) in steps.iter().zip(lanes) {
            if step.begin + step.length < step.of.length(layout) {
                self.running.insert(step.of, running);
                continue;
            }
            let is_inside = match step.of {
                HashOf::Part {
                    piece,
                    begin,
                    length,
                } => begin + length < layout.piece_length(piece),
                _ => false,
            };
            let state = running.state().filter(|_| is_inside);
            let hash = state.unwrap_or_else(|| running.finish());
            hashed.finished.push((step.of, PieceHash(hash)));
        }
        hashed
    }

    /// The hash of the bytes before this step.
    fn running_hash(&mut self, step: &Hash) -> Sha1 {
        let before = self.running.remove(&step.of).filter(|_| step.begin > 0);
        assert!(
            before.is_some() || step.begin == 0,
            "every hash begins at 0"
        );
        before.unwrap_or_else(|| match (step.state, step.of) {
            (Some(state), HashOf::Part { begin, .. }) => Sha1::resume(state.0, begin.into()),
            _ if step.part_bytes > 0 => Sha1::with_states(),
            _ => Sha1::new(),
        })
    }
}

/// Hashes the bytes of all lanes, up to the next place in any of them whose state is asked for,
/// and so on.
fn update_with_marks(
    steps: &[Hash],
    lanes: &mut [(Sha1, &[u8])],
    layout: &Layout,
) -> Vec<(PieceIndex, Mark)> {
    let mut marks = Vec::new();
    let mut rests: Vec<&[u8]> = lanes.iter().map(|(_, bytes)| *bytes).collect();
    while rests.iter().any(|rest| !rest.is_empty()) {
        let mut reached = Vec::with_capacity(LANES);
        for ((step, rest), lane) in steps.iter().zip(&mut rests).zip(&mut *lanes) {
            let place = step.begin + step.length - rest.len() as u32;
            let to_border = place
                .checked_rem(step.part_bytes)
                .map(|over| step.part_bytes - over);
            let take = to_border.map_or(rest.len(), |bytes| rest.len().min(bytes as usize));
            (lane.1, *rest) = rest.split_at(take);
            let begin = place + take as u32;
            let is_mark = to_border == Some(take as u32) && begin < step.of.length(layout);
            reached.push(is_mark.then_some(begin));
        }
        Sha1::update_all(lanes);
        for ((step, begin), (running, _)) in steps.iter().zip(reached).zip(&*lanes) {
            // A hash that began when nobody waited for marks may have no states.
            if let (Some(begin), Some(state)) = (begin, running.state()) {
                let state = PieceHash(state);
                marks.push((step.of.piece(), Mark { begin, state }));
            }
        }
    }
    marks
}

fn bytes_of<'a>(step: &Hash, pool: &'a Pool, unpacked: &'a mut Vec<u8>) -> &'a [u8] {
    if !pool.is_packed(step.buffer, step.offset, step.length) {
        return &pool.bytes(step.buffer)[step.offset as usize..][..step.length as usize];
    }
    unpacked.resize(step.length as usize, 0);
    pool.unpack(step.buffer, step.offset, unpacked);
    unpacked
}

#[cfg(test)]
mod tests {
    use super::*;
    use swarm_proto::rng::Rng;
    use swarm_proto::units::BufferId;

    const PIECE_BYTES: u32 = 256 * 1024;

    /// Four pieces, each in a buffer of its own; the last one is short.
    fn pool(rng: &mut Rng) -> (Pool, Layout, Vec<Vec<u8>>) {
        let layout = Layout::new(u64::from(3 * PIECE_BYTES + 100_000), PIECE_BYTES).unwrap();
        let mut pool = Pool::new(PIECE_BYTES, 4).unwrap();
        let piece = |index: u32| -> Vec<u8> {
            let length = layout.piece_length(PieceIndex(index));
            (0..length).map(|_| rng.below(256) as u8).collect()
        };
        let pieces: Vec<Vec<u8>> = (0..4).map(piece).collect();
        for (index, bytes) in (0..).zip(&pieces) {
            pool.bytes_mut(BufferId(index))[..bytes.len()].copy_from_slice(bytes);
        }
        (pool, layout, pieces)
    }

    fn step(of: HashOf, begin: u32, length: u32) -> Hash {
        Hash {
            of,
            begin,
            length,
            buffer: BufferId(of.piece().0),
            offset: begin,
            state: None,
            part_bytes: 0,
        }
    }

    /// A seed's marks, wherever its steps end, and what a leecher makes of them.
    #[test]
    fn from_each_mark_a_part_leads_to_the_next() {
        let mut rng = Rng::new(0x5eed);
        let (pool, layout, pieces) = pool(&mut rng);
        let mut hasher = Hasher::default();
        let part_bytes = 64 * 1024;
        let (mut marks, mut finished) = (Vec::new(), Vec::new());
        let (cut, short) = (96 * 1024, pieces[3].len() as u32);
        for halves in [[0, cut, cut], [cut, PIECE_BYTES - cut, short - cut]] {
            let [begin, length, last_length] = halves;
            let steps: Vec<Hash> = (0..4)
                .map(|piece| Hash {
                    part_bytes,
                    ..step(
                        HashOf::Disk(PieceIndex(piece)),
                        begin,
                        if piece == 3 { last_length } else { length },
                    )
                })
                .collect();
            let hashed = hasher.hash(&steps, &pool, &layout);
            marks.extend(hashed.marks);
            finished.extend(hashed.finished);
        }
        for (index, bytes) in (0..).zip(&pieces) {
            let piece = PieceIndex(index);
            let whole = PieceHash(sha1_smol::Sha1::from(bytes).digest().bytes());
            assert!(finished.contains(&(HashOf::Disk(piece), whole)));
            let of_piece = marks.iter().filter(|(marked, _)| *marked == piece);
            let of_piece: Vec<Mark> = of_piece.map(|(_, mark)| *mark).collect();
            let places = (1..).map(|part| part * part_bytes);
            let expected = places.take_while(|place| *place < bytes.len() as u32);
            assert!(of_piece.iter().map(|mark| mark.begin).eq(expected));
            let (mut end, mut leads_to) = (bytes.len() as u32, whole);
            for mark in of_piece.iter().rev() {
                let (begin, length) = (mark.begin, end - mark.begin);
                let part = HashOf::Part {
                    piece,
                    begin,
                    length,
                };
                let step = Hash {
                    offset: begin,
                    state: Some(mark.state),
                    ..step(part, 0, length)
                };
                let hashed = hasher.hash(&[step], &pool, &layout);
                assert_eq!(
                    hashed.finished,
                    [(part, leads_to)],
                    "from {begin} of {index}"
                );
                (end, leads_to) = (begin, mark.state);
            }
        }
    }
}
