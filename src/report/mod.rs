//! What does the user see while the work goes on: a bar on a terminal, lines in a log, JSON for a
//! program.
//!
//! The caller says what is so (`update`, for each job whenever it likes) and how a job ended
//! (`finish`, exactly once for each); this file decides what is worth printing, and computes rates
//! and remaining time from the differences. Time is an argument and the two outputs are any
//! `Write`, so tests read what a user would see. JSON goes to `out`, everything for people goes to
//! `err`.
//!
//! Calling order: `update` or `finish`, then sleep no longer than `next_wakeup`, then `update`
//! again.

use std::fmt;
use std::io::{Stderr, Stdout, Write};
use std::time::Duration;

use swarm_proto::units::Instant;

use crate::os::tty::{self, TimedWriter};

/// A program that watches wants at least one object a second; a little less leaves room for a late
/// wake-up.
const JSON_INTERVAL: Duration = Duration::from_millis(900);
const PLAIN_INTERVAL: Duration = Duration::from_secs(5);
/// Five times a second looks alive and costs nothing, also on a serial console of 115200 baud.
const REDRAW_INTERVAL: Duration = Duration::from_millis(200);
/// A finished machine that only waits has nothing to say, but a log should show that it lives.
const IDLE_INTERVAL: Duration = Duration::from_secs(60);

/// Rates forget with this time constant: long enough to be readable, short enough to show a stall.
const RATE_SECONDS: f64 = 4.0;

/// Longest bar; a narrow terminal gets a shorter one, or none below `BAR_COLUMNS_MIN`.
const BAR_COLUMNS_MAX: usize = 40;
const BAR_COLUMNS_MIN: usize = 8;

/// `--progress`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// One redrawn line on a terminal, `Plain` elsewhere.
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

/// Where a job stands, in the order it goes through them. (`booted`, before all these, is said by
/// the initramfs.)
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

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            State::Fetching => "fetching",
            State::Scanning => "scanning",
            State::Downloading => "downloading",
            State::Verifying => "verifying",
            State::Seeding => "seeding",
            State::Done => "done",
            State::Failed => "failed",
        })
    }
}

pub type Standard = Reporter<TimedWriter<Stdout>, TimedWriter<Stderr>>;

/// What is so at this moment in one job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    pub state: State,
    /// The name in the torrent, or where it is fetched from while it is not known.
    pub torrent: String,
    pub target: String,
    /// Pieces that are on the target.
    pub have: u32,
    pub pieces: u32,
    /// Pieces read so far, while scanning and verifying, and those that are to be read.
    pub checked: u32,
    pub to_check: u32,
    /// Length of the image.
    pub bytes: u64,
    /// Payload that came over the network, wasted blocks too.
    pub fetched: u64,
    pub uploaded: u64,
    pub peers: u32,
}

/// How one job ended; failed if there is an `error`.
#[derive(Clone, Debug, PartialEq)]
pub struct Outcome {
    /// Every piece was read from the target, after its last write, and its hash was right.
    pub verified: bool,
    /// How many were.
    pub good: u32,
    /// Where the disk failed, or where on it the first bad piece begins.
    pub bad_offset: Option<u64>,
    pub took: Duration,
    pub bytes: u64,
    pub fetched: u64,
    pub info_hash: String,
    pub disk: Option<Disk>,
    pub error: Option<String>,
}

/// What the disk says about itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Disk {
    pub model: String,
    pub serial: String,
}

/// Prints what is worth printing. See the top of the file for the calling order.
pub struct Reporter<Out: Write, Err: Write> {
    mode: Mode,
    /// With their numbers.
    jobs: Vec<(usize, Job)>,
    out: Out,
    err: Err,
    /// Columns of the terminal behind `err`, asked before each drawing because windows change;
    /// `None`: no terminal.
    columns: fn() -> Option<u16>,
    /// When the redrawn line was drawn, and the state that it showed; `None` while there is no such
    /// line.
    drawn: Option<(Instant, State)>,
}

