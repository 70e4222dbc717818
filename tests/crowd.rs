//! Does the agent accept connections again after it has run out of file descriptors?

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Killed when it goes out of scope, so that no seeder outlives a failed test.
struct Seeder(Child);

impl Drop for Seeder {
    fn drop(&mut self) {
        // It may have ended by itself; then there is nothing to kill.
        let _ = self.0.kill().and_then(|()| self.0.wait());
    }
}

fn connect(address: SocketAddr) -> TcpStream {
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        match TcpStream::connect(address) {
            Ok(stream) => return stream,
            Err(error) => assert!(Instant::now() < deadline, "{error}"),
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// The agent has 30 descriptors, and 60 peers connect. The connections left in the listen backlog
/// cause no further event, so the agent must accept them by itself when the first ones have closed.
#[test]
fn connections_are_accepted_when_descriptors_are_free_again() {
    let directory =
        Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("crowd-{}", std::process::id()));
    std::fs::create_dir_all(&directory).unwrap();
    let (image, torrent) = (directory.join("disk.img"), directory.join("x.torrent"));
    std::fs::write(&image, [7; 50_000]).unwrap();
    let program = env!("CARGO_BIN_EXE_swarmdd");
    let made = Command::new(program)
        .arg("make")
        .args([&image])
        .arg("-o")
        .arg(&torrent)
        .output()
        .unwrap();
    let made = String::from_utf8(made.stdout).unwrap();
    let info_hash = made
        .lines()
        .find_map(|line| line.strip_prefix("info-hash: "))
        .unwrap();

    // A port that was free just now; another process could take it, but rarely does.
    let address = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let limited = "ulimit -n 30; exec \"$0\" seed \"$1\" \"$2\" --listen \"$3\" --progress none";
    let mut command = Command::new("sh");
    command
        .args(["-c", limited, program])
        .args([&torrent, &image])
        .arg(address.to_string());
    let _seeder = Seeder(command.stdin(Stdio::null()).spawn().unwrap());

    let mut peers: Vec<TcpStream> = (0..60).map(|_| connect(address)).collect();
    let mut last = peers.pop().unwrap();
    let mut handshake = b"\x13BitTorrent protocol\0\0\0\0\0\0\0\0".to_vec();
    handshake
        .extend((0..20).map(|at| u8::from_str_radix(&info_hash[2 * at..2 * at + 2], 16).unwrap()));
    handshake.extend(b"-XX0000-abcdefghijkl");
    last.write_all(&handshake).unwrap();
    std::thread::sleep(Duration::from_millis(500));
    drop(peers);
    last.set_read_timeout(Some(Duration::from_secs(10)))
        .unwrap();
    let mut answer = [0; 68];
    last.read_exact(&mut answer).expect("the seeder answers");
    assert_eq!(answer[..20], handshake[..20]);
    // A directory that is left behind does no harm.
    let _ = std::fs::remove_dir_all(&directory);
}
