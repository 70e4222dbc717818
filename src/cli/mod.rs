//! What did the user ask for? The words of the command line go in, a checked [`Command`] comes out.
//!
//! A parser for each command fills the options struct of that command: `get` (and `daemon`),
//! `seed` and `make` in files of their own, the commands without options below. Each option is
//! converted to its type where it is read; required operands are checked at the end. An option that
//! would have no effect is refused as unknown: a user whose option is silently accepted believes
//! that it works. The texts of `--help` are in `help.rs`.

mod error;
mod get;
mod help;
mod make;
mod seed;
mod swarm;
mod values;
mod words;

use std::ffi::OsString;

pub use error::UsageError;
use error::{Wrong, lossy};
use words::{Word, Words};

use crate::cmd::{Command, info, verify};

/// Reads the command line; `args` begins after the name of the program.
pub fn parse(args: impl IntoIterator<Item = OsString>) -> Result<Command, UsageError> {
    let mut words = Words::new(args);
    match words.next()? {
        None => Err(words.error(Wrong::NoCommand)),
        Some(Word::Option(name)) => match name.as_str() {
            "-h" | "--help" => Ok(Command::Help(help::PROGRAM)),
            "-V" | "--version" => Ok(Command::Version),
            _ => Err(words.error(Wrong::UnknownOption(name))),
        },
        Some(Word::Operand(command)) => match command.to_str() {
            Some("get") => get::parse(words.of_command("get"), false),
            Some("seed") => seed::parse(words.of_command("seed")),
            Some("daemon") => get::parse(words.of_command("daemon"), true),
            Some("make") => make::parse(words.of_command("make")),
            Some("verify") => parse_verify(words.of_command("verify")),
            Some("info") => parse_info(words.of_command("info")),
            Some("disks") => parse_disks(words.of_command("disks")),
            _ => Err(words.error(Wrong::UnknownCommand(lossy(command)))),
        },
    }
}

fn parse_verify(words: &mut Words) -> Result<Command, UsageError> {
    let Some(operands) = words.operands_only()? else {
        return Ok(Command::Help(help::VERIFY));
    };
    let [torrent, operand] = words.exactly(operands, ["TORRENT", "TARGET"])?;
    let target = words.target(operand)?;
    let torrent = words.torrent(torrent)?;
    Ok(Command::Verify(verify::Options { torrent, target }))
}

fn parse_info(words: &mut Words) -> Result<Command, UsageError> {
    let Some(operands) = words.operands_only()? else {
        return Ok(Command::Help(help::INFO));
    };
    let [torrent] = words.exactly(operands, ["TORRENT"])?;
    let torrent = words.torrent(torrent)?;
    Ok(Command::Info(info::Options { torrent }))
}

