//! `swarmdd seed`: which torrent is served from which source?

use std::path::{Path, PathBuf};
use std::sync::Arc;

use swarm_proto::format::metainfo::Metainfo;
use swarm_proto::swarm::{Role, ScanPolicy};
use swarm_proto::wire::url::Url;

use super::{Failure, source, verify};
use crate::agent::{self, Reporter, Settings, Setup};
use crate::net::torrent::{self, Caller, Patience, Retry, TorrentPlace};
use crate::os::signal::Signals;
use crate::report::{self, Mode};
use crate::target::{self, Identity};

/// What `seed` is asked to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    pub jobs: Vec<Job>,
    pub settings: Settings,
    pub progress: Mode,
    /// `--report`.
    pub report: Option<Url>,
    /// `--check`: read and hash every SOURCE before the first of them is served.
    pub check: bool,
}

/// One TORRENT SOURCE pair.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Job {
    pub torrent: TorrentPlace,
    pub source: PathBuf,
}

pub fn run(options: &Options) -> Result<(), Failure> {
    let mut signals = Signals::new()?;
    let mut reporter = report::standard(options.progress).with_server(options.report.as_ref())?;
    let result = serve(options, &mut signals, &mut reporter);
    super::tell_end(result, &mut reporter, &mut signals)
}

fn serve(options: &Options, signals: &mut Signals, reporter: &mut Reporter) -> Result<(), Failure> {
    let mut setups = Vec::new();
    for job in &options.jobs {
        let mut turn = |retry: Option<Retry>| {
            if let Some(Retry(error)) = retry {
                reporter.note(&error.to_string());
            }
            None
        };
        let caller = Caller {
            signals: Some(signals),
            fd: None,
            turn: &mut turn,
        };
        let patience = Patience::Tries(super::TRIES);
        let metainfo = Arc::new(torrent::load(&job.torrent, None, patience, caller)?);
        let check = options.check.then_some(options.progress);
        setups.push(setup(metainfo, &job.source, check, reporter)?);
    }
    let result = agent::run(setups, &options.settings, signals, reporter);
    super::conclude(result, reporter)
}

/// What is there while a source is opened.
pub(super) trait Meanwhile {
    /// See `Pause` of `slices`.
    fn pause(&mut self) -> bool;
    fn note(&mut self, text: &str);
}

impl Meanwhile for Reporter {
    fn pause(&mut self) -> bool {
        true
    }

    fn note(&mut self, text: &str) {
        Reporter::note(self, text);
    }
}

/// Opens a source and refuses one that cannot hold the image. `check` reads and hashes all of it
/// first, with this progress.
pub(super) fn setup(
    metainfo: Arc<Metainfo>,
    path: &Path,
    check: Option<Mode>,
    meanwhile: &mut dyn Meanwhile,
) -> Result<Setup, Failure> {
    let mut source = source::open(path, Some(&metainfo), &mut || meanwhile.pause())?;
    if let Some(note) = &source.note {
        meanwhile.note(note);
    }
    let places = source.places(&metainfo, &mut || meanwhile.pause())?;
    let device = source.device;
    let target = path.display().to_string();
    let writers = target::source::writers(&device);
    if !writers.is_empty() {
        meanwhile.note(&format!(
            "source {target} is in use: {}; pieces that change are not served",
            writers.join(", ")
        ));
    }
    if let Some(progress) = check {
        let found = verify::compare(&metainfo, &device, places.clone(), progress)?;
        found.insist(&metainfo, &device)?;
    }
    // Without --check each piece is read and hashed before its first upload.
    let scan = match check {
        Some(_) => ScanPolicy::Skip,
        None => ScanPolicy::BeforeUse,
    };
    Ok(Setup {
        metainfo,
        device,
        places,
        identity: Identity::default(),
        target,
        role: Role::Seeder,
        scan,
    })
}
