//! What is worth telling the user while the work goes on: where each job stands, and how it ended.
//!
//! The caller reports the status of each job whenever it likes (`update`) and its outcome exactly
//! once (`finish`). The reporter decides what is worth printing, and in which form: a bar on a
//! terminal, lines in a log, JSON for a program. JSON goes to `out`, text for people goes to `err`.
//! Time is an argument and both outputs are any `Write`, so tests read what a user would see. The
//! server of `--report` gets the same JSON (`telling`), over a socket that never blocks (`teller`).
//!
//! Calling order: `update` or `finish`, then sleep until `next_wakeup` at the latest, then `update`
//! again. With a server, in addition: `tell` after that, and when its descriptor is readable, and
//! at its deadline; `finish_telling` at the end of the process.

mod bar;
mod json;
mod lines;
mod machine;
mod progress;
mod teller;
mod telling;

pub use self::json::string as json_string;
pub use self::lines::printable;

use std::fmt;
use std::io::{self, Write};
use std::os::fd::RawFd;
use std::time::Duration;

use swarm_proto::units::Instant;
use swarm_proto::wire::url::Url;

use self::lines::View;
use self::progress::Progress;
use self::teller::Teller;
use crate::os::device::Device;
use crate::os::signal::Signals;
use crate::os::tty::{self, TimedWriter};
use crate::target::Identity;

/// A program that watches wants at least one object a second. The rest of the second is room for a
/// late wake-up.
const JSON_INTERVAL: Duration = Duration::from_millis(900);
const PLAIN_INTERVAL: Duration = Duration::from_secs(5);
/// Five times a second looks alive and costs nothing, also on a serial console of 115200 baud.
const REDRAW_INTERVAL: Duration = Duration::from_millis(200);
/// Without any progress lines, a machine that waits says so within this time.
const SILENT_INTERVAL: Duration = Duration::from_secs(5);

/// `--progress`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// A line with a bar on a terminal, `Plain` elsewhere.
    Auto,
    Plain,
    Json,
    None,
}

impl Mode {
    pub fn from_name(name: &str) -> Option<Mode> {
        match name {
            "auto" => Some(Mode::Auto),
            "plain" => Some(Mode::Plain),
            "json" => Some(Mode::Json),
            "none" => Some(Mode::None),
            _ => None,
        }
    }
}

/// Where a job stands; a job goes through the states in this order. (The initramfs reports `booted`
/// before all of them.)
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum State {
    Fetching,
    Scanning,
    Downloading,
    Verifying,
    Seeding,
    Done,
    Failed,
}

impl State {
    /// For programs, which rely on these words.
    pub fn name(self) -> &'static str {
        match self {
            State::Fetching => "fetching",
            State::Scanning => "scanning",
            State::Downloading => "downloading",
            State::Verifying => "verifying",
            State::Seeding => "seeding",
            State::Done => "done",
            State::Failed => "failed",
        }
    }
}

impl fmt::Display for State {
    /// For people, who take "fetching" for the download.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            State::Fetching => "reading the torrent",
            state => state.name(),
        })
    }
}

/// The disk, partition or file behind a target or source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Disk {
    pub path: String,
    pub identity: Identity,
    pub bytes: u64,
}

impl Disk {
    pub fn of(device: &Device, identity: &Identity) -> Disk {
        Disk {
            path: device.path.display().to_string(),
            identity: identity.clone(),
            bytes: device.size_bytes,
        }
    }
}

/// One job at this moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    pub state: State,
    /// The name in the torrent; before it is known, the place the torrent is fetched from.
    pub torrent: String,
    pub target: String,
    /// Once it was opened.
    pub disk: Option<Disk>,
    /// Pieces that are on the target.
    pub have: u32,
    pub pieces: u32,
    /// While scanning and verifying: pieces read so far, and pieces to be read.
    pub checked: u32,
    pub to_check: u32,
    /// Pieces that were read from the target since their last write, and are good.
    pub good: u32,
    /// Length of the image.
    pub bytes: u64,
    /// Payload that came over the network, including blocks that were dropped.
    pub fetched: u64,
    pub uploaded: u64,
    /// Both as they went over the network: blocks may be compressed there.
    pub fetched_wire: u64,
    pub uploaded_wire: u64,
    pub peers: u32,
    /// What is waited for while nothing arrives.
    pub waiting: Option<String>,
}

