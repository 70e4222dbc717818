//! What does an agent say and do while nobody gives it data?

use alloc::string::{String, ToString};

use super::super::*;
use super::links::{KIB, address, at, caller, swarm, work};
use super::story::{NOW, leecher};
use crate::policy::throttle::Throttles;
use crate::wire::announce::Answer;
use crate::wire::message::Message;

/// What it waits for after this many seconds.
fn waits(swarm: &Swarm, second: u64) -> Option<String> {
    swarm.waiting(at(second)).map(|waiting| waiting.to_string())
}

fn announced(swarm: &mut Swarm, second: u64, answer: Result<Answer, &str>) {
    assert!(swarm.poll_announce(at(second)).is_some());
    swarm.handle_announced(at(second), answer.map_err(String::from));
}

fn answer(peers: &[core::net::SocketAddr]) -> Result<Answer, &'static str> {
    Ok(Answer::Peers {
        peers: peers.to_vec(),
        warning: None,
    })
}

#[test]
fn an_agent_without_peers_says_what_the_tracker_does() {
    let mut swarm = swarm(Role::Leecher, 2, 16 * KIB, &[]);
    let expect = |swarm: &Swarm, text: &str| {
        assert_eq!(waits(swarm, 100).unwrap(), text);
    };
    assert_eq!(waits(&swarm, 9), None, "too soon");
    let nobody = "no other peer is known; the tracker";
    expect(&swarm, &alloc::format!("{nobody} has not answered yet"));
    announced(&mut swarm, 0, Err("refused"));
    expect(&swarm, &alloc::format!("{nobody} does not answer: refused"));
    let refusal = Answer::Refusal {
        reason: "not today".into(),
        retry_after: None,
        by_tracker: true,
    };
    announced(&mut swarm, 20, Ok(refusal));
    expect(&swarm, &alloc::format!("{nobody} refuses: not today"));
    announced(&mut swarm, 40, answer(&[]));
    let alone = alloc::format!("{nobody} answers and names no other peer");
    expect(&swarm, &alone);
    swarm.last_announce = LastAnnounce::NoTracker;
    expect(
        &swarm,
        "no other peer is known; the torrent names no tracker, and no peer is given (--peer)",
    );
}

#[test]
fn an_agent_with_peers_says_why_they_give_nothing() {
    let mut swarm = swarm(Role::Leecher, 2, 16 * KIB, &[]);
    let throttles = &mut Throttles::default();
    let known = [address(1), address(2)];
    announced(&mut swarm, 0, answer(&known));
    let text = "none of the 2 known addresses leads to a peer; the tracker answers";
    assert!(waits(&swarm, 10).unwrap().starts_with(text));

    let slot = caller(&mut swarm, 1, true, &[]);
    let text = "the only connected peer has nothing that is missing";
    assert_eq!(waits(&swarm, 10).unwrap(), text);
    swarm.handle_message(at(0), slot, Message::Have(0), throttles);
    let text = "the only peer that has what is missing chokes us";
    assert_eq!(waits(&swarm, 10).unwrap(), text);
    swarm.handle_message(at(0), slot, Message::Unchoke, throttles);
    let text = "the only peer that has what is missing sends nothing";
    assert_eq!(waits(&swarm, 10).unwrap(), text);

    let raw = crate::wire::message::RawBlock {
        index: 0,
        begin: 0,
        length: BLOCK_BYTES,
    };
    while swarm.poll_send(at(10), slot, throttles).is_some() {}
    let _ = swarm.begin_block(at(10), slot, raw);
    swarm.handle_block(at(10), slot, raw, throttles);
    work(&mut swarm, at(10));
    assert_eq!(waits(&swarm, 19), None, "data has arrived");
    assert!(waits(&swarm, 20).is_some());
}

/// The server ends a job by ending its tracker, and no good end should look like an error.
#[test]
fn a_complete_agent_says_when_it_leaves_and_not_what_failed() {
    let mut story = leecher("A", "A");
    story.swarm.config.tracker_grace = core::time::Duration::from_secs(30);
    story.work();
    let swarm = &mut story.swarm;
    assert_eq!(swarm.state, State::Seeding);
    announced(swarm, 100, answer(&[]));
    assert_eq!(swarm.leaves_in(at(101)), None);
    announced(swarm, 5000, Err("refused (os error 111)"));
    let left = |seconds| Some(core::time::Duration::from_secs(seconds));
    assert_eq!(swarm.leaves_in(at(5000)), left(30));
    assert_eq!(swarm.leaves_in(at(5012)), left(18));
    let said = swarm.poll_event().unwrap().to_string();
    assert_eq!(said, "the server has ended the job, leaving in 30 s");
    assert_eq!(swarm.poll_event(), None);
    swarm.config.seed_for = left(900_000);
    assert_eq!(swarm.leaves_in(at(5012)), None, "it stays, come what may");
}

/// A machine that was given the wrong torrent keeps what is on its disk.
#[test]
fn zeros_are_written_only_after_somebody_had_data() {
    let mut story = leecher("0a", "..");
    story.work();
    assert_eq!(story.swarm.state, State::Downloading);
    let _empty = story.peer(1, "..");
    story.swarm.handle_timeout(NOW, &mut Throttles::default());
    story.work();
    assert_eq!(story.disk, b"..", "an empty peer is no source");
    let _source = story.peer(2, ".#");
    story
        .swarm
        .handle_timeout(NOW + TICK, &mut Throttles::default());
    story.work();
    assert_eq!(story.disk, b"0.");
}

#[test]
fn zeros_are_written_if_nothing_else_is_missing() {
    let mut story = leecher("0a", ".a");
    story.work();
    assert_eq!(story.disk, b"0a");
}
