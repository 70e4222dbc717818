//! What did the user ask for: the words of the command line in, one checked `Command` out.
//!
//! Low-level words are read by lexopt, each option is converted to its type where it is met, and
//! what is required is checked at the end. An option that would do nothing is refused as unknown:
//! silence would be a lie. The texts of `--help` are in `help.rs`.

pub mod help;

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use swarm_proto::limits::{PIECE_BYTES_MAX, PIECE_BYTES_MIN, RATE_MAX, RATE_MIN, URL_BYTES_MAX};
use swarm_proto::units::InfoHash;

use crate::net::torrent::TorrentPlace;
use crate::report::Mode;
use crate::target::{GrammarError, Target};
use swarm_proto::size::parse_size;

/// Smallest and largest `--memory`: below 16 MiB no pool holds a piece of 4 MiB three times over,
/// above 4 GiB nothing gets faster.
const MEMORY_MIB: std::ops::RangeInclusive<u32> = 16..=4096;

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    Get(GetOptions),
    Seed(SeedOptions),
    Make(MakeOptions),
    Verify {
        torrent: TorrentPlace,
        target: OsString,
    },
    Info {
        torrent: TorrentPlace,
    },
    Disks,
    Help(&'static str),
    Version,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GetOptions {
    pub jobs: Vec<GetJob>,
    pub swarm: SwarmOptions,
    /// `--fresh`: fetch everything, whatever the target holds.
    pub fresh: bool,
    /// False after `--no-verify`: do not read back.
    pub verify: bool,
    /// Fail when nothing has arrived for this long.
    pub stall: Option<Duration>,
    pub dry_run: bool,
    /// A disk smaller than the one the image was made on will do if it holds what the image uses.
    pub allow_smaller: bool,
    /// Enlarge the last partition of a whole-disk image to the end of the disk.
    pub grow_last: bool,
}

/// One TORRENT TARGET pair.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GetJob {
    pub torrent: TorrentPlace,
    /// A path or a `disk:` selector.
    pub target: OsString,
    /// The only info-hash that is accepted.
    pub info_hash: Option<InfoHash>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SeedOptions {
    pub jobs: Vec<SeedJob>,
    pub swarm: SwarmOptions,
    /// `--check`: read and hash every SOURCE before the first of them is served.
    pub check: bool,
}

/// One TORRENT SOURCE pair.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SeedJob {
    pub torrent: TorrentPlace,
    pub source: PathBuf,
}

/// What `get` and `seed` have in common.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SwarmOptions {
    pub listen: SocketAddr,
    pub peers: Vec<SocketAddr>,
    pub memory_mib: u32,
    pub progress: Mode,
    /// How long the tracker has to be unreachable before a complete agent leaves.
    pub tracker_grace: Duration,
    /// How long to seed at most; zero is `--no-seed`.
    pub seed_limit: Option<Duration>,
    /// Payload bytes per second.
    pub max_up: Option<u64>,
    pub max_down: Option<u64>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MakeOptions {
    pub source: PathBuf,
    pub output: PathBuf,
    /// One tier each (BEP 12), in the order they are tried.
    pub trackers: Vec<String>,
    /// A power of two within the limits; `None` is chosen from the size.
    pub piece_bytes: Option<u32>,
    pub name: Option<String>,
    pub private: bool,
    pub web_seeds: Vec<String>,
    /// One file from offset 0 instead of the used ranges.
    pub single: bool,
    pub skip_holes: bool,
}