/// How one job ended. It failed if there is an `error`.
#[derive(Clone, Debug, PartialEq)]
pub struct Outcome {
    /// Every piece was read from the target after its last write, and its hash was right.
    pub verified: bool,
    /// Pieces of which that is true.
    pub good: u32,
    /// The offset on the disk at which it failed, or at which the first bad piece begins.
    pub bad_offset: Option<u64>,
    pub took: Duration,
    pub bytes: u64,
    pub info_hash: String,
    /// Signatures on the target that were not of the image: removed, or still there.
    pub wiped: Vec<String>,
    pub remains: Vec<String>,
    pub error: Option<String>,
}

impl Outcome {
    /// Of a job that was refused before it began, or that ended because of another one.
    pub fn refused(bytes: u64, error: String) -> Outcome {
        Outcome {
            verified: false,
            good: 0,
            bad_offset: None,
            took: Duration::ZERO,
            bytes,
            info_hash: String::new(),
            wiped: Vec::new(),
            remains: Vec::new(),
            error: Some(error),
        }
    }

    /// The length of the image by the time it took, even if little of it had to be fetched. The
    /// time counts as a hundredth of a second at least. A job that failed has no speed, because
    /// nobody knows how much of the image it wrote.
    fn bytes_per_second(&self) -> u64 {
        if self.error.is_some() {
            return 0;
        }
        let millis = self.took.as_millis().max(10);
        u64::try_from(u128::from(self.bytes) * 1000 / millis).unwrap_or(u64::MAX)
    }
}

pub type Standard = Reporter<TimedWriter<tty::Standard>, TimedWriter<tty::Standard>>;

/// A reporter to stdout and stderr of this process. A reader that stops must not stop the disk:
/// lines for which a pipe has no room are lost.
pub fn standard(mode: Mode) -> Standard {
    let (out, err) = (
        TimedWriter::new(tty::stdout()),
        TimedWriter::new(tty::stderr()),
    );
    // A terminal that does not know its width is a serial console. Its output is often kept as a
    // log, in which lines are better than a bar.
    Reporter::new(mode, || tty::columns(tty::stderr()), out, err)
}

/// Prints what is worth printing. See the top of the file for the calling order.
pub struct Reporter<Out: Write, Err: Write> {
    mode: Mode,
    /// Each with its number.
    jobs: Vec<(usize, Progress)>,
    out: Out,
    err: Err,
    /// Columns of the terminal behind `err`; `None` if that is no terminal. Asked before each
    /// drawing, because windows change.
    columns: fn() -> Option<u16>,
    /// When the bar was drawn, and the state that it showed; `None` while there is no bar.
    drawn: Option<(Instant, State)>,
    teller: Option<Teller>,
}

impl<Out: Write, Err: Write> Reporter<Out, Err> {
    /// `columns` is used by `Mode::Auto` only, which becomes `Mode::Plain` if it returns `None`
    /// now.
    pub fn new(mode: Mode, columns: fn() -> Option<u16>, out: Out, err: Err) -> Self {
        let mode = if mode == Mode::Auto && columns().is_none() {
            Mode::Plain
        } else {
            mode
        };
        Reporter {
            mode,
            jobs: Vec::new(),
            out,
            err,
            columns,
            drawn: None,
            teller: None,
        }
    }

    /// Reports the status of job `index`.
    pub fn update(&mut self, now: Instant, index: usize, status: &Status) {
        let job = job(&mut self.jobs, now, index, status);
        assert!(job.ended.is_none(), "job {index} has been finished");
        job.record(now, status);
        let note = job.note_waiting(now, self.mode == Mode::None);
        if let Some(teller) = &mut self.teller {
            teller.note(now, index, status.state, || {
                json::object(job, status.state, None)
            });
        }
        if let Some(note) = note {
            self.note(&note);
        }
        let job = self::job(&mut self.jobs, now, index, status);
        match self.mode {
            Mode::Plain if job.is_due(now, PLAIN_INTERVAL) => {
                job.printed = Some((now, status.clone()));
                print(&mut self.err, &format!("{}\n", View::of_one(job).line()));
            }
            Mode::Json if job.is_due(now, JSON_INTERVAL) => {
                job.printed = Some((now, status.clone()));
                let object = json::object(job, status.state, None);
                print(&mut self.out, &format!("{object}\n"));
            }
            Mode::Auto => self.redraw(now),
            Mode::Plain | Mode::Json | Mode::None => {}
        }
    }

