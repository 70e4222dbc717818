//! Does a name server say what a name's addresses are, and nothing else?
//!
//! Holds: no panic; only an answer to the question counts; addresses are of the family that was
//! asked for, at most 16, and each stands in the message; behind an answer that is whole, bytes
//! change nothing; each name that is asked for fits a query and has no dot at its end, and the
//! host's own name is among them if it fits. Input: family, whether the message begins with our
//! question, the lengths of name and of resolv.conf, then name, resolv.conf and hosts file or
//! message.
#![no_main]

use libfuzzer_sys::fuzz_target;
use std::net::IpAddr;
use swarm_proto::format::names::{ResolvConf, in_hosts};
use swarm_proto::wire::dns::{Family, answer, query};
use swarmdd_fuzz::Input;

const ID: u16 = 0x1234;

fuzz_target!(|data: &[u8]| {
    let mut input = Input::new(data);
    let family = [Family::V4, Family::V6][input.choose(2)];
    let begins_well = input.chance(2);
    let (name_bytes, conf_bytes) = (input.u8(), input.u8());
    let name = String::from_utf8_lossy(input.take(name_bytes.into())).into_owned();
    let conf = String::from_utf8_lossy(input.take(conf_bytes.into())).into_owned();

    let conf = ResolvConf::parse(&conf);
    assert!(conf.servers.len() <= 3);
    let names = conf.names(&name);
    assert!(names.len() <= 7);
    let whole = name.strip_suffix('.').unwrap_or(&name);
    let is_asked_for = names.iter().any(|name| name == whole);
    assert_eq!(is_asked_for, query(ID, whole, family).is_some());
    assert!(in_hosts(&String::from_utf8_lossy(input.rest()), &name).len() <= 16);

    for name in names {
        let query = query(ID, &name, family).expect("a name that can be asked for");
        assert!(query.len() <= 512 && !name.ends_with('.'));
        check(&query, family, begins_well, input.rest());
    }
});

fn check(query: &[u8], family: Family, begins_well: bool, rest: &[u8]) {
    let mut message = rest.to_vec();
    if begins_well && let Some(head) = message.first_chunk::<4>() {
        // Flags and counts are the fuzzer's, the question is ours.
        let counts = [head[2], head[3], 0, 1, head[0] & 1, head[1], 0, 0, 0, 0];
        message = [&query[..2], &counts, &query[12..], &rest[4..]].concat();
    }
    let found = answer(query, &message);
    let Some(Ok(addresses)) = &found else {
        return;
    };
    assert_eq!(message[..2], query[..2]);
    assert!(message[12..][..query.len() - 12].eq_ignore_ascii_case(&query[12..]));
    assert!(addresses.len() <= 16);
    for address in addresses {
        assert_eq!(address.is_ipv6(), family == Family::V6);
        let octets = match address {
            IpAddr::V4(ip) => ip.octets().to_vec(),
            IpAddr::V6(ip) => ip.octets().to_vec(),
        };
        let mut places = message.windows(octets.len());
        assert!(places.any(|place| place == octets));
    }
    let is_truncated = message[2] & 2 != 0;
    if !is_truncated {
        assert_eq!(answer(query, &[&message, &b"behind"[..]].concat()), found);
    }
    let mut other = message;
    other[1] ^= 1;
    assert_eq!(answer(query, &other), None);
}
