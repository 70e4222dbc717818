//! What do the tests of whole disks start from: loop devices, a seed, the tools, and torrents?

use std::fs::{self, File};
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

use swarm_proto::format::metainfo_write::{Content, Description, write};
use swarm_proto::units::PieceHash;

use crate::scratch::Place;

pub const MIB: u64 = 1 << 20;

pub fn sparse(place: &Place, name: &str, length: u64) -> String {
    File::create(place.0.join(name))
        .unwrap()
        .set_len(length)
        .unwrap();
    place.path(name)
}

/// A loop device over a sparse file of its own, detached at the end of the test, however it ends.
pub struct Loop {
    pub device: String,
    pub backing: String,
}

impl Loop {
    pub fn new(place: &Place, name: &str, length: u64, sector_bytes: u32) -> Loop {
        Loop::over(
            &sparse(place, &format!("{name}.loop"), length),
            sector_bytes,
        )
    }

    pub fn over(backing: &str, sector_bytes: u32) -> Loop {
        let sector = format!("--sector-size={sector_bytes}");
        let device = tool(
            "losetup",
            &["--find", "--show", "--partscan", &sector, backing],
        );
        Loop {
            device: device.trim().to_string(),
            backing: backing.to_string(),
        }
    }

    pub fn bytes(&self) -> Vec<u8> {
        drop_caches(self);
        fs::read(&self.backing).unwrap()
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        // Nothing more can be done about it here, and the test's own failure says more.
        let _ = Command::new("losetup")
            .args(["--detach", &self.device])
            .output();
    }
}

/// Bytes written to the device are in its file from now on, and the other way round.
pub fn drop_caches(disk: &Loop) {
    tool("blockdev", &["--flushbufs", &disk.device]);
}

/// The size of a partition according to the kernel, if it knows the partition.
pub fn kernel_sectors(disk: &Loop, partition: u32) -> Option<u64> {
    let name = disk.device.rsplit('/').next().unwrap();
    let size = fs::read_to_string(format!("/sys/block/{name}/{name}p{partition}/size")).ok()?;
    Some(size.trim().parse().unwrap())
}

/// `swarmdd seed` at a port of its own. It ends when this is dropped.
pub struct Seeder {
    process: Child,
    address: String,
}

impl Seeder {
    pub fn start(torrent: &str, source: &str) -> Seeder {
        let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
            .unwrap()
            .local_addr()
            .unwrap()
            .port();
        let address = format!("127.0.0.1:{port}");
        let arguments = [
            "seed",
            "--progress",
            "none",
            "--seed-secs",
            "300",
            "--listen",
            &address,
            torrent,
            source,
        ];
        let process = Command::new(env!("CARGO_BIN_EXE_swarmdd"))
            .args(arguments)
            .spawn()
            .unwrap();
        Seeder { process, address }
    }

    /// Fetches onto a target. Returns what was printed.
    #[track_caller]
    pub fn get(&self, torrent: &str, target: &str, options: &[&str]) -> String {
        let output = self.run(torrent, target, options);
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.success(), "{said}");
        said
    }

    pub fn run(&self, torrent: &str, target: &str, options: &[&str]) -> Output {
        self.run_by(&[], torrent, target, options)
    }

    /// `get` as the command of this program.
    pub fn run_by(
        &self,
        program: &[&str],
        torrent: &str,
        target: &str,
        options: &[&str],
    ) -> Output {
        let fixed = [
            env!("CARGO_BIN_EXE_swarmdd"),
            "get",
            "--peer",
            &self.address,
            "--listen",
            "127.0.0.1:0",
            "--no-seed",
            "--stall-secs",
            "60",
        ];
        let words = [program, &fixed, options, &[torrent, target]].concat();
        output_of(&words)
    }

    /// `get` that must fail. Returns what was printed.
    #[track_caller]
    pub fn fail(&self, torrent: &str, target: &str) -> String {
        let output = self.run(torrent, target, &[]);
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{said}");
        said
    }
}