    /// Reports how job `index` ended. A failure is printed in every mode: it is the one line on
    /// stderr that explains exit status 1.
    pub fn finish(&mut self, now: Instant, index: usize, status: &Status, outcome: &Outcome) {
        let title = self.end(now, index, status, outcome);
        match &outcome.error {
            Some(error) => self.note(&format!("{title}: failed: {error}")),
            None if matches!(self.mode, Mode::Auto | Mode::Plain) => {
                self.clear();
                let done = lines::done(outcome, status);
                print(&mut self.err, &format!("{title}: {done}\n"));
            }
            None => {}
        }
        if self.mode == Mode::Auto {
            self.redraw(now);
        }
    }

    /// Ends job `index` for programs alone: people are told of another job that failed for the same
    /// reason.
    pub fn finish_unsaid(
        &mut self,
        now: Instant,
        index: usize,
        status: &Status,
        outcome: &Outcome,
    ) {
        self.end(now, index, status, outcome);
    }

    /// The title of the job that has ended.
    fn end(&mut self, now: Instant, index: usize, status: &Status, outcome: &Outcome) -> String {
        let job = job(&mut self.jobs, now, index, status);
        assert!(job.ended.is_none(), "job {index} is finished twice");
        job.record(now, status);
        let state = if outcome.error.is_some() {
            State::Failed
        } else {
            State::Done
        };
        let object = json::object(job, state, Some(outcome));
        if self.mode == Mode::Json {
            print(&mut self.out, &format!("{object}\n"));
        }
        if let Some(teller) = &mut self.teller {
            teller.note(now, index, state, || object.clone());
        }
        job.ended = Some(object);
        job.title()
    }

    /// Finishes every reported job that is unfinished, as failed for this reason. Returns false if
    /// there was none, so that nothing was printed.
    pub fn abandon(&mut self, now: Instant, reason: &str) -> bool {
        let unfinished: Vec<(usize, Status)> = self
            .jobs
            .iter()
            .filter(|(_, job)| job.ended.is_none())
            .map(|(index, job)| (*index, job.status.clone()))
            .collect();
        for (index, status) in &unfinished {
            let outcome = Outcome::refused(status.bytes, reason.into());
            self.finish(now, *index, status, &outcome);
        }
        !unfinished.is_empty()
    }

    /// Prints something the user should know, in every mode: usually one line on stderr, sometimes
    /// a table below it.
    pub fn note(&mut self, text: &str) {
        self.clear();
        let lines: String = text
            .lines()
            .map(|line| format!("{}\n", printable(line)))
            .collect();
        print(&mut self.err, &format!("swarmdd: {lines}"));
    }

    /// The object about job `index`, as `Mode::Json` prints it; the last one if the job has ended.
    /// The job was reported before.
    pub fn object(&self, index: usize) -> String {
        let job = self.jobs.iter().find(|(number, _)| *number == index);
        let (_, job) = job.expect("the job was reported");
        let goes_on = || json::object(job, job.status.state, None);
        job.ended.clone().unwrap_or_else(goes_on)
    }

    // --- the server

    /// A reporter that also tells this server: `--report`.
    pub fn with_server(mut self, server: Option<&Url>) -> io::Result<Self> {
        self.teller = server.cloned().map(Teller::new).transpose()?;
        Ok(self)
    }

    /// Readable when `tell` should be called; `None` without a server.
    pub fn server_fd(&self) -> Option<RawFd> {
        self.teller.as_ref().map(Teller::fd)
    }

    /// Tells the server what it does not know yet, as far as that is possible without waiting.
    /// `ready`: the descriptor is readable.
    pub fn tell(&mut self, now: Instant, ready: bool) {
        let teller = self.teller.as_mut();
        if let Some(note) = teller.and_then(|teller| teller.advance(now, ready)) {
            self.note(&note);
        }
    }

    /// The latest time for the next call of `tell`.
    pub fn tell_deadline(&self) -> Option<Instant> {
        self.teller.as_ref().and_then(Teller::deadline)
    }

