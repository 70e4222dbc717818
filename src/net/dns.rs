//! Which addresses does a name have? Found without ever waiting.
//!
//! As the C library finds them, which would hold up the loop: /etc/hosts first, then the name
//! servers of /etc/resolv.conf, one after the other, with the domains that it searches.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use mio::net::UdpSocket;
use mio::{Interest, Registry, Token};
use swarm_proto::format::names::{self, ResolvConf};
use swarm_proto::limits::{
    HOSTS_BYTES_MAX, KNOWN_NAMES_MAX, NAME_ROUNDS, NAME_STRAYS_MAX, NAME_TIMEOUT,
};
use swarm_proto::units::Instant;
use swarm_proto::wire::dns::{self, Family, Refusal};

use crate::os::{clock, net, whole};

const PORT: u16 = 53;

/// IPv6 first, as getaddrinfo(3) orders them.
const FAMILIES: [Family; 2] = [Family::V6, Family::V4];

/// Longest answer without extensions (RFC 1035 section 2.3.4).
const ANSWER_BYTES_MAX: usize = 512;

/// Pause between two lookups of a name whose addresses are known and do not answer. While the name
/// server is away as well, a lookup takes seconds, and the old addresses are tried only after it.
const LOOKUP_PAUSE: Duration = Duration::from_secs(60);

/// Addresses of names that were looked up before. They are kept until no connection to them
/// succeeds, and longer if nobody knows better ones.
#[derive(Default)]
pub struct Resolver {
    /// The oldest one first.
    known: Vec<Known>,
}

struct Known {
    host: String,
    addresses: Vec<IpAddr>,
    /// No connection to these addresses succeeded.
    doubtful: bool,
    looked_up_at: Instant,
}

impl Resolver {
    /// The addresses of a literal, and those that are known; without any the name is looked up.
    pub fn find(&mut self, host: &str, now: Instant) -> Result<Vec<IpAddr>, Box<Lookup>> {
        if let Ok(literal) = host.parse() {
            return Ok(vec![literal]);
        }
        if let Some(known) = self.known(host) {
            if !known.doubtful || now < known.looked_up_at + LOOKUP_PAUSE {
                return Ok(known.addresses.clone());
            }
            known.looked_up_at = now;
        }
        let listed = usable(names::in_hosts(&read("/etc/hosts"), host));
        if listed.is_empty() {
            return Err(Box::new(Lookup::new(host)));
        }
        self.keep(host, &listed, now);
        Ok(listed)
    }

    /// What a lookup has brought. After a failure the old addresses may still be right: the name
    /// server is often the machine that has just gone.
    pub fn learn(
        &mut self,
        host: &str,
        result: Result<Vec<IpAddr>, String>,
        now: Instant,
    ) -> Result<Vec<IpAddr>, String> {
        match (&result, self.known(host)) {
            (Ok(addresses), _) => self.keep(host, addresses, now),
            (Err(_), Some(known)) => return Ok(known.addresses.clone()),
            (Err(_), None) => {}
        }
        result
    }

    /// Notes that no connection to the addresses of this name succeeded.
    pub fn doubt(&mut self, host: &str) {
        if let Some(known) = self.known(host) {
            known.doubtful = true;
        }
    }

    fn keep(&mut self, host: &str, addresses: &[IpAddr], now: Instant) {
        self.known.retain(|known| known.host != host);
        if self.known.len() == KNOWN_NAMES_MAX {
            self.known.remove(0);
        }
        self.known.push(Known {
            host: host.into(),
            addresses: addresses.into(),
            doubtful: false,
            looked_up_at: now,
        });
    }

    fn known(&mut self, host: &str) -> Option<&mut Known> {
        self.known.iter_mut().find(|known| known.host == host)
    }
}