impl<Out: Write, Err: Write> Reporter<Out, Err> {
    /// `columns` is used only by `Mode::Auto`, which is `Mode::Plain` where it says `None` at the
    /// start.
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
        }
    }

    /// Job `index` stands as `status` says.
    pub fn update(&mut self, now: Instant, index: usize, status: &Status) {
        let job = job(&mut self.jobs, now, index, status);
        assert!(!job.finished, "job {index} has been finished");
        job.take(now, status);
        match self.mode {
            Mode::Plain if job.is_due(now, PLAIN_INTERVAL) => {
                job.printed = Some((now, status.clone()));
                print(&mut self.err, &format!("{}\n", View::of_one(job).line()));
            }
            Mode::Json if job.is_due(now, JSON_INTERVAL) => {
                job.printed = Some((now, status.clone()));
                print(&mut self.out, &format!("{{{}}}\n", job.json(status.state)));
            }
            Mode::Auto => self.redraw(now),
            Mode::Plain | Mode::Json | Mode::None => {}
        }
    }

    /// Job `index` has ended as `outcome` says. A failure is printed in every mode: it is the one
    /// line on stderr that goes with exit status 1.
    pub fn finish(&mut self, now: Instant, index: usize, status: &Status, outcome: &Outcome) {
        let job = job(&mut self.jobs, now, index, status);
        assert!(!job.finished, "job {index} is finished twice");
        job.take(now, status);
        job.finished = true;
        let state = if outcome.error.is_some() {
            State::Failed
        } else {
            State::Done
        };
        if self.mode == Mode::Json {
            print(
                &mut self.out,
                &format!("{{{},{}}}\n", job.json(state), outcome.json()),
            );
        }
        let title = job.title();
        match &outcome.error {
            Some(error) => self.note(&format!("{title}: failed: {error}")),
            None if matches!(self.mode, Mode::Auto | Mode::Plain) => {
                self.clear();
                print(
                    &mut self.err,
                    &format!("{title}: {}\n", outcome.line(status.uploaded)),
                );
            }
            None => {}
        }
        if self.mode == Mode::Auto {
            self.redraw(now);
        }
    }

    /// Nothing more can be done: ends every job that has been heard of and has not ended. False if
    /// there was none, so that nothing was said.
    pub fn abandon(&mut self, now: Instant, reason: &str) -> bool {
        let left: Vec<(usize, Status)> = self
            .jobs
            .iter()
            .filter(|(_, job)| !job.finished)
            .map(|(i, job)| (*i, job.status.clone()))
            .collect();
        for (index, status) in &left {
            self.finish(
                now,
                *index,
                status,
                &Outcome::refused(status.bytes, reason.into()),
            );
        }
        !left.is_empty()
    }

    /// Something the user should know, in every mode: mostly one line on stderr, at times a table
    /// below it.
    pub fn note(&mut self, text: &str) {
        self.clear();
        let lines: String = text
            .lines()
            .map(|line| format!("{}\n", printable(line)))
            .collect();
        print(&mut self.err, &format!("swarmdd: {lines}"));
    }

    /// When `update` should be called again at the latest, always after `now`; `None` if nobody
    /// waits for anything.
    pub fn next_wakeup(&self, now: Instant) -> Option<Instant> {
        let interval = match self.mode {
            Mode::Auto => REDRAW_INTERVAL,
            Mode::Plain => PLAIN_INTERVAL,
            Mode::Json => JSON_INTERVAL,
            Mode::None => return None,
        };
        let unfinished = || {
            self.jobs
                .iter()
                .map(|(_, job)| job)
                .filter(|job| !job.finished)
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
        // A job that was due and had nothing to say is looked at again one interval later, not at
        // once.
        Some(next.unwrap_or(now + interval))
    }

    /// Draws the line again if that is due: at a change of state at once, else not too often.
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
            print(
                &mut self.err,
                &format!("\r{}\x1b[K", view.drawn_line(columns)),
            );
        }
    }

    /// Takes the redrawn line away, so that something else can stand there.
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