    /// Waits a few seconds for the server to hear how every job has ended. Returns false if it has
    /// not heard everything; true without a server.
    pub fn finish_telling(&mut self, signals: &mut Signals) -> bool {
        let why = self
            .teller
            .as_mut()
            .and_then(|teller| teller.finish(signals));
        if let Some(why) = &why {
            self.note(why);
        }
        why.is_none()
    }

    /// When `update` should be called again at the latest, always after `now`; `None` if no job
    /// needs it.
    pub fn next_wakeup(&self, now: Instant) -> Option<Instant> {
        let told = self.teller.as_ref().and_then(Teller::next_note);
        let told = told.filter(|due| *due > now);
        self.next_line(now).into_iter().chain(told).min()
    }

    fn next_line(&self, now: Instant) -> Option<Instant> {
        let interval = match self.mode {
            Mode::Auto => REDRAW_INTERVAL,
            Mode::Plain => PLAIN_INTERVAL,
            Mode::Json => JSON_INTERVAL,
            Mode::None => SILENT_INTERVAL,
        };
        let unfinished = || {
            self.jobs
                .iter()
                .map(|(_, job)| job)
                .filter(|job| job.ended.is_none())
        };
        unfinished().next()?;
        let due = |last: &Instant| *last + interval;
        let next = match self.mode {
            Mode::Auto => self
                .drawn
                .iter()
                .map(|(last, _)| due(last))
                .find(|due| *due > now),
            _ => unfinished()
                .flat_map(|job| &job.printed)
                .map(|(last, _)| due(last))
                .filter(|due| *due > now)
                .min(),
        };
        // A job that was due and has not changed is due again one interval later, not at once.
        Some(next.unwrap_or(now + interval))
    }

    /// Draws the bar again if it is due: at once when the state changes, otherwise not too often.
    fn redraw(&mut self, now: Instant) {
        let Some(view) = View::of_all(self.jobs.iter().map(|(_, job)| job)) else {
            return self.clear();
        };
        let fresh = self
            .drawn
            .is_some_and(|(last, state)| state == view.state && now.since(last) < REDRAW_INTERVAL);
        if !fresh {
            self.drawn = Some((now, view.state));
            let columns = (self.columns)().map_or(80, usize::from);
            let line = bar::draw(&view, columns);
            print(&mut self.err, &format!("\r{line}\x1b[K"));
        }
    }

    /// Erases the bar, so that something else can be printed in its place.
    fn clear(&mut self) {
        if self.drawn.take().is_some() {
            print(&mut self.err, "\r\x1b[K");
        }
    }
}

impl<Out: Write, Err: Write> Drop for Reporter<Out, Err> {
    /// The shell's prompt must not stand behind half a bar.
    fn drop(&mut self) {
        self.clear();
    }
}

/// In one write, so that lines of several programs on one console stay whole.
fn print(to: &mut impl Write, text: &str) {
    // When the reader has gone away, a disk must still not be left half written.
    let _ = to.write_all(text.as_bytes()).and_then(|()| to.flush());
}

/// The job with this number, which may be new.
fn job<'a>(
    jobs: &'a mut Vec<(usize, Progress)>,
    now: Instant,
    index: usize,
    status: &Status,
) -> &'a mut Progress {
    let at = jobs
        .iter()
        .position(|(number, _)| *number == index)
        .unwrap_or(jobs.len());
    if at == jobs.len() {
        jobs.push((index, Progress::new(now, status)));
    }
    &mut jobs[at].1
}

#[cfg(test)]
mod testing {
    //! A moment, a status and an outcome for tests.

    use super::*;

    pub(super) fn at(milliseconds: u64) -> Instant {
        Instant(milliseconds * 1000)
    }

    pub(super) fn status(state: State) -> Status {
        Status {
            state,
            torrent: "sda1".into(),
            target: "/dev/sda1".into(),
            disk: None,
            have: 0,
            pieces: 1000,
            checked: 0,
            to_check: 1000,
            good: 0,
            bytes: 1000 << 20,
            fetched: 0,
            uploaded: 0,
            fetched_wire: 0,
            uploaded_wire: 0,
            peers: 2,
            waiting: None,
        }
    }

