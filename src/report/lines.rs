//! How does a person read where a job stands, or how it ended, in one line?

use std::fmt;

use swarm_proto::size::binary;

use super::progress::{Progress, part};
use super::{Outcome, State, Status};

/// What a person sees of one job or of all together.
pub(super) struct View {
    pub(super) title: String,
    pub(super) state: State,
    pub(super) permille: Option<u64>,
    pieces: Option<(u32, u32)>,
    good: u32,
    down: u64,
    up: u64,
    fetched: u64,
    fetched_wire: u64,
    advance: u64,
    peers: u32,
    eta_seconds: Option<u64>,
    waits: bool,
}

impl View {
    pub(super) fn of_one(job: &Progress) -> View {
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
            good: status.good,
            down: job.down.bytes_per_second(),
            up: job.up.bytes_per_second(),
            fetched: status.fetched,
            fetched_wire: status.fetched_wire,
            advance: job.advance.bytes_per_second(),
            peers: status.peers,
            eta_seconds: job.eta_seconds(),
            waits: status.waiting.is_some(),
        }
    }

    /// The unfinished jobs together: the earliest state that one of them is in, and how far the
    /// jobs in that state have come. `None` if all jobs are finished.
    pub(super) fn of_all<'a>(jobs: impl Iterator<Item = &'a Progress>) -> Option<View> {
        let mut views: Vec<View> = jobs
            .filter(|job| job.ended.is_none())
            .map(View::of_one)
            .collect();
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
            good: behind().map(|view| view.good).fold(0, u32::saturating_add),
            down: views.iter().map(|view| view.down).sum(),
            up: views.iter().map(|view| view.up).sum(),
            fetched: behind().map(|view| view.fetched).sum(),
            fetched_wire: behind().map(|view| view.fetched_wire).sum(),
            advance: behind().map(|view| view.advance).sum(),
            peers: views.iter().map(|view| view.peers).sum(),
            eta_seconds: behind().map(|view| view.eta_seconds).max().flatten(),
            waits: behind().all(|view| view.waits),
        })
    }

    /// A line of a log: `sda1 -> /dev/sda1: downloading 63.2 %, 632 of 1000 pieces, …`.
    pub(super) fn line(&self) -> String {
        let pieces = self.pieces.map_or(String::new(), |(count, of)| {
            format!(", {count} of {of} pieces")
        });
        let good = match (self.state, self.good) {
            (State::Downloading, 1..) => format!(", {} verified", self.good),
            _ => String::new(),
        };
        printable(&format!(
            "{}: {}{}{pieces}{good}{}{}",
            self.title,
            self.state,
            self.percent(),
            self.wire(),
            self.numbers()
        ))
    }

    pub(super) fn percent(&self) -> String {
        self.permille.map_or(String::new(), |permille| {
            format!(" {}.{} %", permille / 10, permille % 10)
        })
    }

    /// How much of what was fetched went over the wire.
    fn wire(&self) -> String {
        let wire = percent_on_the_wire(self.fetched, self.fetched_wire);
        match (self.state, wire) {
            (State::Downloading, Some(wire)) => format!(", {wire}"),
            _ => String::new(),
        }
    }

    /// Rates, peers and remaining time, each only in the states in which it means something.
    pub(super) fn numbers(&self) -> String {
        let plural = if self.peers == 1 { "" } else { "s" };
        let swarm = format!(", up {}/s, {} peer{plural}", binary(self.up), self.peers);
        let numbers = match self.state {
            State::Scanning | State::Verifying => format!(", {}/s", binary(self.advance)),
            State::Downloading if self.waits => format!(", waits{swarm}"),
            State::Downloading => format!(", down {}/s{swarm}", binary(self.down)),
            State::Seeding => swarm,
            State::Fetching | State::Done | State::Failed => String::new(),
        };
        let left = self.eta_seconds.map_or(String::new(), |seconds| {
            format!(", {} left", Clock(seconds))
        });
        numbers + &left
    }
}

/// How much of these bytes went over the wire, if they were compressed there.
fn percent_on_the_wire(bytes: u64, wire_bytes: u64) -> Option<String> {
    (wire_bytes < bytes).then(|| format!("{} % on the wire", wire_bytes * 100 / bytes))
}

/// How a job ended well: `done: 56.9 GiB on /dev/sda in 8:31 (113.9 MiB/s), 14567 pieces verified,
/// …`. The initramfs takes the disk from it for its hooks; where the target is a path it says so
/// already.
pub(super) fn done(outcome: &Outcome, status: &Status) -> String {
    let place = match &status.disk {
        Some(disk) if disk.path != status.target => format!(" on {}", disk.path),
        _ => String::new(),
    };
    let verified = if outcome.verified {
        format!("{} pieces verified", outcome.good)
    } else {
        "not verified".into()
    };
    let rate = outcome.bytes_per_second();
    let some = |word: &str, texts: &[String]| match texts {
        [] => String::new(),
        texts => format!("; {word} {}", texts.join(", ")),
    };
    let wire = |bytes, wire_bytes| {
        percent_on_the_wire(bytes, wire_bytes).map_or(String::new(), |wire| format!(" ({wire})"))
    };
    let (wiped, remains) = (
        some("wiped", &outcome.wiped),
        some("remains:", &outcome.remains),
    );
    format!(
        "done: {}{place} in {} ({}/s), {verified}, fetched {}{}, uploaded {}{}{wiped}{remains}",
        binary(outcome.bytes),
        Clock(outcome.took.as_secs()),
        binary(rate),
        binary(status.fetched),
        wire(status.fetched, status.fetched_wire),
        binary(status.uploaded),
        wire(status.uploaded, status.uploaded_wire),
    )
}

/// A number of seconds, for people: `0:05`, `1:02:03`.
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

/// The text with every control character shown as `?`. Names come from torrents and trackers, and
/// could otherwise move the cursor or change colours.
pub fn printable(text: &str) -> String {
    text.chars()
        .map(|letter| if letter.is_control() { '?' } else { letter })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::super::Disk;
    use super::super::testing::{at, outcome, status};
    use super::*;
    use crate::target::Identity;

    #[test]
    fn the_disk_behind_a_selector_is_named_at_the_end() {
        let disk = |path: &str| Disk {
            path: path.into(),
            identity: Identity::default(),
            bytes: 0,
        };
        let selected = Status {
            target: "disk:auto".into(),
            disk: Some(disk("/dev/nvme0n1")),
            ..status(State::Done)
        };
        let said = done(&outcome(), &selected);
        assert!(
            said.starts_with("done: 1000.0 MiB on /dev/nvme0n1 in 1:12 ("),
            "{said}"
        );
        let named = Status {
            target: "/dev/nvme0n1".into(),
            ..selected
        };
        let said = done(&outcome(), &named);
        assert!(said.starts_with("done: 1000.0 MiB in 1:12 ("), "{said}");
    }

    #[test]
    fn several_jobs_share_one_line() {
        let jobs = [
            Progress::new(
                at(0),
                &Status {
                    have: 250,
                    ..status(State::Downloading)
                },
            ),
            Progress::new(
                at(0),
                &Status {
                    have: 500,
                    ..status(State::Downloading)
                },
            ),
            Progress::new(
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
    fn durations_are_shown_as_a_clock() {
        for (seconds, text) in [
            (0, "0:00"),
            (65, "1:05"),
            (3599, "59:59"),
            (36_610, "10:10:10"),
        ] {
            assert_eq!(Clock(seconds).to_string(), text);
        }
    }
}