/// To stdout and stderr of this process. A reader that stops must not stop the disk: lines it has
/// no room for are lost.
pub fn standard(mode: Mode) -> Standard {
    // A terminal that does not know its width is a serial console: somebody keeps a log of it, so
    // lines are better.
    let (out, err) = (
        TimedWriter::new(std::io::stdout()),
        TimedWriter::new(std::io::stderr()),
    );
    Reporter::new(mode, || tty::columns(std::io::stderr()), out, err)
}

/// In one piece, so that lines of several programs on one console stay whole.
fn print(to: &mut impl Write, text: &str) {
    // Whoever listened has gone away: that is no reason to leave a disk half written.
    let _ = to.write_all(text.as_bytes()).and_then(|()| to.flush());
}

/// The job of this number, which may be new.
fn job<'a>(
    jobs: &'a mut Vec<(usize, Job)>,
    now: Instant,
    index: usize,
    status: &Status,
) -> &'a mut Job {
    let at = jobs
        .iter()
        .position(|(number, _)| *number == index)
        .unwrap_or(jobs.len());
    if at == jobs.len() {
        jobs.push((index, Job::new(now, status)));
    }
    &mut jobs[at].1
}

/// One TORRENT TARGET pair as it was last reported.
struct Job {
    status: Status,
    down: Rate,
    up: Rate,
    /// How fast the present state gets on, in bytes of the image; a new one for each state.
    advance: Rate,
    /// What was printed of this job last, and when.
    printed: Option<(Instant, Status)>,
    finished: bool,
}

impl Job {
    fn new(now: Instant, status: &Status) -> Job {
        Job {
            status: status.clone(),
            down: Rate::new(now, status.fetched),
            up: Rate::new(now, status.uploaded),
            advance: Rate::new(now, status.bytes_advanced()),
            printed: None,
            finished: false,
        }
    }

    fn take(&mut self, now: Instant, status: &Status) {
        self.down.sample(now, status.fetched);
        self.up.sample(now, status.uploaded);
        if self.status.state == status.state {
            self.advance.sample(now, status.bytes_advanced());
        } else {
            self.advance = Rate::new(now, status.bytes_advanced());
        }
        self.status.clone_from(status);
    }

    /// Each change of state is worth a line at once, movement one every `interval`. What is
    /// incomplete counts as moving: that nothing arrives is news too.
    fn is_due(&self, now: Instant, interval: Duration) -> bool {
        let Some((last, printed)) = &self.printed else {
            return true;
        };
        let moving = self.status.state < State::Seeding || *printed != self.status;
        printed.state != self.status.state
            || now.since(*last) >= if moving { interval } else { IDLE_INTERVAL }
    }

    fn title(&self) -> String {
        format!("{} -> {}", self.status.torrent, self.status.target)
    }

    /// Seconds until the present state is through, if it gets on at all.
    fn eta_seconds(&self) -> Option<u64> {
        let (done, all) = self.status.pieces_advanced();
        let remaining = part(
            self.status.bytes,
            all.saturating_sub(done),
            self.status.pieces,
        );
        let rate = match self.status.state {
            // Blocks arrive more smoothly than pieces are completed.
            State::Downloading => self.down.bytes_per_second(),
            State::Scanning | State::Verifying => self.advance.bytes_per_second(),
            _ => return None,
        };
        (rate > 0).then(|| remaining.div_ceil(rate))
    }

    /// The members of the JSON object, without the braces.
    fn json(&self, state: State) -> String {
        let Status {
            torrent,
            target,
            have,
            pieces,
            fetched,
            uploaded,
            peers,
            ..
        } = &self.status;
        let (torrent, target) = (json_string(torrent), json_string(target));
        let permille = self.status.permille();
        let (down, up) = (self.down.bytes_per_second(), self.up.bytes_per_second());
        let eta = json_option(self.eta_seconds());
        format!(
            "\"state\":\"{state}\",\"torrent\":{torrent},\"target\":{target},\"percent\":{}.{},\"have\":{have},\
             \"pieces\":{pieces},\"fetched\":{fetched},\"uploaded\":{uploaded},\"down\":{down},\"up\":{up},\
             \"peers\":{peers},\"eta\":{eta}",
            permille / 10,
            permille % 10,
        )
    }
}