    pub(super) fn outcome() -> Outcome {
        Outcome {
            verified: true,
            good: 1000,
            bad_offset: None,
            took: Duration::from_millis(72_500),
            bytes: 1000 << 20,
            info_hash: "00ff".into(),
            wiped: Vec::new(),
            remains: Vec::new(),
            error: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::testing::{at, outcome, status};
    use super::*;

    /// A reporter whose `out` and `err` tests can read.
    type Console = Reporter<Vec<u8>, Vec<u8>>;

    fn console(mode: Mode, columns: fn() -> Option<u16>) -> Console {
        Reporter::new(mode, columns, Vec::new(), Vec::new())
    }

    fn lines(written: &mut Vec<u8>) -> Vec<String> {
        let text = String::from_utf8(std::mem::take(written)).unwrap();
        text.lines().map(String::from).collect()
    }

    /// Reports a download of 10 MiB a second, four times a second.
    fn download(console: &mut Console, seconds: u64) {
        for quarter in 0..=seconds * 4 {
            let done = quarter * 10 / 4;
            let moved = Status {
                have: done as u32,
                good: (done / 100) as u32 * 70,
                fetched: quarter * (10 << 20) / 4,
                uploaded: done << 19,
                fetched_wire: quarter * (6 << 20) / 4,
                uploaded_wire: done << 19,
                ..status(State::Downloading)
            };
            console.update(at(quarter * 250), 0, &moved);
        }
    }

    #[test]
    fn plain_prints_each_state_and_a_line_every_five_seconds() {
        let mut console = console(Mode::Auto, || None);
        console.update(at(0), 0, &status(State::Fetching));
        download(&mut console, 12);
        console.update(
            at(12_100),
            0,
            &Status {
                checked: 500,
                ..status(State::Verifying)
            },
        );
        let done = Status {
            fetched: 1001 << 20,
            fetched_wire: 550 << 20,
            ..status(State::Done)
        };
        console.finish(at(12_200), 0, &done, &outcome());
        assert!(console.out.is_empty());
        assert_eq!(
            lines(&mut console.err),
            [
                "sda1 -> /dev/sda1: reading the torrent",
                "sda1 -> /dev/sda1: downloading 0.0 %, 0 of 1000 pieces, down 0 B/s, up 0 B/s, 2 peers",
                "sda1 -> /dev/sda1: downloading 5.0 %, 50 of 1000 pieces, 60 % on the wire, \
                 down 10.0 MiB/s, up 5.0 MiB/s, 2 peers, 1:35 left",
                "sda1 -> /dev/sda1: downloading 10.0 %, 100 of 1000 pieces, 70 verified, 60 % on the wire, \
                 down 10.0 MiB/s, up 5.0 MiB/s, 2 peers, 1:30 left",
                "sda1 -> /dev/sda1: verifying 50.0 %, 500 of 1000 pieces, 0 B/s",
                "sda1 -> /dev/sda1: done: 1000.0 MiB in 1:12 (13.7 MiB/s), 1000 pieces verified, fetched 1001.0 MiB \
                 (54 % on the wire), \
                 uploaded 0 B",
            ]
        );
    }

    #[test]
    fn what_is_waited_for_is_said_seldom_and_taken_back() {
        let mut console = console(Mode::Json, || None);
        let waits = |text: &str| Status {
            waiting: Some(text.into()),
            ..status(State::Downloading)
        };
        for second in 0..100 {
            console.update(at(second * 1000), 0, &waits("no peer"));
        }
        let line = "swarmdd: sda1 -> /dev/sda1: waits: no peer";
        assert_eq!(lines(&mut console.err), [line; 2], "once a minute");
        let object = lines(&mut console.out).pop().unwrap();
        assert!(
            object.ends_with(",\"good\":0,\"disk\":null,\"waiting\":\"no peer\"}"),
            "{object}"
        );
        console.update(at(100_000), 0, &waits("no tracker"));
        console.update(at(101_000), 0, &waits("no peer"));
        assert_eq!(
            lines(&mut console.err).len(),
            1,
            "a change is said at once, but not two"
        );
        console.update(at(102_000), 0, &status(State::Downloading));
        console.update(at(103_000), 0, &status(State::Downloading));
        assert_eq!(
            lines(&mut console.err),
            ["swarmdd: sda1 -> /dev/sda1: goes on"]
        );
        let object = lines(&mut console.out).pop().unwrap();
        assert!(!object.contains("waiting"), "{object}");
    }

    #[test]
    fn none_says_what_is_waited_for_and_says_it_once() {
        let mut console = console(Mode::None, || None);
        for second in (0..300).step_by(5) {
            assert!(
                console
                    .next_wakeup(at(second * 1000))
                    .is_none_or(|wakeup| wakeup.since(at(second * 1000)) == SILENT_INTERVAL)
            );
            let waits = Status {
                waiting: (second > 10).then(|| format!("no peer {second}")),
                ..status(State::Downloading)
            };
            console.update(at(second * 1000), 0, &waits);
        }
        let line = "swarmdd: sda1 -> /dev/sda1: waits: no peer 15";
        assert_eq!(lines(&mut console.err), [line]);
    }

    #[test]
    fn plain_prints_once_a_minute_while_a_complete_machine_waits() {
        let mut console = console(Mode::Plain, || Some(80));
        for second in 0..130 {
            console.update(at(second * 1000), 0, &status(State::Seeding));
        }
        assert_eq!(
            lines(&mut console.err).len(),
            3,
            "one at the start and one a minute"
        );
        for second in 130..140 {
            console.update(at(second * 1000), 0, &status(State::Downloading));
        }
        assert_eq!(
            lines(&mut console.err).len(),
            2,
            "an incomplete job is shown even if nothing arrives"
        );
    }

    #[test]
    fn json_has_the_agreed_members_in_order() {
        let mut console = console(Mode::Json, || Some(80));
        let running = Status {
            have: 632,
            good: 400,
            fetched: 5,
            uploaded: 7,
            fetched_wire: 3,
            uploaded_wire: 4,
            ..status(State::Downloading)
        };
        console.update(at(0), 0, &running);
        assert_eq!(
            lines(&mut console.out),
            [
                "{\"state\":\"downloading\",\"torrent\":\"sda1\",\"target\":\"/dev/sda1\",\"percent\":63.2,\
              \"have\":632,\"pieces\":1000,\"fetched\":5,\"uploaded\":7,\"down\":0,\"up\":0,\"peers\":2,\"eta\":null,\
              \"fetched_wire\":3,\"uploaded_wire\":4,\
              \"good\":400,\"disk\":null}"
            ]
        );
        let disk = Disk {
            path: "/dev/sda1".into(),
            identity: Identity {
                model: Some("QEMU \"HD\"".into()),
                serial: None,
            },
            bytes: 4096,
        };
        let running = Status {
            disk: Some(disk),
            ..running
        };
        let end = Outcome {
            bad_offset: Some(4096),
            wiped: vec!["RAID at byte 5".into(), "ZFS at byte 7".into()],
            error: Some("I/O error".into()),
            ..outcome()
        };
        console.finish(at(10), 0, &running, &end);
        assert_eq!(
            lines(&mut console.out),
            [
                "{\"state\":\"failed\",\"torrent\":\"sda1\",\"target\":\"/dev/sda1\",\"percent\":63.2,\
              \"have\":632,\"pieces\":1000,\"fetched\":5,\"uploaded\":7,\"down\":0,\"up\":0,\"peers\":2,\"eta\":null,\
              \"fetched_wire\":3,\"uploaded_wire\":4,\
              \"verified\":true,\"good\":1000,\"bad_offset\":4096,\"seconds\":72.500,\"mb_per_second\":0.0,\"bytes\":1048576000,\
              \"info_hash\":\"00ff\",\"wiped\":[\"RAID at byte 5\",\"ZFS at byte 7\"],\"remains\":[],\
              \"disk\":{\"path\":\"/dev/sda1\",\"model\":\"QEMU \\\"HD\\\"\",\"serial\":null,\"size\":4096},\"error\":\"I/O error\"}"
            ]
        );
        assert_eq!(
            lines(&mut console.err),
            ["swarmdd: sda1 -> /dev/sda1: failed: I/O error"]
        );
        console.update(at(0), 1, &status(State::Seeding));
        console.finish(at(10), 1, &status(State::Seeding), &outcome());
        let last = lines(&mut console.out).pop().unwrap();
        assert!(
            last.contains("\"seconds\":72.500,\"mb_per_second\":14.4,"),
            "{last}"
        );
        assert!(
            last.starts_with("{\"state\":\"done\"")
                && last.ends_with("\"disk\":null,\"error\":null}"),
            "{last}"
        );
    }

    #[test]
    fn json_prints_at_least_once_a_second() {
        let mut console = console(Mode::Json, || None);
        let (mut now, mut objects) = (at(0), 0);
        while now < at(10_000) {
            console.update(now, 0, &status(State::Downloading));
            objects += lines(&mut console.out).len();
            let wakeup = console.next_wakeup(now).unwrap();
            assert!(wakeup > now && wakeup.since(now) <= JSON_INTERVAL);
            now = wakeup + Duration::from_millis(50);
        }
        assert!((10..=12).contains(&objects), "{objects}");
    }

    /// A job that has not changed must not delay the line of another job.
    #[test]
    fn the_next_wakeup_is_the_earliest_line_of_any_job() {
        let mut console = console(Mode::Json, || None);
        console.update(at(0), 0, &status(State::Seeding));
        console.update(at(500), 1, &status(State::Downloading));
        assert_eq!(console.next_wakeup(at(600)), Some(at(900)));
        assert_eq!(console.next_wakeup(at(1000)), Some(at(1400)));
        assert_eq!(console.next_wakeup(at(2000)), Some(at(2900)));
    }

    #[test]
    fn the_bar_is_redrawn_and_erased() {
        let mut console = console(Mode::Auto, || Some(100));
        download(&mut console, 10);
        let drawn = String::from_utf8(std::mem::take(&mut console.err)).unwrap();
        assert_eq!(
            drawn.matches('\r').count(),
            41,
            "each report is further than a redraw from the last"
        );
        assert!(!drawn.contains('\n'));
        let last = drawn.rsplit('\r').next().unwrap();
        let bar = "sda1 -> /dev/sda1 downloading [---------] 10.0 %";
        let numbers = "down 10.0 MiB/s, up 5.0 MiB/s, 2 peers, 1:30 left";
        let expected = format!("{bar}, {numbers}\x1b[K");
        assert_eq!(last, expected);
        console.note("tracker: not today\x1b[2J\n  really");
        console.update(at(10_000), 0, &status(State::Downloading));
        console.finish(at(10_000), 0, &status(State::Done), &outcome());
        let text = String::from_utf8(std::mem::take(&mut console.err)).unwrap();
        assert!(
            text.starts_with("\r\x1b[Kswarmdd: tracker: not today?[2J\n  really\n\rsda1"),
            "{text:?}"
        );
        assert!(text.ends_with("uploaded 0 B\n"), "{text:?}");
        assert_eq!(console.next_wakeup(at(10_000)), None);
    }

    #[test]
    fn a_failure_is_printed_in_every_mode() {
        for mode in [Mode::Auto, Mode::Plain, Mode::Json, Mode::None] {
            let mut console = console(mode, || Some(80));
            let failed = Outcome {
                error: Some("no space".into()),
                ..outcome()
            };
            console.finish(at(0), 0, &status(State::Downloading), &failed);
            assert_eq!(
                lines(&mut console.err),
                ["swarmdd: sda1 -> /dev/sda1: failed: no space"],
                "{mode:?}"
            );
        }
    }

    #[test]
    fn abandon_prints_a_last_line_for_every_unfinished_job() {
        let mut console = console(Mode::Json, || None);
        assert!(!console.abandon(at(0), "no port"));
        (0..3).for_each(|job| console.update(at(0), job, &status(State::Fetching)));
        console.finish(at(1), 1, &status(State::Seeding), &outcome());
        lines(&mut console.out);
        assert!(console.abandon(at(2), "no port"));
        let last = lines(&mut console.out);
        assert_eq!(last.len(), 2);
        assert!(
            last.iter()
                .all(|line| line.starts_with("{\"state\":\"failed\"") && line.contains("no port"))
        );
        assert_eq!(
            lines(&mut console.err),
            ["swarmdd: sda1 -> /dev/sda1: failed: no port"; 2]
        );
    }

    #[test]
    fn a_reader_that_went_away_is_no_error() {
        struct Closed;
        impl Write for Closed {
            fn write(&mut self, _: &[u8]) -> std::io::Result<usize> {
                Err(std::io::ErrorKind::BrokenPipe.into())
            }
            fn flush(&mut self) -> std::io::Result<()> {
                Ok(())
            }
        }
        let mut reporter = Reporter::new(Mode::Json, || None, Closed, Closed);
        reporter.update(at(0), 0, &status(State::Downloading));
        reporter.finish(at(1), 0, &status(State::Downloading), &outcome());
    }
}