/// The first lines of a file, as far as HOSTS_BYTES_MAX; without it nothing is known by it.
fn read(path: &str) -> String {
    let mut bytes = whole::read_start(Path::new(path), HOSTS_BYTES_MAX + 1).unwrap_or_default();
    if bytes.len() > HOSTS_BYTES_MAX {
        let end = bytes.iter().rposition(|byte| *byte == b'\n');
        bytes.truncate(end.unwrap_or(0));
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// IPv6 addresses first, and only those to which a route leads, unless there are no others.
fn usable(addresses: Vec<IpAddr>) -> Vec<IpAddr> {
    let leads_there = |address: IpAddr| net::datagrams_to(SocketAddr::new(address, PORT)).is_ok();
    let mut usable = Vec::new();
    for is_v6 in [true, false] {
        for &address in &addresses {
            if address.is_ipv6() == is_v6 && (!is_v6 || leads_there(address)) {
                usable.push(address);
            }
        }
    }
    match usable.is_empty() {
        true => addresses,
        false => usable,
    }
}

const NO_ANSWER: &str = "no answer";

/// One name that is being looked up.
///
/// Call `advance` once at the start, at every event of its token, and at its `deadline`, until it
/// returns the result.
pub struct Lookup {
    /// The whole names to ask for, the next one last.
    names: Vec<String>,
    servers: Vec<SocketAddr>,
    /// Which of them is asked, and how many more times one may be asked for this name.
    server: usize,
    tries_left: usize,
    /// Datagrams of this socket that were no answer.
    strays: usize,
    /// Connected to the server that is asked.
    socket: Option<UdpSocket>,
    /// For the name that is asked for, by family. Empty before its first question.
    queries: [Vec<u8>; 2],
    answers: [Option<Result<Vec<IpAddr>, Refusal>>; 2],
    /// When the server has failed; None if it is still to be asked.
    deadline: Option<Instant>,
    /// Why the last server named no address.
    why: String,
}

/// What the server that is asked brought.
enum Step {
    Waits,
    Found(Vec<IpAddr>),
    /// The name has no address.
    Nothing(&'static str),
    /// The server will not say.
    Refused(Refusal),
    /// The server does not answer.
    Failed(String),
}

impl Lookup {
    fn new(host: &str) -> Lookup {
        let conf = ResolvConf::parse(&read("/etc/resolv.conf"));
        Lookup::of(conf.names(host), conf.servers, PORT)
    }

    fn of(names: Vec<String>, mut servers: Vec<(IpAddr, String)>, port: u16) -> Lookup {
        // resolv.conf(5): without servers, the machine itself is asked.
        if servers.is_empty() {
            servers.push((Ipv4Addr::LOCALHOST.into(), String::new()));
        }
        let servers: Vec<_> = servers
            .iter()
            .map(|(ip, interface)| {
                let mut server = SocketAddr::new(*ip, port);
                if let SocketAddr::V6(server) = &mut server {
                    server.set_scope_id(net::index_of_interface(interface));
                }
                server
            })
            .collect();
        Lookup {
            names,
            tries_left: servers.len() * NAME_ROUNDS,
            servers,
            server: 0,
            strays: 0,
            socket: None,
            queries: Default::default(),
            answers: Default::default(),
            deadline: None,
            why: NO_ANSWER.into(),
        }
    }

    /// The latest time for the next call of `advance`, once it was called.
    pub fn deadline(&self) -> Option<Instant> {
        self.deadline
    }

    /// Does everything that is possible without waiting. Returns at least one address, or why there
    /// is none; None while it waits.
    pub fn advance(
        &mut self,
        registry: &Registry,
        token: Token,
        now: Instant,
    ) -> Option<Result<Vec<IpAddr>, String>> {
        loop {
            let step = match self.deadline {
                Some(deadline) => self.receive(deadline <= now),
                None => {
                    self.deadline = Some(now + NAME_TIMEOUT);
                    match self.ask(registry, token) {
                        Ok(()) => continue,
                        Err(error) => Step::Failed(error.to_string()),
                    }
                }
            };
            let goes_on = match step {
                Step::Waits => return None,
                Step::Found(addresses) => return Some(Ok(usable(addresses))),
                Step::Nothing(why) => {
                    self.why = why.into();
                    self.next_name()
                }
                // A server may refuse what lies outside its own domains.
                Step::Refused(refusal) => {
                    self.why = refusal.to_string();
                    self.next_server() || self.next_name()
                }
                Step::Failed(why) => {
                    self.why = why;
                    self.next_server()
                }
            };
            if !goes_on {
                return Some(Err(self.failure()));
            }
        }
    }

    /// Why there is no address yet, and who was asked.
    pub fn failure(&self) -> String {
        let mut text = format!("{} (asked: ", self.why);
        for (index, server) in self.servers.iter().enumerate() {
            text.push_str(if index > 0 { ", " } else { "" });
            text.push_str(&server.ip().to_string());
        }
        text.push(')');
        text
    }

    /// Asks the server for what it has not answered yet.
    fn ask(&mut self, registry: &Registry, token: Token) -> io::Result<()> {
        let socket = match &mut self.socket {
            Some(socket) => socket,
            empty => {
                let mut socket = net::datagrams_to(self.servers[self.server])?;
                registry.register(&mut socket, token, Interest::READABLE)?;
                empty.insert(socket)
            }
        };
        for (index, family) in FAMILIES.into_iter().enumerate() {
            if self.queries[index].is_empty() {
                let name = self.names.last().map_or("", String::as_str);
                let query = dns::query(clock::random_seed()? as u16, name, family);
                let no_name = || crate::os::error("it is no name of a host");
                self.queries[index] = query.ok_or_else(no_name)?;
            }
            if self.answers[index].is_none() {
                socket.send(&self.queries[index])?;
            }
        }
        Ok(())
    }

    /// Reads what has come, and concludes from it; `is_late` if the server has had its time.
    fn receive(&mut self, is_late: bool) -> Step {
        let mut bytes = [0; ANSWER_BYTES_MAX];
        while let Some(socket) = &self.socket {
            match socket.recv(&mut bytes) {
                Ok(count) if self.take(&bytes[..count]) => {}
                Ok(_) => {
                    self.strays += 1;
                    if self.strays > NAME_STRAYS_MAX {
                        return Step::Failed("a flood of wrong answers".into());
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Step::Failed(error.to_string()),
            }
        }
        self.conclude(is_late)
    }

    /// False if it is no answer, or a second one.
    fn take(&mut self, message: &[u8]) -> bool {
        for (query, answer) in self.queries.iter().zip(&mut self.answers) {
            if answer.is_none() {
                *answer = dns::answer(query, message);
                if answer.is_some() {
                    return true;
                }
            }
        }
        false
    }

    fn conclude(&mut self, is_late: bool) -> Step {
        let is_whole = self.answers.iter().all(Option::is_some);
        // It holds for both families (RFC 2308 section 5). But some servers say it of IPv6 where
        // there is only IPv4 (RFC 4074 section 4.2).
        let is_none = self.answers[1] == Some(Err(Refusal::NoSuchName));
        if !is_whole && !is_late && !is_none {
            return Step::Waits;
        }
        let (mut found, mut refusal) = (Vec::new(), None);
        for answer in self.answers.iter().flatten() {
            match answer {
                Ok(addresses) => found.extend(addresses),
                Err(Refusal::NoSuchName) => refusal = Some(Refusal::NoSuchName),
                Err(other) => refusal = refusal.or(Some(*other)),
            }
        }
        match refusal {
            _ if !found.is_empty() => Step::Found(found),
            Some(Refusal::NoSuchName) => Step::Nothing("there is no such name"),
            Some(refusal) => Step::Refused(refusal),
            None if is_whole => Step::Nothing("the name has no address"),
            None => Step::Failed(NO_ANSWER.into()),
        }
    }

    /// False if every server was asked often enough.
    fn next_server(&mut self) -> bool {
        self.tries_left -= 1;
        // The socket of the only server stays, for an answer that is late.
        if self.servers.len() > 1 {
            self.server = (self.server + 1) % self.servers.len();
            self.socket = None;
            self.strays = 0;
        }
        self.answers = Default::default();
        self.deadline = None;
        self.tries_left > 0
    }

    /// False if that was the last one.
    fn next_name(&mut self) -> bool {
        self.names.pop();
        self.tries_left = self.servers.len() * NAME_ROUNDS;
        self.queries = Default::default();
        self.answers = Default::default();
        self.deadline = None;
        !self.names.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mio::{Events, Poll};
    use std::net::UdpSocket as Server;

    /// A lookup of these names, the first one first, and its name servers: 127.0.0.1, 127.0.0.2...
    struct Room {
        poll: Poll,
        servers: Vec<Server>,
        lookup: Lookup,
    }

    impl Room {
        fn new(names: &[&str], server_count: u8) -> Room {
            let bind = |last: u8, port: u16| {
                let server = Server::bind((Ipv4Addr::new(127, 0, 0, last), port)).ok()?;
                server
                    .set_read_timeout(Some(Duration::from_secs(10)))
                    .unwrap();
                Some(server)
            };
            let mut tries = 0;
            let servers: Vec<Server> = loop {
                tries += 1;
                let first = bind(1, 0).unwrap();
                let port = first.local_addr().unwrap().port();
                // Another program may have this port at another address.
                let others = (2..=server_count).map(|last| bind(last, port));
                match others.collect::<Option<Vec<_>>>() {
                    Some(others) => break std::iter::once(first).chain(others).collect(),
                    None => assert!(tries < 100),
                }
            };
            let at = |server: &Server| server.local_addr().unwrap();
            let addresses = servers
                .iter()
                .map(|server| (at(server).ip(), String::new()));
            let names = names.iter().rev().map(|name| name.to_string()).collect();
            Room {
                poll: Poll::new().unwrap(),
                lookup: Lookup::of(names, addresses.collect(), at(&servers[0]).port()),
                servers,
            }
        }

        fn advance(&mut self, now: Instant) -> Option<Result<Vec<IpAddr>, String>> {
            self.lookup.advance(self.poll.registry(), Token(0), now)
        }

        /// Waits until the lookup has received something, ten seconds at most.
        fn wait(&mut self) -> Option<Result<Vec<IpAddr>, String>> {
            let mut events = Events::with_capacity(1);
            self.poll
                .poll(&mut events, Some(Duration::from_secs(10)))
                .unwrap();
            self.advance(Instant(0))
        }

        /// Answers the next query to a server with this code and these last bytes of IPv4
        /// addresses, or says nothing. Returns whether IPv6 was asked for, and the name.
        fn serve(&self, server: usize, reply: Option<(u8, &[u8])>) -> (bool, String) {
            let mut query = [0; 512];
            let (count, client) = self.servers[server].recv_from(&mut query).unwrap();
            let mut message = query[..count].to_vec();
            let (name, kind) = message[12..].split_at(count - 12 - 4);
            let (is_v6, mut rest, mut labels) = (kind[1] == 28, name, Vec::new());
            while let [length, more @ ..] = rest
                && *length > 0
            {
                let (label, more) = more.split_at(usize::from(*length));
                labels.push(String::from_utf8(label.to_vec()).unwrap());
                rest = more;
            }
            if let Some((code, addresses)) = reply {
                message[2] |= 0x80;
                message[3] = code;
                message[7] = addresses.len() as u8;
                for &last in addresses {
                    message.extend(b"\xC0\x0C\x00\x01\x00\x01\x00\x00\x00\x00\x00\x04\x0A\x4D\x00");
                    message.push(last);
                }
                self.servers[server].send_to(&message, client).unwrap();
            }
            (is_v6, labels.join("."))
        }
    }

    /// `now` after `count` time-outs of a server.
    fn late(count: u32) -> Instant {
        Instant(0) + count * NAME_TIMEOUT
    }

    fn ip(last: u8) -> IpAddr {
        Ipv4Addr::new(10, 77, 0, last).into()
    }

    const NONE: Option<(u8, &[u8])> = Some((0, &[]));
    const NO_SUCH_NAME: Option<(u8, &[u8])> = Some((3, &[]));
    const FAILURE: Option<(u8, &[u8])> = Some((2, &[]));

    #[test]
    fn both_families_are_asked_for_at_once() {
        let mut room = Room::new(&["deploy.lan"], 1);
        assert_eq!(room.advance(Instant(0)), None);
        assert_eq!(room.lookup.deadline(), Some(late(1)));
        assert_eq!(room.serve(0, NONE), (true, "deploy.lan".into()));
        assert_eq!(room.wait(), None, "half of the answer");
        assert_eq!(
            room.serve(0, Some((0, &[5, 6]))),
            (false, "deploy.lan".into())
        );
        assert_eq!(room.wait(), Some(Ok(vec![ip(5), ip(6)])));
    }

    /// Some name servers are silent when they are asked for IPv6.
    #[test]
    fn one_family_is_enough_when_the_time_is_over() {
        let mut room = Room::new(&["deploy"], 1);
        room.advance(Instant(0));
        room.serve(0, None);
        room.serve(0, Some((0, &[5])));
        assert_eq!(room.wait(), None);
        assert_eq!(room.advance(late(1)), Some(Ok(vec![ip(5)])));
    }

    #[test]
    fn domains_are_searched_until_a_name_has_an_address() {
        let mut room = Room::new(&["deploy.a", "deploy.b", "deploy"], 1);
        room.advance(Instant(0));
        for (name, reply) in [("deploy.a", NO_SUCH_NAME), ("deploy.b", NONE)] {
            for is_v6 in [true, false] {
                assert_eq!(room.serve(0, reply), (is_v6, name.into()));
                assert_eq!(room.wait(), None);
            }
        }
        room.serve(0, NO_SUCH_NAME);
        assert_eq!(room.wait(), None);
        room.serve(0, NO_SUCH_NAME);
        let error = "there is no such name (asked: 127.0.0.1)";
        assert_eq!(room.wait(), Some(Err(error.into())));
    }

    #[test]
    fn no_such_name_of_ipv4_is_none_of_ipv6() {
        let mut room = Room::new(&["deploy.a", "deploy"], 1);
        room.advance(Instant(0));
        room.serve(0, None);
        room.serve(0, NO_SUCH_NAME);
        assert_eq!(room.wait(), None);
        assert_eq!(room.lookup.names, ["deploy"], "nothing is waited for");
        room.serve(0, NO_SUCH_NAME);
        assert_eq!(room.wait(), None);
        room.serve(0, Some((0, &[5])));
        assert_eq!(room.wait(), Some(Ok(vec![ip(5)])));
    }

    #[test]
    fn a_silent_server_is_asked_again_and_may_answer_late() {
        let mut room = Room::new(&["deploy"], 1);
        room.advance(Instant(0));
        assert_eq!(room.advance(late(1)), None);
        let first = room.servers[0].local_addr().unwrap();
        assert_eq!(
            room.lookup.socket.as_ref().unwrap().peer_addr().unwrap(),
            first
        );
        // The first questions are answered after the second ones were sent.
        room.serve(0, NONE);
        room.serve(0, Some((0, &[5])));
        assert_eq!(room.wait(), Some(Ok(vec![ip(5)])));

        let mut room = Room::new(&["deploy"], 1);
        room.advance(Instant(0));
        assert_eq!(room.advance(late(1)), None);
        let error = "no answer (asked: 127.0.0.1)";
        assert_eq!(room.advance(late(2)), Some(Err(error.into())));
    }

    #[test]
    fn the_next_server_is_asked_after_one_that_fails() {
        // One that is silent, one that refuses, one that is away.
        let mut room = Room::new(&["deploy"], 4);
        drop(room.servers.remove(2));
        room.advance(Instant(0));
        assert_eq!(room.advance(late(1)), None);
        room.serve(1, FAILURE);
        room.serve(1, FAILURE);
        assert_eq!(room.wait(), None);
        room.serve(2, NONE);
        room.serve(2, Some((0, &[5])));
        assert_eq!(room.wait(), Some(Ok(vec![ip(5)])));
    }

    #[test]
    fn a_server_that_refuses_one_name_is_asked_for_the_next() {
        let mut room = Room::new(&["deploy.outside", "deploy"], 1);
        room.advance(Instant(0));
        for _ in 0..NAME_ROUNDS {
            room.serve(0, FAILURE);
            assert_eq!(room.wait(), None);
            assert_eq!(room.serve(0, FAILURE).1, "deploy.outside");
            assert_eq!(room.wait(), None);
        }
        assert_eq!(room.serve(0, NONE).1, "deploy");
        assert_eq!(room.wait(), None);
        room.serve(0, Some((0, &[5])));
        assert_eq!(room.wait(), Some(Ok(vec![ip(5)])));
    }

    #[test]
    fn nobody_at_the_port_is_an_error_at_once() {
        let mut room = Room::new(&["deploy"], 2);
        room.servers.clear();
        let result = room.advance(Instant(0)).or_else(|| room.wait());
        let error = result.unwrap().unwrap_err();
        assert!(error.contains("refused"), "{error}");
        assert!(error.ends_with(" (asked: 127.0.0.1, 127.0.0.2)"), "{error}");
    }

    #[test]
    fn a_flood_ends_the_lookup() {
        let mut room = Room::new(&["deploy"], 1);
        room.advance(Instant(0));
        let client = room.lookup.socket.as_ref().unwrap().local_addr().unwrap();
        let mut result = None;
        for _ in 0..2 * NAME_STRAYS_MAX {
            room.servers[0].send_to(b"x", client).unwrap();
            result = result.or_else(|| room.wait());
        }
        let error = "a flood of wrong answers (asked: 127.0.0.1)";
        assert_eq!(result, Some(Err(error.into())));
    }

    #[test]
    fn a_flood_of_one_server_leaves_the_others_alone() {
        for server_count in [1, 2] {
            let mut room = Room::new(&["deploy"], server_count);
            room.advance(Instant(0));
            let client = room.lookup.socket.as_ref().unwrap().local_addr().unwrap();
            for _ in 0..=NAME_STRAYS_MAX {
                room.servers[0].send_to(b"x", client).unwrap();
                assert_eq!(room.wait(), None);
            }
            let next = usize::from(server_count) - 1;
            assert_eq!(room.lookup.server, next);
            room.serve(next, NONE);
            assert_eq!(room.wait(), None);
            room.serve(next, Some((0, &[5])));
            assert_eq!(room.wait(), Some(Ok(vec![ip(5)])), "{server_count}");
        }
    }

    #[test]
    fn of_a_long_file_the_first_lines_are_read() {
        let scratch = crate::os::testing::Scratch::new("hosts");
        let path = scratch.path().to_str().unwrap();
        assert_eq!(read(path), "");
        let whole = "::1 a\n".to_string() + &"#".repeat(HOSTS_BYTES_MAX - 6);
        std::fs::write(path, &whole).unwrap();
        assert!(read(path) == whole);
        std::fs::write(path, whole + "#").unwrap();
        assert_eq!(read(path), "::1 a", "the last line is cut");
    }

    #[test]
    fn a_name_that_cannot_be_asked_for_is_refused() {
        let error = Room::new(&[], 1).advance(Instant(0)).unwrap().unwrap_err();
        assert_eq!(error, "it is no name of a host (asked: 127.0.0.1)");
    }

    #[test]
    fn a_name_server_may_lie_behind_one_interface() {
        let servers = |text| Lookup::of(Vec::new(), ResolvConf::parse(text).servers, 53).servers;
        assert_eq!(servers(""), ["127.0.0.1:53".parse().unwrap()]);
        let expected = ["[fe80::1%1]:53", "[fd00::1]:53"].map(|server| server.parse().unwrap());
        assert_eq!(
            servers("nameserver fe80::1%lo\nnameserver fd00::1"),
            expected
        );
    }

    #[test]
    fn a_literal_needs_no_lookup_and_ipv6_needs_a_route() {
        let mut resolver = Resolver::default();
        for literal in ["10.77.0.5", "::1"] {
            let found = resolver.find(literal, Instant(0)).ok();
            assert_eq!(found, Some(vec![literal.parse().unwrap()]));
        }
        let (v4, no_route) = (ip(5), "fe80::1".parse().unwrap());
        assert_eq!(
            usable(vec![no_route, v4]),
            [v4],
            "a link-local address names no link"
        );
        assert_eq!(usable(vec![no_route]), [no_route]);
        let loopback: IpAddr = "::1".parse().unwrap();
        if net::datagrams_to((loopback, PORT).into()).is_ok() {
            assert_eq!(usable(vec![v4, loopback]), [loopback, v4]);
        }
    }

    #[test]
    fn addresses_are_kept_and_looked_up_once_a_minute_if_they_do_not_answer() {
        let (mut resolver, host, start) = (Resolver::default(), "gone.invalid", Instant(0));
        let failure = || Err("no answer".to_string());
        assert!(resolver.find(host, start).is_err());
        assert_eq!(resolver.learn(host, failure(), start), failure());
        assert_eq!(
            resolver.learn(host, Ok(vec![ip(5)]), start),
            Ok(vec![ip(5)])
        );
        let after = |seconds| start + Duration::from_secs(seconds);
        assert_eq!(resolver.find(host, after(1000)).ok(), Some(vec![ip(5)]));

        resolver.doubt(host);
        assert_eq!(resolver.find(host, after(59)).ok(), Some(vec![ip(5)]));
        assert!(resolver.find(host, after(60)).is_err());
        assert_eq!(
            resolver.find(host, after(119)).ok(),
            Some(vec![ip(5)]),
            "it is being looked up"
        );
        assert_eq!(resolver.learn(host, failure(), after(65)), Ok(vec![ip(5)]));
        assert!(resolver.find(host, after(120)).is_err());
        assert_eq!(
            resolver.learn(host, Ok(vec![ip(6)]), after(121)),
            Ok(vec![ip(6)])
        );
        assert_eq!(resolver.find(host, after(1000)).ok(), Some(vec![ip(6)]));

        for number in 0..KNOWN_NAMES_MAX {
            let name = format!("{number}.invalid");
            assert!(resolver.learn(&name, Ok(vec![ip(7)]), start).is_ok());
        }
        assert!(resolver.find(host, start).is_err(), "it was the oldest one");
        assert_eq!(resolver.known.len(), KNOWN_NAMES_MAX);
    }
}