impl Status {
    /// Pieces through which the present state has gone, of how many.
    fn pieces_advanced(&self) -> (u32, u32) {
        match self.state {
            State::Scanning | State::Verifying => (self.checked, self.to_check),
            _ => (self.have, self.pieces),
        }
    }

    fn bytes_advanced(&self) -> u64 {
        part(self.bytes, self.pieces_advanced().0, self.pieces)
    }

    /// Rounded down, so that 100 % means all.
    fn permille(&self) -> u64 {
        let (done, all) = self.pieces_advanced();
        part(1000, done, all)
    }
}

/// `whole · count / of`, and nothing of nothing.
fn part(whole: u64, count: u32, of: u32) -> u64 {
    match of {
        0 => 0,
        // The quotient is at most `whole`.
        _ => (u128::from(whole) * u128::from(count.min(of)) / u128::from(of)) as u64,
    }
}

impl Outcome {
    /// Of a job that ended for a reason of others, or before it began.
    pub fn refused(bytes: u64, error: String) -> Outcome {
        Outcome {
            verified: false,
            good: 0,
            bad_offset: None,
            took: Duration::ZERO,
            bytes,
            fetched: 0,
            info_hash: String::new(),
            disk: None,
            error: Some(error),
        }
    }

    /// The further members of the last JSON object of a job.
    fn json(&self) -> String {
        let Outcome {
            verified,
            good,
            took,
            bytes,
            ..
        } = self;
        let (seconds, millis) = (took.as_secs(), took.subsec_millis());
        let bad_offset = json_option(self.bad_offset);
        let info_hash = json_string(&self.info_hash);
        let disk = json_option(self.disk.as_ref().map(|disk| {
            let Disk { model, serial } = disk;
            format!(
                "{{\"model\":{},\"serial\":{}}}",
                json_string(model),
                json_string(serial)
            )
        }));
        let error = json_option(self.error.as_deref().map(json_string));
        // In units of 0.1 MB.
        let speed = self.bytes_per_second() / 100_000;
        format!(
            "\"verified\":{verified},\"good\":{good},\"bad_offset\":{bad_offset},\"seconds\":{seconds}.{millis:03},\
             \"mb_per_second\":{}.{},\"bytes\":{bytes},\"info_hash\":{info_hash},\"disk\":{disk},\"error\":{error}",
            speed / 10,
            speed % 10,
        )
    }

    /// Of the image, however little of it had to come. A job of no time at all has no speed: a
    /// hundredth of a second is the least that counts. Nor has what failed, for nobody knows how
    /// much of the image that was.
    fn bytes_per_second(&self) -> u64 {
        if self.error.is_some() {
            return 0;
        }
        let millis = self.took.as_millis().max(10);
        u64::try_from(u128::from(self.bytes) * 1000 / millis).unwrap_or(u64::MAX)
    }

    fn line(&self, uploaded: u64) -> String {
        let verified = if self.verified {
            format!("{} pieces verified", self.good)
        } else {
            "not verified".into()
        };
        let rate = self.bytes_per_second();
        format!(
            "done: {} in {} ({}/s), {verified}, fetched {}, uploaded {}",
            Bytes(self.bytes),
            Clock(self.took.as_secs()),
            Bytes(rate),
            Bytes(self.fetched),
            Bytes(uploaded),
        )
    }
}

/// What a person is shown of one job or of all together.
struct View {
    title: String,
    state: State,
    permille: Option<u64>,
    pieces: Option<(u32, u32)>,
    down: u64,
    up: u64,
    advance: u64,
    peers: u32,
    eta_seconds: Option<u64>,
}

impl View {
    fn of_one(job: &Job) -> View {
        let status = &job.status;
        let counts = matches!(
            status.state,
            State::Scanning | State::Downloading | State::Verifying
        );
        View {
            title: job.title(),
            state: status.state,
            permille: counts.then(|| status.permille()),
            pieces: counts.then(|| status.pieces_advanced()),
            down: job.down.bytes_per_second(),
            up: job.up.bytes_per_second(),
            advance: job.advance.bytes_per_second(),
            peers: status.peers,
            eta_seconds: job.eta_seconds(),
        }
    }