fn parse_disks(words: &mut Words) -> Result<Command, UsageError> {
    let Some(operands) = words.operands_only()? else {
        return Ok(Command::Help(help::DISKS));
    };
    if operands.is_empty() {
        return Ok(Command::Disks(None));
    }
    let [operand] = words.exactly(operands, ["TARGET"])?;
    let target = words.target(operand)?;
    Ok(Command::Disks(Some(target)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cmd;
    use crate::net::torrent::TorrentPlace;
    use crate::report::Mode;
    use crate::target::Target;
    use std::path::PathBuf;
    use std::time::Duration;
    use swarm_proto::policy::load::Compress;
    use swarm_proto::policy::subnet::Subnet;
    use swarm_proto::swarm::SeedingLimits;

    const HASH: &str = "00ff10ef0123456789abcdef0123456789abcdef";

    fn typed(line: &str) -> Result<Command, UsageError> {
        parse(line.split_whitespace().map(OsString::from))
    }

    fn get_options(line: &str) -> cmd::get::Options {
        match typed(line) {
            Ok(Command::Get(options)) => options,
            other => panic!("{line}: {other:?}"),
        }
    }

    fn make_options(line: &str) -> cmd::make::Options {
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
        assert_eq!(options.jobs[0].target.to_string(), "/dev/sda");
        assert_eq!(options.jobs[0].info_hash, None);
        assert!(options.settings.verify && !options.settings.grow_last);
        assert!(!options.fresh && !options.dry_run);
        assert_eq!(options.settings.stall, None);
        assert_eq!(options.settings.listen.to_string(), "[::]:6881");
        assert_eq!(options.settings.memory_mib, None);
        assert_eq!(options.progress, Mode::Auto);
        assert_eq!(options.settings.tracker_grace, Duration::from_secs(30));
        assert_eq!(options.settings.seed_for, None);
        assert_eq!(
            (options.settings.max_up, options.settings.max_down),
            (None, None)
        );
    }

    #[test]
    fn get_takes_every_option_of_its_help() {
        let options = get_options(&format!(
            "get --listen 10.77.0.1:7000 --peer 10.77.0.2:6881 --peer=[fe80::1]:6882 --allow 10.77.0.0/16 --allow ::/0 --memory 128 --compress always --progress json \
             --info-hash {HASH} --fresh --no-verify --tracker-grace 0 --seed-secs 90 --stall-secs 600 \
             --report http://10.77.0.1:8080/report?job=1 --dry-run --grow-last --keep-signatures --allow-smaller \
             --max-up 128K --max-down 1t --min-upload 5 --ratio 1.5 --idle 60 \
             http://10.77.0.1/a.torrent disk:auto"
        ));
        assert_eq!(
            options.jobs[0].torrent,
            TorrentPlace::Url("http://10.77.0.1/a.torrent".parse().unwrap())
        );
        assert_eq!(options.jobs[0].target.to_string(), "disk:auto");
        assert_eq!(options.jobs[0].info_hash, HASH.parse().ok());
        assert_eq!(options.settings.listen.to_string(), "10.77.0.1:7000");
        let peers: Vec<String> = options
            .settings
            .peers
            .iter()
            .map(ToString::to_string)
            .collect();
        assert_eq!(peers, ["10.77.0.2:6881", "[fe80::1]:6882"]);
        let allowed = ["10.77.0.0/16", "::/0"].map(|text| Subnet::parse(text).unwrap());
        assert_eq!(options.settings.allowed, allowed);
        assert_eq!(options.settings.memory_mib, Some(128));
        assert_eq!(options.settings.compress, Compress::Always);
        assert_eq!(options.progress, Mode::Json);
        assert_eq!(options.settings.tracker_grace, Duration::ZERO);
        let report = options.report.as_ref().map(ToString::to_string);
        assert_eq!(
            report.as_deref(),
            Some("http://10.77.0.1:8080/report?job=1")
        );
        assert_eq!(options.settings.seed_for, Some(Duration::from_secs(90)));
        assert_eq!(options.settings.stall, Some(Duration::from_secs(600)));
        assert_eq!(
            (options.settings.max_up, options.settings.max_down),
            (Some(128 << 10), Some(1 << 40))
        );
        assert!(
            options.fresh
                && !options.settings.verify
                && options.dry_run
                && options.settings.grow_last
                && options.settings.keep_signatures
                && options.allow_smaller
        );
        let limits = SeedingLimits {
            min_upload: Some(5),
            ratio: Some(1500),
            idle: Some(Duration::from_secs(60)),
        };
        assert_eq!(options.settings.limits, limits);
        assert_eq!(
            get_options("get --no-seed a b").settings.seed_for,
            Some(Duration::ZERO)
        );
    }

    #[test]
    fn a_ratio_has_three_digits_after_the_point_at_most() {
        for (text, thousandths) in [
            ("3", Some(3000)),
            ("1.5", Some(1500)),
            ("0.001", Some(1)),
            ("12.34", Some(12_340)),
            ("1000", Some(1_000_000)),
            ("0", None),
            ("0.0", None),
            ("1000.001", None),
            ("1.2345", None),
            ("1.", None),
            (".5", None),
            ("1.+5", None),
            ("-1", None),
            ("1e3", None),
            ("1,5", None),
            ("99999999999", None),
        ] {
            let options = typed(&format!("get --ratio {text} a b"));
            match (options, thousandths) {
                (Ok(Command::Get(options)), Some(_)) => {
                    assert_eq!(options.settings.limits.ratio, thousandths, "{text}")
                }
                (Err(error), None) => assert_eq!(
                    error.to_string(),
                    format!(
                        "get: --ratio takes a number from 0.001 to 1000 such as 3 or 1.5, not '{text}'"
                    )
                ),
                (other, _) => panic!("{text}: {other:?}"),
            }
        }
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
            .map(|job| (job.torrent.to_string(), job.target.to_string()))
            .collect();
        assert_eq!(
            jobs,
            [
                ("a".into(), "/dev/sda1".into()),
                ("b".into(), "/dev/sda2".into())
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
        assert_eq!(options.settings.seed_for, Some(Duration::from_secs(5)));
        assert_eq!(complaint("seed --fresh a b"), "seed: no option --fresh");
    }

    #[test]
    fn make_takes_every_option_of_its_help() {
        let options = make_options(
            "make disk.img -o d.torrent --tracker http://t/announce --tracker http://u/ --piece-size 2M --name lab \
             --private --webseed http://w/ --single --raw --live",
        );
        assert_eq!(options.source, PathBuf::from("disk.img"));
        assert_eq!(options.output, PathBuf::from("d.torrent"));
        assert_eq!(options.trackers, ["http://t/announce", "http://u/"]);
        assert_eq!(options.piece_bytes, Some(2 << 20));
        assert_eq!(options.name.as_deref(), Some("lab"));
        assert_eq!(options.web_seeds, ["http://w/"]);
        assert!(options.private && options.single && options.raw && options.live);
        assert_eq!(make_options("make x --output=y").piece_bytes, None);
    }

    /// Other clients read these URLs, and `http://w` and `http://w/` mean two things to them.
    #[test]
    fn urls_of_a_torrent_are_kept_as_they_were_typed() {
        let line = "make x -o y --tracker http://t:80/announce --webseed http://user:pw@w#a";
        let options = make_options(line);
        assert_eq!(options.trackers, ["http://t:80/announce"]);
        assert_eq!(options.web_seeds, ["http://user:pw@w#a"]);
    }

    #[test]
    fn the_other_commands_are_understood() {
        let file = |name: &str| TorrentPlace::File(PathBuf::from(name));
        let verify = Command::Verify(verify::Options {
            torrent: file("a"),
            target: Target::Path("b".into()),
        });
        let info = |name| {
            Command::Info(info::Options {
                torrent: file(name),
            })
        };
        assert_eq!(typed("verify a b"), Ok(verify));
        assert_eq!(typed("info a"), Ok(info("a")));
        assert_eq!(typed("disks"), Ok(Command::Disks(None)));
        let path = Target::Path("/dev/sda".into());
        assert_eq!(typed("disks /dev/sda"), Ok(Command::Disks(Some(path))));
        let complaint = complaint("disks disk:colour=red");
        assert!(complaint.contains("colour"), "{complaint}");
        assert_eq!(typed("--version"), Ok(Command::Version));
        assert_eq!(typed("info -- -odd"), Ok(info("-odd")));
    }

    #[test]
    fn every_command_has_help() {
        assert_eq!(typed("--help"), Ok(Command::Help(help::PROGRAM)));
        assert_eq!(typed("-h"), Ok(Command::Help(help::PROGRAM)));
        let commands = [
            ("get", help::GET),
            ("seed", help::SEED),
            ("daemon", help::DAEMON),
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

    /// In both directions: an option that the help names is accepted, and any other is refused.
    #[test]
    fn help_names_exactly_the_options_there_are() {
        let value = |option: &str| match option {
            "--listen" | "--peer" => "10.77.0.1:1",
            "--allow" => "10.77.0.0/16",
            "--progress" => "plain",
            "--compress" => "never",
            "--info-hash" => HASH,
            "--tracker" | "--webseed" | "--report" => "http://x/",
            "--piece-size" | "--max-up" | "--max-down" => "1M",
            _ => "64",
        };
        let operands = [
            ("get", "a /dev/b", help::GET),
            ("seed", "a b", help::SEED),
            ("daemon", "--control b", help::DAEMON),
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
    #[expect(clippy::too_many_lines, reason = "a table of cases")]
    fn errors_say_what_was_expected() {
        for (line, expected) in [
            (
                "",
                "a command is expected: get, seed, daemon, make, verify, info or disks",
            ),
            (
                "put a b",
                "no command 'put'; there are get, seed, daemon, make, verify, info and disks",
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
                "get --compress lz4 a b",
                "get: --compress takes auto, always or never, not 'lz4'",
            ),
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
                "seed --allow 10.77.0.1 a b",
                "seed: --allow takes NET/LEN such as 10.0.0.0/24 or fd00::/64, not '10.77.0.1'",
            ),
            (
                "seed --peer 10.77.0.2:1 --peer [fd77::1]:6881 --allow 10.77.0.0/16 a b",
                "seed: --peer [fd77::1]:6881 is in no subnet of --allow",
            ),
            (
                "daemon --peer 10.78.0.1:6881 --allow 10.77.0.0/16 --allow ::/0 --control s",
                "daemon: --peer 10.78.0.1:6881 is in no subnet of --allow",
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
                "get --report https://x/ a b",
                "get: --report takes an http:// URL, not 'https://x/'",
            ),
            (
                "seed --report 10.0.0.1/report a b",
                "seed: --report takes an http:// URL, not '10.0.0.1/report'",
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
            (
                "info http://x:0/a",
                "info: expected a file or an http:// URL, not 'http://x:0/a': URL has no valid host and port in 'x:0'",
            ),
            (
                "get magnet:?xt=urn:btih:00ff10ef0123456789abcdef0123456789abcdef&tr=http://x/ b",
                "get: expected a file or an http:// URL, not \
                 'magnet:?xt=urn:btih:00ff10ef0123456789abcdef0123456789abcdef&tr=http://x/': \
                 a magnet link has no hashes of pieces, and nobody here would send them",
            ),
            (
                "info MAGNET:?xt=urn:btih:00",
                "info: expected a file or an http:// URL, not 'MAGNET:?xt=urn:btih:00': \
                 a magnet link has no hashes of pieces, and nobody here would send them",
            ),
            ("verify a", "verify: TARGET expected"),
            ("verify a b c", "verify: nothing was expected here, not 'c'"),
            ("info", "info: TORRENT expected"),
            ("disks a b", "disks: nothing was expected here, not 'b'"),
            ("daemon", "daemon: --control SOCKET expected"),
            (
                "daemon --control s a",
                "daemon: nothing was expected here, not 'a'",
            ),
            (
                "daemon --no-seed --control s",
                "daemon: no option --no-seed",
            ),
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

    /// The server asks this about the words that its machines will get.
    #[test]
    fn check_only_knows_what_no_machine_could_take() {
        for line in [
            "a /dev/sda",
            "a /dev/disk/by-id/x --memory 64",
            "a disk:auto,size=1G.. b disk:serial=5",
        ] {
            let checked = typed(&format!("get --check-only {line}"));
            assert_eq!(checked, Ok(Command::Checked), "{line}");
        }
        let no_device = "is no device: a name below /dev such as /dev/sda, or disk:auto";
        for (line, expected) in [
            ("a sda", format!("target sda {no_device}")),
            ("a /tmp/image", format!("target /tmp/image {no_device}")),
            ("a /dev", format!("target /dev {no_device}")),
            ("a /dev/../x", format!("target /dev/../x {no_device}")),
            (
                "a /dev/sda b /dev//sda",
                "target /dev//sda is given twice".into(),
            ),
            (
                "a disk:auto b disk:auto",
                "target disk:auto is given twice".into(),
            ),
            ("a /dev/sda --grow-lst", "no option --grow-lst".into()),
            ("a /dev/sda --help", "no option --help".into()),
            (
                "a /dev/sda --dry-run",
                "--check-only and --dry-run exclude each other".into(),
            ),
            (
                "a /dev/sda b",
                "TORRENT and TARGET go in pairs, 'b' has no partner".into(),
            ),
        ] {
            let line = format!("get --check-only {line}");
            assert_eq!(complaint(&line), format!("get: {expected}"), "{line}");
        }
    }

    #[test]
    fn a_space_in_a_url_is_named() {
        let url = "http://x/my disk.torrent";
        let space = "URL contains ' ', which must be percent-encoded";
        for (words, expected) in [
            (
                vec!["info", url],
                format!("info: expected a file or an http:// URL, not '{url}': {space}"),
            ),
            (
                vec!["make", "a", "--tracker", url],
                format!("make: --tracker takes an http:// URL, not '{url}': {space}"),
            ),
            (
                vec!["info", "http://x/ä"],
                "info: expected a file or an http:// URL, not 'http://x/ä': \
                 URL contains 'ä', which must be percent-encoded"
                    .into(),
            ),
        ] {
            let error = parse(words.into_iter().map(OsString::from)).unwrap_err();
            assert_eq!(error.to_string(), expected);
        }
    }

    #[test]
    fn bytes_that_are_no_text_are_a_path_or_an_error() {
        use std::os::unix::ffi::OsStringExt;
        let odd = OsString::from_vec(vec![b'a', 0xff]);
        let options = parse([OsString::from("info"), odd.clone()]);
        assert_eq!(
            options,
            Ok(Command::Info(info::Options {
                torrent: TorrentPlace::File(PathBuf::from(&odd))
            }))
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