/// What was wrong with the command line, and after which command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UsageError {
    /// `None` when the trouble came before the command.
    pub command: Option<&'static str>,
    pub wrong: Wrong,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wrong {
    BadTarget(GrammarError),
    BadOperand {
        takes: &'static str,
        given: String,
    },
    BadValue {
        option: String,
        takes: &'static str,
        given: String,
    },
    Contradiction(&'static str, &'static str),
    InfoHashCount {
        torrents: usize,
        hashes: usize,
    },
    Missing(&'static str),
    MissingValue(String),
    NoCommand,
    OddPairs {
        pairs: &'static str,
        unpaired: String,
    },
    TooMany(String),
    UnexpectedValue(String),
    UnknownCommand(String),
    UnknownOption(String),
}

impl fmt::Display for UsageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(command) = self.command {
            write!(f, "{command}: ")?;
        }
        match &self.wrong {
            Wrong::BadTarget(error) => error.fmt(f),
            Wrong::BadOperand { takes, given } => write!(f, "expected {takes}, not '{given}'"),
            Wrong::BadValue {
                option,
                takes,
                given,
            } => write!(f, "{option} takes {takes}, not '{given}'"),
            Wrong::Contradiction(one, other) => write!(f, "{one} and {other} exclude each other"),
            Wrong::InfoHashCount { torrents, hashes } => {
                write!(
                    f,
                    "--info-hash goes once with each torrent: {torrents} expected, {hashes} given"
                )
            }
            Wrong::Missing(what) => write!(f, "{what} expected"),
            Wrong::MissingValue(option) => write!(f, "{option} takes a value"),
            Wrong::NoCommand => {
                f.write_str("a command is expected: get, seed, make, verify, info or disks")
            }
            Wrong::OddPairs { pairs, unpaired } => {
                write!(f, "{pairs} go in pairs, '{unpaired}' has no partner")
            }
            Wrong::TooMany(word) => write!(f, "nothing was expected here, not '{word}'"),
            Wrong::UnexpectedValue(option) => write!(f, "{option} takes no value"),
            Wrong::UnknownCommand(word) => {
                write!(
                    f,
                    "no command '{word}'; there are get, seed, make, verify, info and disks"
                )
            }
            Wrong::UnknownOption(option) => write!(f, "no option {option}"),
        }
    }
}

/// Reads the command line; `args` begins after the name of the program.
pub fn parse(args: impl IntoIterator<Item = OsString>) -> Result<Command, UsageError> {
    let mut words = Words {
        command: None,
        parser: lexopt::Parser::from_args(args),
    };
    match words.next()? {
        None => Err(words.error(Wrong::NoCommand)),
        Some(Word::Option(name)) => match name.as_str() {
            "-h" | "--help" => Ok(Command::Help(help::PROGRAM)),
            "-V" | "--version" => Ok(Command::Version),
            _ => Err(words.error(Wrong::UnknownOption(name))),
        },
        Some(Word::Operand(command)) => match command.to_str() {
            Some("get") => get(words.after("get")),
            Some("seed") => seed(words.after("seed")),
            Some("make") => make(words.after("make")),
            Some("verify") => verify(words.after("verify")),
            Some("info") => info(words.after("info")),
            Some("disks") => disks(words.after("disks")),
            _ => Err(words.error(Wrong::UnknownCommand(lossy(command)))),
        },
    }
}

fn get(mut words: Words) -> Result<Command, UsageError> {
    let mut swarm = SwarmOptions::default();
    let (mut fresh, mut verify, mut dry_run) = (false, true, false);
    let (mut allow_smaller, mut grow_last) = (false, false);
    let mut stall = None;
    let mut info_hashes: Vec<InfoHash> = Vec::new();
    let mut operands = Vec::new();
    while let Some(word) = words.next()? {
        match word {
            Word::Operand(operand) => operands.push(operand),
            Word::Option(name) => match name.as_str() {
                "-h" | "--help" => return Ok(Command::Help(help::GET)),
                "--info-hash" => {
                    info_hashes.push(words.value(&name, "40 hexadecimal digits", parsed)?)
                }
                "--fresh" => fresh = true,
                "--no-verify" => verify = false,
                "--no-seed" => swarm.seed_limit = Some(Duration::ZERO),
                "--max-down" => swarm.max_down = Some(words.value(&name, RATE, rate)?),
                "--stall-secs" => {
                    stall = Some(words.value(&name, SECONDS_FROM_1, seconds_from_1)?)
                }
                "--dry-run" => dry_run = true,
                "--allow-smaller" => allow_smaller = true,
                "--grow-last" => grow_last = true,
                _ => swarm.option(name, &mut words)?,
            },
        }
    }
    let pairs = pairs(&words, operands, "TORRENT and TARGET")?;
    pairs
        .iter()
        .try_for_each(|(_, target)| check_target(&words, target))?;
    if !info_hashes.is_empty() && info_hashes.len() != pairs.len() {
        let (torrents, hashes) = (pairs.len(), info_hashes.len());
        return Err(words.error(Wrong::InfoHashCount { torrents, hashes }));
    }
    let job = |(index, (torrent, target))| GetJob {
        torrent,
        target,
        info_hash: info_hashes.get(index).copied(),
    };
    let jobs = pairs.into_iter().enumerate().map(job).collect();
    let options = GetOptions {
        jobs,
        swarm,
        fresh,
        verify,
        stall,
        dry_run,
        allow_smaller,
        grow_last,
    };
    Ok(Command::Get(options))
}