    /// The jobs that are not finished: where the last of them stands, and how far all have come in
    /// that state. `None` when there are no such jobs.
    fn of_all<'a>(jobs: impl Iterator<Item = &'a Job>) -> Option<View> {
        let mut views: Vec<View> = jobs.filter(|job| !job.finished).map(View::of_one).collect();
        if views.len() < 2 {
            return views.pop();
        }
        let state = views.iter().map(|view| view.state).min()?;
        let behind = || views.iter().filter(|view| view.state == state);
        let add = |sum: (u32, u32), view: &View| {
            view.pieces
                .map(|(n, of)| (sum.0.saturating_add(n), sum.1.saturating_add(of)))
        };
        let pieces = behind().try_fold((0, 0), add);
        Some(View {
            title: format!("{} targets, {} of them", views.len(), behind().count()),
            state,
            permille: pieces.map(|(count, of)| part(1000, count, of)),
            pieces,
            down: views.iter().map(|view| view.down).sum(),
            up: views.iter().map(|view| view.up).sum(),
            advance: behind().map(|view| view.advance).sum(),
            peers: views.iter().map(|view| view.peers).sum(),
            eta_seconds: behind().map(|view| view.eta_seconds).max().flatten(),
        })
    }

    /// For a log: `sda1 -> /dev/sda1: downloading 63.2 %, 632 of 1000 pieces, …`.
    fn line(&self) -> String {
        let pieces = self.pieces.map_or(String::new(), |(count, of)| {
            format!(", {count} of {of} pieces")
        });
        printable(&format!(
            "{}: {}{}{pieces}{}",
            self.title,
            self.state,
            self.percent(),
            self.numbers()
        ))
    }

    /// For a terminal: as `line`, with a bar in the room that is left. The last column stays free,
    /// because some terminals wrap when it is written.
    fn drawn_line(&self, columns: usize) -> String {
        let room = columns.saturating_sub(1);
        let before = printable(&format!("{} {}", self.title, self.state));
        let after = format!("{}{}", self.percent(), self.numbers());
        let used = before.chars().count() + after.chars().count() + " []".len();
        let bar = room.saturating_sub(used).min(BAR_COLUMNS_MAX);
        let line = match self.permille {
            Some(permille) if bar >= BAR_COLUMNS_MIN => {
                let full = bar * permille as usize / 1000;
                format!(
                    "{before} [{}{}]{after}",
                    "#".repeat(full),
                    "-".repeat(bar - full)
                )
            }
            _ => format!("{before}{after}"),
        };
        line.chars().take(room).collect()
    }

    fn percent(&self) -> String {
        self.permille.map_or(String::new(), |permille| {
            format!(" {}.{} %", permille / 10, permille % 10)
        })
    }

    /// Only what says something in this state.
    fn numbers(&self) -> String {
        let plural = if self.peers == 1 { "" } else { "s" };
        let swarm = format!(", up {}/s, {} peer{plural}", Bytes(self.up), self.peers);
        let numbers = match self.state {
            State::Scanning | State::Verifying => format!(", {}/s", Bytes(self.advance)),
            State::Downloading => format!(", down {}/s{swarm}", Bytes(self.down)),
            State::Seeding => swarm,
            State::Fetching | State::Done | State::Failed => String::new(),
        };
        let left = self.eta_seconds.map_or(String::new(), |seconds| {
            format!(", {} left", Clock(seconds))
        });
        numbers + &left
    }
}

/// Bytes per second over the last few seconds: both sums fade with time, so the start is not biased
/// towards zero.
struct Rate {
    last: Instant,
    total: u64,
    bytes: f64,
    seconds: f64,
}

impl Rate {
    fn new(now: Instant, total: u64) -> Rate {
        Rate {
            last: now,
            total,
            bytes: 0.0,
            seconds: 0.0,
        }
    }

