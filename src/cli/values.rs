//! Which values does an option or an operand take?

use std::ffi::OsString;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use swarm_proto::limits::{PIECE_BYTES_MAX, PIECE_BYTES_MIN, RATE_MAX, RATE_MIN, URL_BYTES_MAX};
use swarm_proto::policy::load::Compress;
use swarm_proto::policy::subnet::Subnet;
use swarm_proto::size::parse_size;
use swarm_proto::text::split_once;
use swarm_proto::units::InfoHash;
use swarm_proto::wire::url::Url;

use super::error::{Fault, Wrong, is_magnet, lossy};
use crate::net::torrent::TorrentPlace;
use crate::report::Mode;
use crate::target::Target;

/// Smallest and largest `--memory`. Below 16 MiB no pool holds three pieces of 4 MiB; above 4 GiB
/// nothing gets faster.
const MEMORY_MIB: RangeInclusive<u32> = 16..=4096;

/// The values that an option takes: in words, for the error message, and as a conversion.
pub(super) struct Value<T> {
    pub(super) takes: &'static str,
    pub(super) convert: fn(&str) -> Option<T>,
}

const ADDRESS_FORM: &str = "ADDR:PORT such as [::]:6881 or 10.0.0.1:6881";

pub(super) const LISTEN_ADDRESS: Value<SocketAddr> = Value {
    takes: ADDRESS_FORM,
    convert: parsed,
};

pub(super) const PEER_ADDRESS: Value<SocketAddr> = Value {
    takes: ADDRESS_FORM,
    convert: peer_address,
};

pub(super) const SUBNET: Value<Subnet> = Value {
    takes: "NET/LEN such as 10.0.0.0/24 or fd00::/64",
    convert: Subnet::parse,
};

pub(super) const INFO_HASH: Value<InfoHash> = Value {
    takes: "40 hexadecimal digits",
    convert: parsed,
};

pub(super) const MEMORY: Value<u32> = Value {
    takes: "a number of MiB from 16 to 4096",
    convert: |text| number(text).filter(|mib| MEMORY_MIB.contains(mib)),
};

pub(super) const PIECE_SIZE: Value<u32> = Value {
    takes: "a power of two from 16K to 16M",
    convert: piece_size,
};

pub(super) const PLAIN_NAME: Value<String> = Value {
    takes: "a name without '/', which is not '.' or '..'",
    convert: plain_name,
};

/// Of a torrent.info, whose torrent may have slices in a directory below the one of its name.
pub(super) const PATH_NAME: Value<String> = Value {
    takes: PLAIN_NAME.takes,
    convert: path_name,
};

pub(super) const COMPRESS: Value<Compress> = Value {
    takes: "auto, always or never",
    convert: |text| match text {
        "auto" => Some(Compress::Auto),
        "always" => Some(Compress::Always),
        "never" => Some(Compress::Never),
        _ => None,
    },
};

pub(super) const PROGRESS: Value<Mode> = Value {
    takes: "auto, plain, json or none",
    convert: Mode::from_name,
};

pub(super) const RATE: Value<u64> = Value {
    takes: "bytes per second from 128K to 1T",
    convert: rate,
};

/// A rate that is only compared with: the smallest counts, too.
pub(super) const LEAST_RATE: Value<u64> = Value {
    takes: "bytes per second from 1 to 1T",
    convert: |text| {
        parse_size(text)
            .ok()
            .filter(|rate| (1..=RATE_MAX).contains(rate))
    },
};

/// In thousandths.
pub(super) const RATIO: Value<u32> = Value {
    takes: "a number from 0.001 to 1000 such as 3 or 1.5",
    convert: thousandths,
};

pub(super) const REPORT_URL: Value<Url> = Value {
    takes: "an http:// URL",
    convert: parsed,
};

pub(super) const SECONDS: Value<Duration> = Value {
    takes: "a number of seconds",
    convert: seconds,
};

