//! What does the read-back cost, on which disk?

use core::time::Duration;
use std::{env, println, string::String};

use super::options::Options;
use super::run::run;

const MIB: u64 = 1024 * 1024;

/// One way to run a room: `verify`, and the distance of the read-back.
const WAYS: [(bool, u64); 3] = [
    (false, u64::MAX),
    (true, u64::MAX),
    (true, crate::limits::READ_BACK_DISTANCE),
];

/// `LEECHERS:IMAGE_MIB:PIECE_KIB:LINK_MBIT:DISK_MIB_PER_S:SEEK_MS`, any number of them.
const ROOMS: &str = "8:8192:1024:1000:238:0 8:4096:1024:100:150:12 8:4096:1024:300:150:12 \
    8:4096:4096:300:150:12 8:4096:4096:1000:150:12 8:4096:16384:1000:150:12";

#[test]
#[ignore = "prints a table, proves nothing"]
fn sim_disks() {
    let rooms = env::var("SWARMDD_SIM_DISKS").unwrap_or_else(|_| String::from(ROOMS));
    println!(
        "| leechers | image MiB | piece KiB | link Mbit/s | disk MiB/s | seek ms | not read back: \
         done s | at the end: downloaded s | verified | early: downloaded s | verified \
         | early / not read back | early / at the end | read early |"
    );
    println!(
        "| --: | --: | --: | --: | --: | --: | --: | --: | --: | --: | --: | --: | --: | --: |"
    );
    for room in rooms.split_whitespace() {
        let mut numbers = room.split(':').map(|number| {
            let number = number.parse::<u64>();
            number.expect("SWARMDD_SIM_DISKS has six numbers a room")
        });
        let mut next = || {
            numbers
                .next()
                .expect("SWARMDD_SIM_DISKS has six numbers a room")
        };
        let (leechers, image, piece, link, disk, seek) =
            (next(), next(), next(), next(), next(), next());
        let [not, end, early] = WAYS.map(|(verify, distance)| {
            let pieces = (image * 1024 / piece) as u32;
            let rate = link * 1_000_000 / 8;
            let mut options =
                Options::equal_links(leechers as u32, pieces, (piece * 1024) as u32, rate);
            (options.coarse, options.check_every) = (true, 1_000_000);
            options.loop_time = Duration::from_millis(1);
            options.read_back_distance = distance;
            for agent in &mut options.agents[1..] {
                (agent.verify, agent.disk.rate) = (verify, disk * MIB);
                agent.disk.seek = Duration::from_millis(seek);
            }
            run(options)
        });
        let seconds = |time: Duration| time.as_secs_f64();
        println!(
            "| {leechers} | {image} | {piece} | {link} | {disk} | {seek} | {:.2} | {:.2} | {:.2} \
             | {:.2} | {:.2} | {:.3} | {:.3} | {:.0} % |",
            seconds(not.verified),
            seconds(end.downloaded),
            seconds(end.verified),
            seconds(early.downloaded),
            seconds(early.verified),
            seconds(early.verified) / seconds(not.verified),
            seconds(early.verified) / seconds(end.verified),
            100.0 * f64::from(early.read_early) * (piece * 1024) as f64
                / (leechers * image * MIB) as f64,
        );
    }
}