fn seed(mut words: Words) -> Result<Command, UsageError> {
    let mut swarm = SwarmOptions::default();
    let mut check = false;
    let mut operands = Vec::new();
    while let Some(word) = words.next()? {
        match word {
            Word::Operand(operand) => operands.push(operand),
            Word::Option(name) => match name.as_str() {
                "-h" | "--help" => return Ok(Command::Help(help::SEED)),
                "--check" => check = true,
                _ => swarm.option(name, &mut words)?,
            },
        }
    }
    let pairs = pairs(&words, operands, "TORRENT and SOURCE")?;
    let job = |(torrent, source)| SeedJob {
        torrent,
        source: PathBuf::from(source),
    };
    Ok(Command::Seed(SeedOptions {
        jobs: pairs.into_iter().map(job).collect(),
        swarm,
        check,
    }))
}

fn make(mut words: Words) -> Result<Command, UsageError> {
    let mut operands = Vec::new();
    let mut output = None;
    let (mut trackers, mut web_seeds) = (Vec::new(), Vec::new());
    let (mut piece_bytes, mut name) = (None, None);
    let (mut private, mut single, mut skip_holes) = (false, false, false);
    while let Some(word) = words.next()? {
        match word {
            Word::Operand(operand) => operands.push(operand),
            Word::Option(option) => match option.as_str() {
                "-h" | "--help" => return Ok(Command::Help(help::MAKE)),
                "-o" | "--output" => output = Some(PathBuf::from(words.path(option)?)),
                "--tracker" => trackers.push(words.value(&option, HTTP_URL, http_url)?),
                "--piece-size" => piece_bytes = Some(words.value(&option, PIECE_SIZE, piece_size)?),
                "--name" => name = Some(words.value(&option, PLAIN_NAME, plain_name)?),
                "--private" => private = true,
                "--webseed" => web_seeds.push(words.value(&option, HTTP_URL, http_url)?),
                "--single" => single = true,
                "--skip-holes" => skip_holes = true,
                _ => return Err(words.error(Wrong::UnknownOption(option))),
            },
        }
    }
    let [source] = exactly(&words, operands, ["SOURCE"])?;
    let output = output.ok_or_else(|| words.error(Wrong::Missing("-o FILE.torrent")))?;
    if single && skip_holes {
        return Err(words.error(Wrong::Contradiction("--single", "--skip-holes")));
    }
    let source = PathBuf::from(source);
    let options = MakeOptions {
        source,
        output,
        trackers,
        piece_bytes,
        name,
        private,
        web_seeds,
        single,
        skip_holes,
    };
    Ok(Command::Make(options))
}

fn verify(mut words: Words) -> Result<Command, UsageError> {
    let Some(operands) = words.operands_only()? else {
        return Ok(Command::Help(help::VERIFY));
    };
    let [torrent, target] = exactly(&words, operands, ["TORRENT", "TARGET"])?;
    check_target(&words, &target)?;
    Ok(Command::Verify {
        torrent: torrent_place(&words, torrent)?,
        target,
    })
}

fn info(mut words: Words) -> Result<Command, UsageError> {
    let Some(operands) = words.operands_only()? else {
        return Ok(Command::Help(help::INFO));
    };
    let [torrent] = exactly(&words, operands, ["TORRENT"])?;
    Ok(Command::Info {
        torrent: torrent_place(&words, torrent)?,
    })
}

fn disks(mut words: Words) -> Result<Command, UsageError> {
    let Some(operands) = words.operands_only()? else {
        return Ok(Command::Help(help::DISKS));
    };
    let [] = exactly(&words, operands, [])?;
    Ok(Command::Disks)
}

impl Default for SwarmOptions {
    fn default() -> SwarmOptions {
        SwarmOptions {
            listen: SocketAddr::from(([0u16; 8], 6881)),
            peers: Vec::new(),
            memory_mib: 64,
            progress: Mode::Auto,
            tracker_grace: Duration::from_secs(30),
            seed_limit: None,
            max_up: None,
            max_down: None,
        }
    }
}