    /// The new time span fades too, as if its bytes had come evenly: a long gap is not one sudden
    /// moment.
    fn sample(&mut self, now: Instant, total: u64) {
        let seconds = now.since(self.last).as_secs_f64();
        let fade = (-seconds / RATE_SECONDS).exp();
        let weight = if seconds > 0.0 {
            RATE_SECONDS * (1.0 - fade) / seconds
        } else {
            1.0
        };
        self.bytes = self.bytes * fade + total.saturating_sub(self.total) as f64 * weight;
        self.seconds = self.seconds * fade + seconds * weight;
        (self.last, self.total) = (now, total);
    }

    /// Half a second is the shortest time that says anything about speed.
    fn bytes_per_second(&self) -> u64 {
        (self.bytes / self.seconds.max(0.5)).round() as u64
    }
}

/// A number of bytes for people: `512 B`, `1.5 KiB`, `56.9 MiB`.
pub struct Bytes(pub u64);

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
        if self.0 < 1024 {
            return write!(f, "{} B", self.0);
        }
        // 1024 has 11 bits: each further 10 bits are the next unit.
        let unit = (63 - self.0.leading_zeros()) / 10 - 1;
        let tenths = (u128::from(self.0) * 10) >> (10 * (unit + 1));
        write!(
            f,
            "{}.{} {}",
            tenths / 10,
            tenths % 10,
            UNITS[unit as usize]
        )
    }
}

/// A number of seconds for people: `0:05`, `1:02:03`.
struct Clock(u64);

impl fmt::Display for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (hours, minutes, seconds) = (self.0 / 3600, self.0 / 60 % 60, self.0 % 60);
        match hours {
            0 => write!(f, "{minutes}:{seconds:02}"),
            _ => write!(f, "{hours}:{minutes:02}:{seconds:02}"),
        }
    }
}

/// Names come from torrents and trackers: what would move the cursor or change colours is shown as
/// `?`.
pub fn printable(text: &str) -> String {
    text.chars()
        .map(|letter| if letter.is_control() { '?' } else { letter })
        .collect()
}

fn json_string(text: &str) -> String {
    let mut json = String::from('"');
    for letter in text.chars() {
        match letter {
            '"' | '\\' => json.extend(['\\', letter]),
            // RFC 8259 section 7 wants U+0000 to U+001F escaped; the other control characters are
            // spared the consoles.
            letter if letter.is_control() => {
                json.push_str(&format!("\\u{:04x}", u32::from(letter)))
            }
            letter => json.push(letter),
        }
    }
    json.push('"');
    json
}