impl Drop for Seeder {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

pub fn swarmdd(arguments: &[&str]) -> Output {
    output_of(&[&[env!("CARGO_BIN_EXE_swarmdd")], arguments].concat())
}

fn output_of(words: &[&str]) -> Output {
    Command::new(words[0])
        .args(&words[1..])
        .stdin(Stdio::null())
        .output()
        .unwrap()
}

#[track_caller]
pub fn succeed(arguments: &[&str]) -> String {
    let output = swarmdd(arguments);
    assert!(
        output.status.success(),
        "{arguments:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap()
}

/// `get` refuses before it connects to a peer. Returns what was printed.
#[track_caller]
pub fn refuse(torrent: &str, target: &str, options: &[&str]) -> String {
    let output = swarmdd(
        &[
            &["get", "--listen", "127.0.0.1:0"],
            options,
            &[torrent, target],
        ]
        .concat(),
    );
    assert_eq!(output.status.code(), Some(1));
    String::from_utf8(output.stderr).unwrap()
}

/// Makes a torrent, with another name for each set of options. Returns its path and what was
/// printed.
#[track_caller]
pub fn make(place: &Place, source: &str, options: &[&str]) -> (String, String) {
    let name = source.rsplit('/').next().unwrap();
    let torrent = place.path(&format!(
        "{name}{}.torrent",
        options.concat().replace(' ', "")
    ));
    let said = succeed(&[&["make", source, "-o", &torrent], options].concat());
    (torrent, said)
}

#[track_caller]
pub fn tool(name: &str, arguments: &[&str]) -> String {
    tool_fed(name, arguments, "/dev/null")
}

/// Runs a program with a file as its input. Returns what it printed, in English.
#[track_caller]
pub fn tool_fed(name: &str, arguments: &[&str], input: &str) -> String {
    let mut command = Command::new(name);
    command
        .args(arguments)
        .stdin(File::open(input).unwrap())
        .env("LC_ALL", "C")
        .env("PATH", search_path());
    let output = command
        .output()
        .unwrap_or_else(|error| panic!("{name}: {error}"));
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success(),
        "{name} {arguments:?}: {said}{complaint}"
    );
    said
}

/// The directories of administration tools are not in the path of every user.
pub fn search_path() -> String {
    format!(
        "{}:/usr/sbin:/sbin",
        std::env::var("PATH").unwrap_or_default()
    )
}

pub fn tools_are_there(names: &[&str]) -> bool {
    let path = search_path();
    let there = |name: &&&str| {
        path.split(':')
            .any(|directory| Path::new(directory).join(name).exists())
    };
    match names.iter().find(|name| !there(name)) {
        Some(missing) => {
            println!("skipped: there is no {missing}");
            false
        }
        None => true,
    }
}

/// Loop devices need root, and some containers have none.
pub fn loops_are_there() -> bool {
    let there = Command::new("losetup")
        .arg("--find")
        .env("PATH", search_path())
        .output();
    let there = there.is_ok_and(|output| output.status.success());
    if !there {
        println!("skipped: no loop device is available");
    }
    there
}

pub fn write_at(path: &str, offset: u64, bytes: &[u8]) {
    let file = File::options().write(true).open(path).unwrap();
    file.write_all_at(bytes, offset).unwrap();
}

/// A torrent as another maker writes it, which says nothing about a disk: of `bytes`, which are the
/// image or slices of it.
pub fn foreign_torrent(place: &Place, bytes: &[u8], content: Content) -> String {
    let hash = |piece: &[u8]| PieceHash(sha1_smol::Sha1::from(piece).digest().bytes());
    let hashes: Vec<PieceHash> = bytes.chunks(1 << 20).map(hash).collect();
    let torrent = write(&Description {
        name: "image",
        trackers: &[],
        webseeds: &[],
        created_by: "another maker",
        private: false,
        piece_bytes: 1 << 20,
        hashes: &hashes,
        content,
        disk_bytes: None,
        sector_bytes: None,
        needed_bytes: None,
        table: None,
    });
    place.write("foreign.torrent", &torrent)
}