impl SwarmOptions {
    /// Takes the option if it is one of those that `get` and `seed` share; nobody else is left to
    /// ask.
    fn option(&mut self, name: String, words: &mut Words) -> Result<(), UsageError> {
        const ADDRESS: &str = "ADDR:PORT such as [::]:6881 or 10.0.0.1:6881";
        const SECONDS: &str = "a number of seconds";
        match name.as_str() {
            "--listen" => self.listen = words.value(&name, ADDRESS, parsed)?,
            "--peer" => self.peers.push(words.value(&name, ADDRESS, peer_address)?),
            "--memory" => {
                self.memory_mib = words.value(&name, "a number of MiB from 16 to 4096", memory)?
            }
            "--progress" => {
                self.progress = words.value(&name, "auto, plain, json or none", Mode::from_name)?
            }
            "--max-up" => self.max_up = Some(words.value(&name, RATE, rate)?),
            "--tracker-grace" => self.tracker_grace = words.value(&name, SECONDS, seconds)?,
            "--seed-secs" => self.seed_limit = Some(words.value(&name, SECONDS, seconds)?),
            _ => return Err(words.error(Wrong::UnknownOption(name))),
        }
        Ok(())
    }
}

/// The words that are still to be read, and the command they belong to.
struct Words {
    command: Option<&'static str>,
    parser: lexopt::Parser,
}

enum Word {
    /// With its dashes, as it was typed.
    Option(String),
    Operand(OsString),
}

impl Words {
    fn after(self, command: &'static str) -> Words {
        Words {
            command: Some(command),
            ..self
        }
    }

    fn error(&self, wrong: Wrong) -> UsageError {
        UsageError {
            command: self.command,
            wrong,
        }
    }

    fn next(&mut self) -> Result<Option<Word>, UsageError> {
        let command = self.command;
        match self.parser.next() {
            Ok(None) => Ok(None),
            Ok(Some(lexopt::Arg::Short(letter))) => Ok(Some(Word::Option(format!("-{letter}")))),
            Ok(Some(lexopt::Arg::Long(name))) => Ok(Some(Word::Option(format!("--{name}")))),
            Ok(Some(lexopt::Arg::Value(operand))) => Ok(Some(Word::Operand(operand))),
            Err(error) => Err(UsageError {
                command,
                wrong: wrong(error),
            }),
        }
    }

    fn path(&mut self, option: String) -> Result<OsString, UsageError> {
        self.parser
            .value()
            .map_err(|_| self.error(Wrong::MissingValue(option)))
    }

    /// The value of `option`, which `takes` what `convert` accepts.
    fn value<T>(
        &mut self,
        option: &str,
        takes: &'static str,
        convert: impl FnOnce(&str) -> Option<T>,
    ) -> Result<T, UsageError> {
        let given = self.path(option.to_string())?;
        given.to_str().and_then(convert).ok_or_else(|| {
            self.error(Wrong::BadValue {
                option: option.to_string(),
                takes,
                given: lossy(given),
            })
        })
    }

    /// All operands of a command that has no option but `--help`; `None` when that was asked for.
    fn operands_only(&mut self) -> Result<Option<Vec<OsString>>, UsageError> {
        let mut operands = Vec::new();
        while let Some(word) = self.next()? {
            match word {
                Word::Operand(operand) => operands.push(operand),
                Word::Option(name) if name == "-h" || name == "--help" => return Ok(None),
                Word::Option(name) => return Err(self.error(Wrong::UnknownOption(name))),
            }
        }
        Ok(Some(operands))
    }
}

/// lexopt's own complaints: `Parser::next` only ever finds a value behind an option that took none.
fn wrong(error: lexopt::Error) -> Wrong {
    match error {
        lexopt::Error::UnexpectedValue { option, .. } => Wrong::UnexpectedValue(option),
        other => Wrong::TooMany(other.to_string()),
    }
}

