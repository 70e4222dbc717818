//! Which options do `get`, `seed` and `daemon` share?

use std::net::SocketAddr;

use swarm_proto::policy::subnet::allows;
use swarm_proto::wire::url::Url;

use super::error::{UsageError, Wrong};
use super::values::{
    COMPRESS, LEAST_RATE, LISTEN_ADDRESS, MEMORY, PEER_ADDRESS, PROGRESS, RATE, RATIO, REPORT_URL,
    SECONDS, SECONDS_FROM_1, SUBNET,
};
use super::words::Words;
use crate::agent::Settings;
use crate::report::Mode;

/// Reads `option` and its value. Call it last: an option that is not one of these does not exist.
pub(super) fn shared_option(
    option: String,
    words: &mut Words,
    settings: &mut Settings,
    progress: &mut Mode,
    report: &mut Option<Url>,
) -> Result<(), UsageError> {
    match option.as_str() {
        "--listen" => settings.listen = words.value(&option, LISTEN_ADDRESS)?,
        "--peer" => settings.peers.push(words.value(&option, PEER_ADDRESS)?),
        "--allow" => settings.allowed.push(words.value(&option, SUBNET)?),
        "--memory" => settings.memory_mib = Some(words.value(&option, MEMORY)?),
        "--compress" => settings.compress = words.value(&option, COMPRESS)?,
        "--max-up" => settings.max_up = Some(words.value(&option, RATE)?),
        "--progress" => *progress = words.value(&option, PROGRESS)?,
        "--report" => *report = Some(words.value(&option, REPORT_URL)?),
        "--tracker-grace" => settings.tracker_grace = words.value(&option, SECONDS)?,
        "--seed-secs" => settings.seed_for = Some(words.value(&option, SECONDS)?),
        "--min-upload" => settings.limits.min_upload = Some(words.value(&option, LEAST_RATE)?),
        "--ratio" => settings.limits.ratio = Some(words.value(&option, RATIO)?),
        "--idle" => settings.limits.idle = Some(words.value(&option, SECONDS_FROM_1)?),
        _ => return Err(words.error(Wrong::UnknownOption(option))),
    }
    Ok(())
}

/// No agent would call a peer outside the subnets, nor say so.
pub(super) fn check_peers(settings: &Settings, words: &Words) -> Result<(), UsageError> {
    let outside = |peer: &&SocketAddr| !allows(&settings.allowed, peer.ip());
    match settings.peers.iter().find(outside) {
        Some(peer) => Err(words.error(Wrong::PeerOutside(*peer))),
        None => Ok(()),
    }
}
