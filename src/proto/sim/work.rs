//! How do the disk and the hash unit of an agent do its work, and when do they answer?

use alloc::vec;
use alloc::vec::Vec;
use core::time::Duration;

use super::agent::Agent;
use super::event::SimEvent;
use super::image::ZEROS;
use super::options::{Canary, HashAnswers};
use super::pool::Claimant;
use super::queue::Queue;
use super::random::random_up_to;
use crate::swarm::{DiskError, DiskOperation, Hash, HashOf, Patience, Role, State, Work};
use crate::units::{BufferId, DiskOffset, Instant, PieceIndex, Ticket};

impl Agent {
    /// Gives the disk and the hash unit all they are asked to do, as the real loop does. True if
    /// the core has been told of a hash.
    pub fn work(&mut self, now: Instant, queue: &mut Queue) -> bool {
        let late = self.hash_by.is_some_and(|by| by <= now);
        let patience = if late || self.hashes.patience.is_zero() {
            Patience::Over
        } else {
            Patience::Lasts
        };
        let mut told = false;
        loop {
            while let Some(work) = self.swarm.poll_disk() {
                self.start(now, work, queue);
            }
            let hashes = self.swarm.poll_hash(patience);
            if hashes.is_empty() {
                break;
            }
            self.hash_by = None;
            told |= self.hash(now, hashes, queue);
        }
        let waits = self.swarm.has_to_hash();
        self.hash_by = waits.then(|| self.hash_by.unwrap_or(now + self.hashes.patience));
        told
    }

    /// When something is to be done though nothing has happened.
    pub fn timeout(&self) -> Option<Instant> {
        let core = self.swarm.poll_timeout(&self.throttles);
        [core, self.hash_by].into_iter().flatten().min()
    }

    pub fn handle_timeout(&mut self, now: Instant) {
        let core = self.swarm.poll_timeout(&self.throttles);
        if core.is_some_and(|at| at <= now) {
            self.swarm.handle_timeout(now, &mut self.throttles);
        }
    }

    fn start(&mut self, now: Instant, work: Work, queue: &mut Queue) {
        let (places, bytes) = match &work {
            Work::Zero { piece, .. } => (
                self.image.places_of(*piece),
                self.image.piece_length(*piece),
            ),
            Work::Write {
                ticket,
                piece,
                buffers,
            } => {
                for (buffer, length) in self.parts(*piece, buffers) {
                    self.pool
                        .claim(buffer, 0..length, Claimant::WritesDisk(*ticket));
                }
                (
                    self.image.places_of(*piece),
                    self.image.piece_length(*piece),
                )
            }
            Work::Read {
                ticket,
                piece,
                begin,
                length,
                buffer,
            } => {
                self.pool
                    .claim(*buffer, 0..*length, Claimant::ReadsDisk(*ticket));
                (self.image.places(*piece, *begin, *length), *length)
            }
            Work::Flush { ticket } if self.canary == Canary::SkipsFlush => {
                return self.swarm.handle_disk(now, *ticket, Ok(()));
            }
            Work::Flush { .. } => (0..0, 0),
        };
        let (Work::Write { ticket, .. }
        | Work::Zero { ticket, .. }
        | Work::Read { ticket, .. }
        | Work::Flush { ticket }) = work;
        let early = self.canary == Canary::AnnouncesUnwritten && matches!(work, Work::Write { .. });
        let flushes = matches!(work, Work::Flush { .. });
        self.checker.submitted(ticket, work);
        if early {
            self.swarm.handle_disk(now, ticket, Ok(()));
        }
        let done_at = match flushes {
            true => self.disk.submit_flush(now, ticket, &mut self.rng),
            false => self.disk.submit(now, places, bytes, &mut self.rng),
        };
        queue.schedule(
            done_at,
            SimEvent::DiskDone {
                machine: self.machine,
                process: self.process,
                ticket,
            },
        );
    }

    /// The buffers of a piece with the bytes each holds.
    fn parts(&self, piece: PieceIndex, buffers: &[BufferId]) -> Vec<(BufferId, u32)> {
        let (length, each) = (self.image.piece_length(piece), self.pool.buffer_bytes());
        assert_eq!(
            buffers.len() as u32,
            length.div_ceil(each),
            "buffers of {piece:?}"
        );
        let part = |(index, buffer): (usize, &BufferId)| {
            (*buffer, (length - index as u32 * each).min(each))
        };
        buffers.iter().enumerate().map(part).collect()
    }

    /// Hashes all before it answers for any. True if the core has been told already.
    fn hash(&mut self, now: Instant, hashes: Vec<Hash>, queue: &mut Queue) -> bool {
        let verdicts = hashes.into_iter().filter_map(|hash| {
            let range = hash.offset..hash.offset + hash.length;
            let cells = self.pool.read(hash.buffer, range, "hash");
            let good = self
                .checker
                .bytes_hashed(&hash, cells, self.swarm.state())?;
            let marks = hash.part_bytes > 0 && good;
            Some((hash.of, good, if marks { hash.part_bytes } else { 0 }))
        });
        let verdicts: Vec<(HashOf, bool, u32)> = verdicts.collect();
        let (machine, process) = (self.machine, self.process);
        let (mut told, mut at) = (false, None);
        for (of, good, part_bytes) in verdicts {
            let piece = of.piece();
            let length = self.image.piece_length(piece);
            let parts = (1..).map(|part| part * part_bytes);
            for begin in parts.take_while(|begin| *begin > 0 && *begin < length) {
                self.swarm.handle_mark(piece, self.image.mark(piece, begin));
            }
            if self.hashes.answers == HashAnswers::AtOnce {
                self.hashed(now, of, good);
                told = true;
                continue;
            }
            // The real unit answers at once; a slower one must do no harm.
            let later = now + random_up_to(Duration::from_micros(300), &mut self.rng);
            let at = match self.hashes.answers {
                HashAnswers::Together => *at.get_or_insert(later),
                _ => later,
            };
            let hashed = SimEvent::Hashed {
                machine,
                process,
                of,
                good,
            };
            queue.schedule(at, hashed);
        }
        told
    }