fn exactly<const N: usize>(
    words: &Words,
    operands: Vec<OsString>,
    names: [&'static str; N],
) -> Result<[OsString; N], UsageError> {
    let error = |operands: Vec<OsString>| match names.get(operands.len()) {
        Some(missing) => words.error(Wrong::Missing(missing)),
        None => words.error(Wrong::TooMany(lossy(
            operands.into_iter().nth(N).unwrap_or_default(),
        ))),
    };
    operands.try_into().map_err(error)
}

fn pairs(
    words: &Words,
    operands: Vec<OsString>,
    names: &'static str,
) -> Result<Vec<(TorrentPlace, OsString)>, UsageError> {
    if operands.is_empty() {
        return Err(words.error(Wrong::Missing(names)));
    }
    let mut pairs = Vec::new();
    let mut operands = operands.into_iter();
    while let Some(torrent) = operands.next() {
        let Some(place) = operands.next() else {
            return Err(words.error(Wrong::OddPairs {
                pairs: names,
                unpaired: lossy(torrent),
            }));
        };
        pairs.push((torrent_place(words, torrent)?, place));
    }
    Ok(pairs)
}

/// `http://…` is a URL, another scheme is refused (what is fetched is pinned by `--info-hash`, not
/// by TLS), and everything else is a file.
fn torrent_place(words: &Words, given: OsString) -> Result<TorrentPlace, UsageError> {
    match given.to_str() {
        Some(text) if text.contains("://") => match http_url(text) {
            Some(url) => Ok(TorrentPlace::Url(url)),
            None => Err(words.error(Wrong::BadOperand {
                takes: "a file or an http:// URL",
                given: lossy(given),
            })),
        },
        _ => Ok(TorrentPlace::File(PathBuf::from(given))),
    }
}

/// Is the selector, if it is one, of a form that a disk could match?
fn check_target(words: &Words, target: &OsStr) -> Result<(), UsageError> {
    Target::parse(target).map_err(|error| words.error(Wrong::BadTarget(error)))?;
    Ok(())
}

fn parsed<T: FromStr>(text: &str) -> Option<T> {
    text.parse().ok()
}

/// A number as people type it: digits only, without the plus sign that Rust would take.
fn number(text: &str) -> Option<u32> {
    if text.bytes().all(|byte| byte.is_ascii_digit()) {
        parsed(text)
    } else {
        None
    }
}

fn memory(text: &str) -> Option<u32> {
    number(text).filter(|mib| MEMORY_MIB.contains(mib))
}

fn seconds(text: &str) -> Option<Duration> {
    number(text).map(|seconds| Duration::from_secs(u64::from(seconds)))
}

const RATE: &str = "bytes per second from 128K to 1T";

fn rate(text: &str) -> Option<u64> {
    parse_size(text)
        .ok()
        .filter(|rate| (RATE_MIN..=RATE_MAX).contains(rate))
}

const SECONDS_FROM_1: &str = "a number of seconds, 1 or more";

fn seconds_from_1(text: &str) -> Option<Duration> {
    seconds(text).filter(|duration| !duration.is_zero())
}

/// Something one can connect to: an address of one machine and a port that is not 0.
fn peer_address(text: &str) -> Option<SocketAddr> {
    parsed(text)
        .filter(|address: &SocketAddr| address.port() != 0 && !address.ip().is_unspecified())
}

const HTTP_URL: &str = "an http:// URL";

fn http_url(text: &str) -> Option<String> {
    let host = text.strip_prefix("http://")?;
    let printable = text.bytes().all(|byte| byte.is_ascii_graphic());
    let plausible =
        printable && !host.is_empty() && !host.starts_with('/') && text.len() <= URL_BYTES_MAX;
    plausible.then(|| text.to_string())
}

const PIECE_SIZE: &str = "a power of two from 16K to 16M";

fn piece_size(text: &str) -> Option<u32> {
    let bytes = u32::try_from(parse_size(text).ok()?).ok()?;
    (bytes.is_power_of_two() && (PIECE_BYTES_MIN..=PIECE_BYTES_MAX).contains(&bytes))
        .then_some(bytes)
}

const PLAIN_NAME: &str = "a name without '/', which is not '.' or '..'";

fn plain_name(text: &str) -> Option<String> {
    let plain = !text.is_empty() && !text.contains(['/', '\0']) && text != "." && text != "..";
    plain.then(|| text.to_string())
}

fn lossy(text: OsString) -> String {
    text.to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    const HASH: &str = "00ff10ef0123456789abcdef0123456789abcdef";

    fn typed(line: &str) -> Result<Command, UsageError> {
        parse(line.split_whitespace().map(OsString::from))
    }

    fn get_options(line: &str) -> GetOptions {
        match typed(line) {
            Ok(Command::Get(options)) => options,
            other => panic!("{line}: {other:?}"),
        }
    }

    fn make_options(line: &str) -> MakeOptions {
        match typed(line) {
            Ok(Command::Make(options)) => options,
            other => panic!("{line}: {other:?}"),
        }
    }

    /// The line that the user sees.
    fn complaint(line: &str) -> String {
        match typed(line) {
            Err(error) => error.to_string(),
            Ok(command) => panic!("{line}: was accepted as {command:?}"),
        }
    }

    #[test]
    fn get_has_defaults() {
        let options = get_options("get a.torrent /dev/sda");
        assert_eq!(options.jobs.len(), 1);
        assert_eq!(
            options.jobs[0].torrent,
            TorrentPlace::File(PathBuf::from("a.torrent"))
        );
        assert_eq!(options.jobs[0].target, "/dev/sda");
        assert_eq!(options.jobs[0].info_hash, None);
        assert!(options.verify && !options.fresh && !options.dry_run && !options.grow_last);
        assert_eq!(options.stall, None);
        assert_eq!(options.swarm.listen.to_string(), "[::]:6881");
        assert_eq!(options.swarm.memory_mib, 64);
        assert_eq!(options.swarm.progress, Mode::Auto);
        assert_eq!(options.swarm.tracker_grace, Duration::from_secs(30));
        assert_eq!(options.swarm.seed_limit, None);
        assert_eq!((options.swarm.max_up, options.swarm.max_down), (None, None));
    }

    #[test]
    fn get_takes_every_option_of_its_help() {
        let options = get_options(&format!(
            "get --listen 10.77.0.1:7000 --peer 10.77.0.2:6881 --peer=[fe80::1]:6882 --memory 128 --progress json \
             --info-hash {HASH} --fresh --no-verify --tracker-grace 0 --seed-secs 90 --stall-secs 600 \
             --dry-run --grow-last --allow-smaller --max-up 128K --max-down 1t \
             http://10.77.0.1/a.torrent disk:auto"
        ));
        assert_eq!(
            options.jobs[0].torrent,
            TorrentPlace::Url("http://10.77.0.1/a.torrent".into())
        );
        assert_eq!(options.jobs[0].target, "disk:auto");
        assert_eq!(options.jobs[0].info_hash, HASH.parse().ok());
        assert_eq!(options.swarm.listen.to_string(), "10.77.0.1:7000");
        let peers: Vec<String> = options
            .swarm
            .peers
            .iter()
            .map(ToString::to_string)
            .collect();
        assert_eq!(peers, ["10.77.0.2:6881", "[fe80::1]:6882"]);
        assert_eq!(options.swarm.memory_mib, 128);
        assert_eq!(options.swarm.progress, Mode::Json);
        assert_eq!(options.swarm.tracker_grace, Duration::ZERO);
        assert_eq!(options.swarm.seed_limit, Some(Duration::from_secs(90)));
        assert_eq!(options.stall, Some(Duration::from_secs(600)));
        assert_eq!(
            (options.swarm.max_up, options.swarm.max_down),
            (Some(128 << 10), Some(1 << 40))
        );
        assert!(
            options.fresh
                && !options.verify
                && options.dry_run
                && options.grow_last
                && options.allow_smaller
        );
        assert_eq!(
            get_options("get --no-seed a b").swarm.seed_limit,
            Some(Duration::ZERO)
        );
    }

    #[test]
    fn pairs_keep_their_order() {
        let other = HASH.replace("00ff", "1111");
        let options = get_options(&format!(
            "get a /dev/sda1 --info-hash {HASH} b --info-hash {other} /dev/sda2"
        ));
        let jobs: Vec<_> = options
            .jobs
            .iter()
            .map(|job| (job.torrent.to_string(), job.target.to_str()))
            .collect();
        assert_eq!(
            jobs,
            [
                ("a".into(), Some("/dev/sda1")),
                ("b".into(), Some("/dev/sda2"))
            ]
        );
        assert_eq!(options.jobs[1].info_hash, other.parse().ok());
    }

    #[test]
    fn seed_takes_what_it_shares_with_get() {
        let Ok(Command::Seed(options)) =
            typed("seed --seed-secs 5 --progress none a disk.img b /dev/sdb")
        else {
            panic!("not understood");
        };
        assert_eq!(options.jobs.len(), 2);
        assert_eq!(options.jobs[1].source, PathBuf::from("/dev/sdb"));
        assert_eq!(options.swarm.seed_limit, Some(Duration::from_secs(5)));
        assert_eq!(complaint("seed --fresh a b"), "seed: no option --fresh");
    }

    #[test]
    fn make_takes_every_option_of_its_help() {
        let options = make_options(
            "make disk.img -o d.torrent --tracker http://t/announce --tracker http://u/ --piece-size 2M --name lab \
             --private --webseed http://w/ --single",
        );
        assert_eq!(options.source, PathBuf::from("disk.img"));
        assert_eq!(options.output, PathBuf::from("d.torrent"));
        assert_eq!(options.trackers, ["http://t/announce", "http://u/"]);
        assert_eq!(options.piece_bytes, Some(2 << 20));
        assert_eq!(options.name.as_deref(), Some("lab"));
        assert_eq!(options.web_seeds, ["http://w/"]);
        assert!(options.private && options.single);
        assert_eq!(make_options("make x --output=y").piece_bytes, None);
    }

    #[test]
    fn the_rest_is_understood() {
        let file = |name: &str| TorrentPlace::File(PathBuf::from(name));
        let verify = Command::Verify {
            torrent: file("a"),
            target: "b".into(),
        };
        assert_eq!(typed("verify a b"), Ok(verify));
        assert_eq!(typed("info a"), Ok(Command::Info { torrent: file("a") }));
        assert_eq!(typed("disks"), Ok(Command::Disks));
        assert_eq!(typed("--version"), Ok(Command::Version));
        assert_eq!(
            typed("info -- -odd"),
            Ok(Command::Info {
                torrent: file("-odd")
            })
        );
    }

    #[test]
    fn help_is_there_for_everything() {
        assert_eq!(typed("--help"), Ok(Command::Help(help::PROGRAM)));
        assert_eq!(typed("-h"), Ok(Command::Help(help::PROGRAM)));
        let commands = [
            ("get", help::GET),
            ("seed", help::SEED),
            ("make", help::MAKE),
            ("verify", help::VERIFY),
            ("info", help::INFO),
            ("disks", help::DISKS),
        ];
        for (command, text) in commands {
            assert_eq!(typed(&format!("{command} --help")), Ok(Command::Help(text)));
            assert_eq!(typed(&format!("{command} x -h")), Ok(Command::Help(text)));
        }
    }

    /// Both ways: what the help names is accepted, and what it does not name is refused.
    #[test]
    fn help_names_exactly_the_options_there_are() {
        let value = |option: &str| match option {
            "--listen" | "--peer" => "10.77.0.1:1",
            "--progress" => "plain",
            "--info-hash" => HASH,
            "--tracker" | "--webseed" => "http://x/",
            "--piece-size" | "--max-up" | "--max-down" => "1M",
            _ => "64",
        };
        let operands = [
            ("get", "a b", help::GET),
            ("seed", "a b", help::SEED),
            ("make", "a -o b", help::MAKE),
        ];
        let mut every: Vec<&str> = Vec::new();
        for (_, _, text) in operands {
            every.extend(
                text.split_whitespace()
                    .filter(|word| word.starts_with("--"))
                    .map(|w| w.trim_matches(',')),
            );
        }
        for (command, operands, text) in operands {
            for option in every
                .iter()
                .map(|word| word.trim_end_matches([':', '.', ',']))
            {
                let flag = format!("{command} {option} {operands}");
                let valued = format!("{command} {option} {} {operands}", value(option));
                let accepted = typed(&flag).is_ok() || typed(&valued).is_ok();
                let named = text.lines().any(|line| {
                    line.starts_with("  ") && line.split(&[' ', ','][..]).any(|word| word == option)
                });
                assert_eq!(accepted, named, "{command} {option}");
            }
        }
    }

    #[test]
    fn complaints_say_what_was_expected() {
        for (line, expected) in [
            (
                "",
                "a command is expected: get, seed, make, verify, info or disks",
            ),
            (
                "put a b",
                "no command 'put'; there are get, seed, make, verify, info and disks",
            ),
            ("--quiet", "no option --quiet"),
            ("get", "get: TORRENT and TARGET expected"),
            (
                "get a",
                "get: TORRENT and TARGET go in pairs, 'a' has no partner",
            ),
            (
                "get a b c",
                "get: TORRENT and TARGET go in pairs, 'c' has no partner",
            ),
            (
                "get --memory abc a b",
                "get: --memory takes a number of MiB from 16 to 4096, not 'abc'",
            ),
            (
                "get --memory 15 a b",
                "get: --memory takes a number of MiB from 16 to 4096, not '15'",
            ),
            (
                "get --memory +64 a b",
                "get: --memory takes a number of MiB from 16 to 4096, not '+64'",
            ),
            ("get a b --memory", "get: --memory takes a value"),
            ("get --fresh=yes a b", "get: --fresh takes no value"),
            ("make --max-up 1M a", "make: no option --max-up"),
            (
                "get --max-up 0 a b",
                "get: --max-up takes bytes per second from 128K to 1T, not '0'",
            ),
            (
                "get --max-down 127K a b",
                "get: --max-down takes bytes per second from 128K to 1T, not '127K'",
            ),
            ("seed --max-down 1M a b", "seed: no option --max-down"),
            (
                "get --max-up 10MB a b",
                "get: --max-up takes bytes per second from 128K to 1T, not '10MB'",
            ),
            ("get -x a b", "get: no option -x"),
            (
                "get --peer 10.0.0.1 a b",
                "get: --peer takes ADDR:PORT such as [::]:6881 or 10.0.0.1:6881, not '10.0.0.1'",
            ),
            (
                "get --peer 10.0.0.1:0 a b",
                "get: --peer takes ADDR:PORT such as [::]:6881 or 10.0.0.1:6881, not '10.0.0.1:0'",
            ),
            (
                "get --info-hash 12 a b",
                "get: --info-hash takes 40 hexadecimal digits, not '12'",
            ),
            (
                "get --progress bar a b",
                "get: --progress takes auto, plain, json or none, not 'bar'",
            ),
            (
                "get --stall-secs 0 a b",
                "get: --stall-secs takes a number of seconds, 1 or more, not '0'",
            ),
            (
                "get --seed-secs -1 a b",
                "get: --seed-secs takes a number of seconds, not '-1'",
            ),
            (
                "get https://x/a b",
                "get: expected a file or an http:// URL, not 'https://x/a'",
            ),
            (
                "get a disk:",
                "get: target \"disk:\" is incomplete: a path, disk:auto, or disk:KEY=VALUE,…",
            ),
            (
                "verify a disk:size=5",
                "verify: target \"disk:size=5\": \"5\" is no range: size=MIN.., size=..MAX or size=MIN..MAX",
            ),
            (
                "seed a",
                "seed: TORRENT and SOURCE go in pairs, 'a' has no partner",
            ),
            ("make", "make: SOURCE expected"),
            ("make a", "make: -o FILE.torrent expected"),
            ("make a b -o c", "make: nothing was expected here, not 'b'"),
            ("make a -o", "make: -o takes a value"),
            (
                "make a -o b --piece-size 3M",
                "make: --piece-size takes a power of two from 16K to 16M, not '3M'",
            ),
            (
                "make a -o b --piece-size 32M",
                "make: --piece-size takes a power of two from 16K to 16M, not '32M'",
            ),
            (
                "make a -o b --name x/y",
                "make: --name takes a name without '/', which is not '.' or '..', not 'x/y'",
            ),
            (
                "make a -o b --tracker udp://x:1",
                "make: --tracker takes an http:// URL, not 'udp://x:1'",
            ),
            ("verify a", "verify: TARGET expected"),
            ("verify a b c", "verify: nothing was expected here, not 'c'"),
            ("info", "info: TORRENT expected"),
            ("disks all", "disks: nothing was expected here, not 'all'"),
            ("disks --all", "disks: no option --all"),
        ] {
            assert_eq!(complaint(line), expected, "{line}");
        }
        let two = complaint(&format!("get --info-hash {HASH} a b c d"));
        assert_eq!(
            two,
            "get: --info-hash goes once with each torrent: 2 expected, 1 given"
        );
    }

    #[test]
    fn bytes_that_are_no_text_are_a_path_or_a_complaint() {
        use std::os::unix::ffi::OsStringExt;
        let odd = OsString::from_vec(vec![b'a', 0xff]);
        let options = parse([OsString::from("info"), odd.clone()]);
        assert_eq!(
            options,
            Ok(Command::Info {
                torrent: TorrentPlace::File(PathBuf::from(&odd))
            })
        );
        let error = parse(
            ["make", "--name"]
                .map(OsString::from)
                .into_iter()
                .chain([odd]),
        )
        .unwrap_err();
        assert_eq!(
            error.to_string(),
            "make: --name takes a name without '/', which is not '.' or '..', not 'a\u{fffd}'"
        );
    }
}