pub(super) const SECONDS_FROM_1: Value<Duration> = Value {
    takes: "a number of seconds, 1 or more",
    convert: |text| seconds(text).filter(|duration| !duration.is_zero()),
};

/// A URL that is written into a torrent as it was typed: other clients read it, and a slash more or
/// less has a meaning there (BEP 19). So it may be one that `Url` refuses, with a user for example.
pub(super) const HTTP_URL: Value<String> = Value {
    takes: "an http:// URL",
    convert: http_url,
};

/// TORRENT: `http://…` is a URL, and another scheme is refused, because what is fetched is pinned
/// by `--info-hash`, not by TLS. Anything else is a file.
pub(super) fn torrent_place(given: OsString) -> Result<TorrentPlace, Wrong> {
    let no_place = |given, fault| {
        Err(Wrong::BadOperand {
            takes: "a file or an http:// URL",
            given: lossy(given),
            fault,
        })
    };
    match given
        .to_str()
        .filter(|text| split_once(text, "://").is_some() || is_magnet(text))
    {
        Some(text) if is_magnet(text) => no_place(given, Fault::Magnet),
        Some(text) => match Url::parse(text) {
            Ok(url) => Ok(TorrentPlace::Url(url)),
            Err(error) => no_place(given, Fault::of_url(error)),
        },
        None => Ok(TorrentPlace::File(PathBuf::from(given))),
    }
}

/// TARGET.
pub(super) fn target(given: OsString) -> Result<Target, Wrong> {
    Target::parse(&given).map_err(Wrong::BadTarget)
}

fn parsed<T: FromStr>(text: &str) -> Option<T> {
    text.parse().ok()
}

/// Digits only. Rust alone would accept a plus sign before them.
fn number(text: &str) -> Option<u32> {
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|_| digits)
}

fn seconds(text: &str) -> Option<Duration> {
    number(text).map(|seconds| Duration::from_secs(u64::from(seconds)))
}

fn rate(text: &str) -> Option<u64> {
    parse_size(text)
        .ok()
        .filter(|rate| (RATE_MIN..=RATE_MAX).contains(rate))
}

/// "1.5" is 1500. Three digits after the point at most: others would be ignored.
fn thousandths(text: &str) -> Option<u32> {
    let (whole, part) = text.split_once('.').unwrap_or((text, "0"));
    let digits = u32::try_from(part.len()).ok().filter(|count| *count <= 3)?;
    let part = number(part)? * 10_u32.pow(3 - digits);
    let all = number(whole)?.checked_mul(1000)?.checked_add(part)?;
    (1..=1_000_000).contains(&all).then_some(all)
}

/// An address that one can connect to: of one machine, with a port that is not 0.
fn peer_address(text: &str) -> Option<SocketAddr> {
    parsed(text)
        .filter(|address: &SocketAddr| address.port() != 0 && !address.ip().is_unspecified())
}

fn piece_size(text: &str) -> Option<u32> {
    let bytes = u32::try_from(parse_size(text).ok()?).ok()?;
    (bytes.is_power_of_two() && (PIECE_BYTES_MIN..=PIECE_BYTES_MAX).contains(&bytes))
        .then_some(bytes)
}

fn http_url(text: &str) -> Option<String> {
    let host = text.strip_prefix("http://")?;
    let printable = text.bytes().all(|byte| byte.is_ascii_graphic());
    let has_host = !host.is_empty() && !host.starts_with('/');
    (printable && has_host && text.len() <= URL_BYTES_MAX).then(|| text.to_string())
}

fn plain_name(text: &str) -> Option<String> {
    let plain = !text.is_empty() && !text.contains(['/', '\0']) && text != "." && text != "..";
    plain.then(|| text.to_string())
}

fn path_name(text: &str) -> Option<String> {
    text.split('/')
        .all(|part| plain_name(part).is_some())
        .then(|| text.to_string())
}
