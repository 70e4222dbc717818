//! How near to the limit does a whole room come? A table for tuning policies, and the one in README; proves nothing.
//!
//! `scripts/sim` runs it and says what can be set.

use alloc::string::String;
use alloc::vec::Vec;
use core::time::Duration;
use std::{env, format, fs, println};

use super::options::Options;
use super::run;
use crate::limits::BLOCK_BYTES;
use crate::wire::PIECE_HEADER_BYTES;

/// Bytes per second of every link, both ways: 100 Mbit/s. With these pieces one takes about as long as 1 MiB does on
/// gigabit Ethernet.
const RATE: u64 = 12_500_000;
const PIECE_KIB: u32 = 64;

const LEECHERS: &str = "1,2,4,8,16,32,64,125";
const PIECES: &str = "1000";

const REQUEST_BYTES: u32 = 17;

/// What is left of a link for payload: who passes on as much as it takes sends with each block its head, and a request.
fn usable(rate: u64) -> f64 {
    let framing = PIECE_HEADER_BYTES as u32 + REQUEST_BYTES;
    rate as f64 * f64::from(BLOCK_BYTES) / f64::from(BLOCK_BYTES + framing)
}

/// The fastest that is possible: (1 + floor(log2 n) / pieces) x image / rate.
fn limit(leechers: u32, pieces: u32, piece_bytes: u32) -> Duration {
    let image = f64::from(pieces) * f64::from(piece_bytes);
    let steps = f64::from(leechers.ilog2());
    Duration::from_secs_f64((1.0 + steps / f64::from(pieces)) * image / usable(RATE))
}

fn numbers(name: &str, otherwise: &str) -> Vec<u32> {
    let text = env::var(name).unwrap_or_else(|_| String::from(otherwise));
    text.split(',')
        .map(|number| number.parse().unwrap_or_else(|_| panic!("{name} is numbers, not {text}")))
        .collect()
}

#[test]
#[ignore = "prints a table, proves nothing"]
fn sim_table() {
    println!(
        "| leechers | pieces | limit T* | last | last / T* | median / T* | in vain | seed sent | events | host |"
    );
    println!(
        "| -------: | -----: | -------: | ---: | --------: | ----------: | ------: | --------: | -----: | ---: |"
    );
    for piece_kib in numbers("SWARMDD_SIM_PIECE_KIB", &format!("{PIECE_KIB}")) {
        for pieces in numbers("SWARMDD_SIM_PIECES", PIECES) {
            for leechers in numbers("SWARMDD_SIM_LEECHERS", LEECHERS) {
                println!("{}", row(leechers, pieces, piece_kib * 1024));
            }
        }
    }
}

fn row(leechers: u32, pieces: u32, piece_bytes: u32) -> String {
    let begun = host_seconds();
    let turn = Duration::from_micros(u64::from(numbers("SWARMDD_SIM_TURN_US", "2000")[0]));
    let report = run(Options { turn, ..Options::equal_links(leechers, pieces, piece_bytes, RATE) });
    let host = host_seconds() - begun;
    let limit = limit(leechers, pieces, piece_bytes);
    let ratio = |time: Duration| time.as_secs_f64() / limit.as_secs_f64();
    format!(
        "| {leechers} | {pieces} | {:.2} s | {:.2} s | {:.3} | {:.3} | {:.2} % | {:.2} | {:.1} M | {host:.1} s |",
        limit.as_secs_f64(),
        report.downloaded.as_secs_f64(),
        ratio(report.downloaded),
        ratio(report.median),
        report.wasted * 100.0,
        report.seeded,
        report.events as f64 / 1e6,
    )
}

/// Time that this thread has run: others may be at work on this host. See Documentation/scheduler/sched-stats.rst.
fn host_seconds() -> f64 {
    let text = fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    text.split(' ').next().and_then(|ns| ns.parse::<f64>().ok()).unwrap_or(f64::NAN) / 1e9
}