fn json_option(value: Option<impl fmt::Display>) -> String {
    value.map_or("null".into(), |value| value.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What was written to `out` and to `err`.
    type Console = Reporter<Vec<u8>, Vec<u8>>;

    fn console(mode: Mode, columns: fn() -> Option<u16>) -> Console {
        Reporter::new(mode, columns, Vec::new(), Vec::new())
    }

    fn lines(written: &mut Vec<u8>) -> Vec<String> {
        let text = String::from_utf8(std::mem::take(written)).unwrap();
        text.lines().map(String::from).collect()
    }

    fn at(milliseconds: u64) -> Instant {
        Instant(milliseconds * 1000)
    }

    fn status(state: State) -> Status {
        Status {
            state,
            torrent: "sda1".into(),
            target: "/dev/sda1".into(),
            have: 0,
            pieces: 1000,
            checked: 0,
            to_check: 1000,
            bytes: 1000 << 20,
            fetched: 0,
            uploaded: 0,
            peers: 2,
        }
    }

    fn outcome() -> Outcome {
        Outcome {
            verified: true,
            good: 1000,
            bad_offset: None,
            took: Duration::from_millis(72_500),
            bytes: 1000 << 20,
            fetched: 1001 << 20,
            info_hash: "00ff".into(),
            disk: None,
            error: None,
        }
    }

    /// `seconds` of downloading 10 MiB a second, reported four times a second.
    fn download(console: &mut Console, seconds: u64) {
        for quarter in 0..=seconds * 4 {
            let done = quarter * 10 / 4;
            let moved = Status {
                have: done as u32,
                fetched: quarter * (10 << 20) / 4,
                uploaded: done << 19,
                ..status(State::Downloading)
            };
            console.update(at(quarter * 250), 0, &moved);
        }
    }

    #[test]
    fn plain_prints_states_and_every_five_seconds() {
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
        console.finish(at(12_200), 0, &status(State::Done), &outcome());
        assert!(console.out.is_empty());
        assert_eq!(
            lines(&mut console.err),
            [
                "sda1 -> /dev/sda1: fetching",
                "sda1 -> /dev/sda1: downloading 0.0 %, 0 of 1000 pieces, down 0 B/s, up 0 B/s, 2 peers",
                "sda1 -> /dev/sda1: downloading 5.0 %, 50 of 1000 pieces, down 10.0 MiB/s, \
                 up 5.0 MiB/s, 2 peers, 1:35 left",
                "sda1 -> /dev/sda1: downloading 10.0 %, 100 of 1000 pieces, down 10.0 MiB/s, \
                 up 5.0 MiB/s, 2 peers, 1:30 left",
                "sda1 -> /dev/sda1: verifying 50.0 %, 500 of 1000 pieces, 0 B/s",
                "sda1 -> /dev/sda1: done: 1000.0 MiB in 1:12 (13.7 MiB/s), 1000 pieces verified, fetched 1001.0 MiB, \
                 uploaded 0 B",
            ]
        );
    }

    #[test]
    fn plain_is_quiet_when_a_complete_machine_only_waits() {
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
            "what is incomplete is shown even if it stands still"
        );
    }

    #[test]
    fn json_has_the_agreed_members_in_order() {
        let mut console = console(Mode::Json, || Some(80));
        let running = Status {
            have: 632,
            fetched: 5,
            uploaded: 7,
            ..status(State::Downloading)
        };
        console.update(at(0), 0, &running);
        assert_eq!(
            lines(&mut console.out),
            [
                "{\"state\":\"downloading\",\"torrent\":\"sda1\",\"target\":\"/dev/sda1\",\"percent\":63.2,\
              \"have\":632,\"pieces\":1000,\"fetched\":5,\"uploaded\":7,\"down\":0,\"up\":0,\"peers\":2,\"eta\":null}"
            ]
        );
        let disk = Some(Disk {
            model: "QEMU \"HD\"".into(),
            serial: "1".into(),
        });
        let end = Outcome {
            disk,
            bad_offset: Some(4096),
            error: Some("I/O error".into()),
            ..outcome()
        };
        console.finish(at(10), 0, &running, &end);
        assert_eq!(
            lines(&mut console.out),
            [
                "{\"state\":\"failed\",\"torrent\":\"sda1\",\"target\":\"/dev/sda1\",\"percent\":63.2,\
              \"have\":632,\"pieces\":1000,\"fetched\":5,\"uploaded\":7,\"down\":0,\"up\":0,\"peers\":2,\"eta\":null,\
              \"verified\":true,\"good\":1000,\"bad_offset\":4096,\"seconds\":72.500,\"mb_per_second\":0.0,\"bytes\":1048576000,\
              \"info_hash\":\"00ff\",\
              \"disk\":{\"model\":\"QEMU \\\"HD\\\"\",\"serial\":\"1\"},\"error\":\"I/O error\"}"
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
    fn json_speaks_at_least_once_a_second() {
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

    /// A job that has nothing to say must not make another one late.
    #[test]
    fn the_next_line_of_any_job_is_waited_for() {
        let mut console = console(Mode::Json, || None);
        console.update(at(0), 0, &status(State::Seeding));
        console.update(at(500), 1, &status(State::Downloading));
        assert_eq!(console.next_wakeup(at(600)), Some(at(900)));
        assert_eq!(console.next_wakeup(at(1000)), Some(at(1400)));
        assert_eq!(console.next_wakeup(at(2000)), Some(at(2900)));
    }

    #[test]
    fn the_terminal_line_is_redrawn_and_taken_away() {
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
    fn a_drawn_line_fits_every_width() {
        let mut job = Job::new(at(0), &status(State::Downloading));
        job.take(
            at(1000),
            &Status {
                have: 500,
                fetched: 7 << 20,
                ..status(State::Downloading)
            },
        );
        for columns in 0..200 {
            let line = View::of_one(&job).drawn_line(columns);
            assert!(
                line.chars().count() <= columns.saturating_sub(1),
                "{columns}: {line}"
            );
        }
        assert!(
            View::of_one(&job)
                .drawn_line(150)
                .contains("[####################--------------------] 50.0 %")
        );
        assert!(!View::of_one(&job).drawn_line(70).contains('['));
    }

    #[test]
    fn several_jobs_share_one_line() {
        let jobs = [
            Job::new(
                at(0),
                &Status {
                    have: 250,
                    ..status(State::Downloading)
                },
            ),
            Job::new(
                at(0),
                &Status {
                    have: 500,
                    ..status(State::Downloading)
                },
            ),
            Job::new(
                at(0),
                &Status {
                    have: 1000,
                    ..status(State::Seeding)
                },
            ),
        ];
        let view = View::of_all(jobs.iter()).unwrap();
        let expected = "3 targets, 2 of them: downloading 37.5 %, 750 of 2000 pieces, down 0 B/s, up 0 B/s, 6 peers";
        assert_eq!(view.line(), expected);
        assert!(View::of_all([].iter()).is_none());
    }

    #[test]
    fn a_failure_is_said_in_every_mode() {
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
    fn every_job_has_a_last_line_when_all_are_given_up() {
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
    fn a_listener_that_went_away_is_no_error() {
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

    #[test]
    fn a_rate_follows_and_forgets() {
        let mut rate = Rate::new(at(0), 500);
        assert_eq!(rate.bytes_per_second(), 0);
        for second in 1..=20 {
            rate.sample(at(second * 1000), 500 + second * 100);
            assert_eq!(rate.bytes_per_second(), 100, "right from the start");
        }
        rate.sample(at(24_000), 2500);
        assert!(
            (30..=40).contains(&rate.bytes_per_second()),
            "1/e after one time constant"
        );
        rate.sample(at(60_000), 2500);
        assert_eq!(rate.bytes_per_second(), 0);
        rate.sample(at(60_000), 0);
        assert_eq!(
            rate.bytes_per_second(),
            0,
            "a total that shrinks is no speed"
        );
    }

    #[test]
    fn nothing_of_nothing_is_no_percent() {
        let empty = Status {
            pieces: 0,
            bytes: 0,
            ..status(State::Downloading)
        };
        assert_eq!((empty.permille(), empty.bytes_advanced()), (0, 0));
        assert_eq!(
            Status {
                have: 999,
                ..status(State::Downloading)
            }
            .permille(),
            999
        );
        assert_eq!(part(u64::MAX, u32::MAX, u32::MAX), u64::MAX);
    }

    #[test]
    fn people_read_sizes_and_times() {
        let sizes = [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.0 KiB"),
            (1536, "1.5 KiB"),
            ((1 << 20) - 1, "1023.9 KiB"),
            (5 << 30, "5.0 GiB"),
            (u64::MAX, "15.9 EiB"),
        ];
        for (bytes, text) in sizes {
            assert_eq!(Bytes(bytes).to_string(), text);
        }
        for (seconds, text) in [
            (0, "0:00"),
            (65, "1:05"),
            (3599, "59:59"),
            (36_610, "10:10:10"),
        ] {
            assert_eq!(Clock(seconds).to_string(), text);
        }
    }

    #[test]
    fn json_strings_are_escaped() {
        assert_eq!(
            json_string("a\"b\\c\n\u{1}\u{7f}é€"),
            "\"a\\\"b\\\\c\\u000a\\u0001\\u007fé€\""
        );
        assert_eq!(json_option(None::<u64>), "null");
    }
}
