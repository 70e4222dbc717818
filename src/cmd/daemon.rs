//! `swarmdd daemon`: what may a program add as a job, while others run?
//!
//! The same as `get` and `seed` would take, refused in the same words, but one job at a time: the
//! disks of the jobs that run are held already. Opening must not keep the loop from its jobs, so a
//! torrent is read from a file only (Clonezilla names files), and what may take long pauses for
//! them.

use std::ffi::OsStr;
use std::path::Path;
use std::sync::Arc;

use swarm_proto::format::metainfo::Metainfo;
use swarm_proto::text;

use super::Failure;
use super::get::{Options, hold, needed_bytes};
use super::seed::{self, Meanwhile};
use crate::agent::{self, Addition, Opening, Setup};
use crate::net::torrent;
use crate::os::device::TargetOptions;
use crate::os::signal::Signals;
use crate::report;
use crate::target::{Target, source};

/// `control` is the socket at which programs ask for jobs.
pub fn run(control: &Path, options: &Options) -> Result<(), Failure> {
    let mut signals = Signals::new()?;
    let mut reporter = report::standard(options.progress).with_server(options.report.as_ref())?;
    let open = |addition: &Addition, opening: &mut Opening| open(options, addition, opening);
    let settings = &options.settings;
    let result = agent::serve(control, &open, settings, &mut signals, &mut reporter);
    let result = super::conclude(result, &mut reporter);
    super::tell_end(result, &mut reporter, &mut signals)
}

fn open(options: &Options, addition: &Addition, opening: &mut Opening) -> Result<Setup, String> {
    let metainfo = Arc::new(load(&addition.torrent)?);
    if addition.seed {
        let path = Path::new(&addition.path);
        if opening.targets().any(|target| source::is_one(path, target)) {
            return Err(format!("source {} is the target of a job", addition.path));
        }
        return seed::setup(metainfo, path, None, opening).map_err(|failure| match failure {
            Failure::Because(reason) => reason,
            Failure::AlreadySaid | Failure::Untold => "cannot open the source".into(),
        });
    }
    let target = Target::parse(OsStr::new(&addition.path)).map_err(|error| error.to_string())?;
    let needed_bytes = needed_bytes(&metainfo, options.allow_smaller);
    let held = hold(
        &target,
        &metainfo,
        needed_bytes,
        TargetOptions::default(),
        &opening.devices(),
    )?;
    Ok(held.into_setup(&target, metainfo, options.fresh, opening.reporter()))
}

impl Meanwhile for Opening<'_, '_> {
    fn pause(&mut self) -> bool {
        Opening::pause(self)
    }

    fn note(&mut self, text: &str) {
        self.reporter().note(text);
    }
}

fn load(path: &str) -> Result<Metainfo, String> {
    if text::contains(path, "://") {
        return Err(format!(
            "torrent {path} is a URL, the daemon reads files only"
        ));
    }
    // Opening a pipe would wait for its writer.
    if std::fs::metadata(path).is_ok_and(|found| !found.is_file()) {
        return Err(format!("torrent {path} is no regular file"));
    }
    torrent::read(Path::new(path)).map_err(|error| error.to_string())
}