    pub fn hashed(&mut self, now: Instant, of: HashOf, good: bool) {
        let blind = match of {
            HashOf::Download(_) => self.canary == Canary::AcceptsBadDownloads,
            HashOf::Block(..) => false,
            HashOf::Disk(_) => self.canary == Canary::AcceptsBadReads,
            HashOf::Part { .. } => self.canary == Canary::AcceptsBadParts,
        };
        let good = good || blind;
        self.checker.hash_finished(of, good, self.swarm.state());
        let hash = match of {
            HashOf::Part {
                piece,
                begin,
                length,
            } => self.image.leads_to(piece, begin + length, good),
            _ => self.image.hash(of.piece(), good),
        };
        self.swarm.handle_hashed(now, of, hash);
    }

    pub fn disk_done(&mut self, now: Instant, ticket: Ticket) {
        let work = self.checker.completed(ticket);
        let result = match &work {
            Work::Write { piece, buffers, .. } => self.write_done(*piece, buffers, ticket),
            Work::Zero { piece, .. } => self.zero_done(*piece),
            Work::Read {
                piece,
                begin,
                length,
                buffer,
                ..
            } => self.read_done(*piece, *begin, *length, *buffer, ticket),
            Work::Flush { .. } => self.result(DiskOperation::Flush, PieceIndex(0), 0),
        };
        match (&work, &result) {
            (
                Work::Read {
                    piece,
                    begin,
                    length,
                    ..
                },
                _,
            ) => {
                self.checker.read(ticket, *begin, *length);
                if result.is_err() && self.options.role == Role::Seeder {
                    self.checker.source_lost(*piece);
                }
            }
            (Work::Write { piece, .. } | Work::Zero { piece, .. }, Ok(())) => {
                self.written.push((*piece, now));
                self.checker.written(*piece)
            }
            (_, Ok(())) => {
                self.disk.flushed(ticket);
                self.checker.flushed(ticket);
            }
            (_, Err(_)) => {}
        }
        let scanning = *self.swarm.state() == State::Scanning;
        let told_before =
            self.canary == Canary::AnnouncesUnwritten && matches!(work, Work::Write { .. });
        if !told_before {
            self.swarm.handle_disk(now, ticket, result);
        }
        match (result, work) {
            // It goes on without: the read-back will tell whether it may.
            (Err(_), Work::Read { piece, .. })
                if scanning && *self.swarm.state() == State::Scanning =>
            {
                self.checker.scan_read_failed(piece);
            }
            (Err(error), _) => self.checker.disk_failed(error),
            (Ok(()), _) => {}
        }
    }

    fn result(
        &mut self,
        operation: DiskOperation,
        piece: PieceIndex,
        begin: u32,
    ) -> Result<(), DiskError> {
        let offset =
            DiskOffset(u64::from(piece.0) * u64::from(self.image.piece_bytes) + u64::from(begin));
        // EIO
        let error = DiskError {
            operation,
            offset,
            errno: 5,
        };
        if self.disk.fails(operation, piece) {
            Err(error)
        } else {
            Ok(())
        }
    }

    fn write_done(
        &mut self,
        piece: PieceIndex,
        buffers: &[BufferId],
        ticket: Ticket,
    ) -> Result<(), DiskError> {
        let mut written = vec![];
        for (buffer, length) in self.parts(piece, buffers) {
            written.extend_from_slice(self.pool.read(buffer, 0..length, "write"));
            self.pool.release(buffer, Claimant::WritesDisk(ticket));
        }
        assert!(
            self.checker.all_good(piece, 0, &written),
            "piece {} is written and is not good",
            piece.0
        );
        self.result(DiskOperation::Write, piece, 0)?;
        self.disk
            .write(piece, self.image.places_of(piece), &written);
        Ok(())
    }

    fn zero_done(&mut self, piece: PieceIndex) -> Result<(), DiskError> {
        self.result(DiskOperation::Write, piece, 0)?;
        let places = self.image.places_of(piece);
        self.disk
            .write(piece, places.clone(), &vec![ZEROS; places.len()]);
        Ok(())
    }

    fn read_done(
        &mut self,
        piece: PieceIndex,
        begin: u32,
        length: u32,
        buffer: BufferId,
        ticket: Ticket,
    ) -> Result<(), DiskError> {
        self.pool.release(buffer, Claimant::ReadsDisk(ticket));
        self.result(DiskOperation::Read, piece, begin)?;
        let places = self.image.places(piece, begin, length);
        self.pool
            .cells_mut(buffer, &(0..length))
            .copy_from_slice(&self.disk.cells()[places]);
        Ok(())
    }
}
