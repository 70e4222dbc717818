//! What do `/etc/hosts` and `/etc/resolv.conf` say about a name?
//!
//! Read first: hosts(5), resolv.conf(5).

use alloc::string::String;
use alloc::vec::Vec;
use core::net::IpAddr;

use crate::limits::{HOST_ADDRESS_COUNT_MAX, NAME_SERVER_COUNT_MAX, SEARCH_COUNT_MAX};

/// More dots than this before a name is tried as it is mean nothing (resolv.conf(5)).
const NDOTS_MAX: usize = 15;

const LABEL_BYTES_MAX: usize = 63;
/// 255 bytes in a message (RFC 1035 section 2.3.4), with a length before the name and 0 after it.
pub(crate) const NAME_BYTES_MAX: usize = 253;

/// Whether a message to a name server can hold this name, which has no dot at its end.
pub(crate) fn is_name(name: &str) -> bool {
    let mut labels = name.split('.');
    name.len() <= NAME_BYTES_MAX && labels.all(|it| (1..=LABEL_BYTES_MAX).contains(&it.len()))
}

/// The addresses that the hosts file gives to `name`, in its order.
pub fn in_hosts(text: &str, name: &str) -> Vec<IpAddr> {
    let name = without_last_dot(name);
    let mut addresses = Vec::new();
    for line in text.lines() {
        let line = line.split_once('#').map_or(line, |(line, _)| line);
        let mut words = line.split_ascii_whitespace();
        // A line that names no address that we can use is somebody else's.
        let Some(address) = words.next().and_then(|word| word.parse().ok()) else {
            continue;
        };
        if words.any(|word| word.eq_ignore_ascii_case(name)) {
            addresses.push(address);
        }
        if addresses.len() == HOST_ADDRESS_COUNT_MAX {
            break;
        }
    }
    addresses
}

/// Who is asked, and for which names.
#[derive(Debug, PartialEq, Eq)]
pub struct ResolvConf {
    /// None if the file names none; then the machine itself is asked (resolv.conf(5)).
    /// Each with the interface that leads there, by name or index; empty if any does.
    pub servers: Vec<(IpAddr, String)>,
    search: Vec<String>,
    /// A name with as many dots is asked for as it is, before the domains are searched.
    ndots: usize,
}

impl ResolvConf {
    pub fn parse(text: &str) -> ResolvConf {
        let mut conf = ResolvConf {
            servers: Vec::new(),
            search: Vec::new(),
            ndots: 1,
        };
        for line in text.lines() {
            let mut words = line.split_ascii_whitespace();
            match words.next() {
                Some("nameserver") if conf.servers.len() < NAME_SERVER_COUNT_MAX => {
                    let word = words.next().unwrap_or_default();
                    let (ip, interface) = word.split_once('%').unwrap_or((word, ""));
                    if let Ok(ip) = ip.parse() {
                        conf.servers.push((ip, interface.into()));
                    }
                }
                // The last such line holds.
                Some("search" | "domain") => {
                    conf.search.clear();
                    for domain in words.take(SEARCH_COUNT_MAX) {
                        conf.search.push(without_last_dot(domain).into());
                    }
                }
                Some("options") => {
                    let mut dots =
                        words.filter_map(|word| word.strip_prefix("ndots:")?.parse().ok());
                    conf.ndots = dots.next_back().unwrap_or(conf.ndots).min(NDOTS_MAX);
                }
                _ => {}
            }
        }
        conf
    }

    /// The whole names that are asked for until one has an address, the first one last. Those that
    /// cannot be asked for are left out: a domain may be empty, malformed or too long for a name.
    pub fn names(&self, name: &str) -> Vec<String> {
        let whole = without_last_dot(name);
        let mut names = Vec::new();
        if whole.len() == name.len() {
            let searched = self.search.iter().rev();
            names.extend(searched.map(|domain| [whole, domain].join(".")));
        }
        let dots = whole.bytes().filter(|byte| *byte == b'.').count();
        let place = if dots >= self.ndots { names.len() } else { 0 };
        names.insert(place, whole.into());
        names.retain(|name| is_name(name));
        names
    }
}

fn without_last_dot(name: &str) -> &str {
    name.strip_suffix('.').unwrap_or(name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;

    #[test]
    fn a_hosts_file_is_read() {
        let text = "127.0.0.1\tlocalhost loop\n# 10.77.0.9 deploy\n10.77.0.1 deploy.lan Deploy #x\n\
                    fd00::1 deploy\n10.77.0.2 deploy-old #deploy\nfe80::1%eth0 deploy\ndeploy\n\n";
        let cases = [
            ("localhost", "127.0.0.1"),
            ("deploy", "10.77.0.1 fd00::1"),
            ("DEPLOY", "10.77.0.1 fd00::1"),
            ("deploy.lan", "10.77.0.1"),
            ("deploy.lan.", "10.77.0.1"),
            ("deploy.l", ""),
            ("10.77.0.2", ""),
        ];
        for (name, expected) in cases {
            let found = in_hosts(text, name)
                .iter()
                .map(IpAddr::to_string)
                .collect::<Vec<_>>();
            assert_eq!(found.join(" "), expected, "{name}");
        }
        assert_eq!(
            in_hosts(&"::1 x\n".repeat(99), "x").len(),
            HOST_ADDRESS_COUNT_MAX
        );
    }

    #[test]
    fn a_resolver_configuration_is_read() {
        let conf = ResolvConf::parse(
            "# nameserver 10.77.0.9\n;x\nnameserver 10.77.0.1\n nameserver fe80::1%eth0 \nnameserver x\n\
             nameserver\ndomain old.lan\nsearch lab.lan. lan\noptions timeout:1 ndots:2\n\
             nameserver 10.77.0.2\nnameserver 10.77.0.3\n",
        );
        let servers = conf.servers.iter();
        let servers: Vec<_> = servers
            .map(|(ip, link)| ip.to_string() + "|" + link)
            .collect();
        assert_eq!(servers, ["10.77.0.1|", "fe80::1|eth0", "10.77.0.2|"]);
        assert_eq!(
            (conf.search.join(" ").as_str(), conf.ndots),
            ("lab.lan lan", 2)
        );
        let empty = ResolvConf::parse("");
        assert_eq!(
            (empty.servers.len(), empty.search.len(), empty.ndots),
            (0, 0, 1)
        );
        assert_eq!(ResolvConf::parse("options ndots:4000000").ndots, NDOTS_MAX);
    }

    #[test]
    fn domains_are_searched() {
        let cases = [
            ("search a b", "h", "h.a h.b h"),
            ("search a b", "h.", "h"),
            ("search a b", "h.x", "h.x h.x.a h.x.b"),
            ("search a\noptions ndots:2", "h.x", "h.x.a h.x"),
            ("search a\noptions ndots:0", "h", "h h.a"),
            ("", "h", "h"),
            // systemd-resolved writes `search .` where nothing is to be searched.
            ("search . a", "h", "h.a h"),
            ("search .", "h", "h"),
            ("search .. a..b .c d", "h", "h.d h"),
            ("", "a..b", ""),
            ("", ".", ""),
            ("search a", "", ""),
            ("search 1 2 3 4 5 6 7", "h", "h.1 h.2 h.3 h.4 h.5 h.6 h"),
        ];
        for (text, name, expected) in cases {
            let mut names = ResolvConf::parse(text).names(name);
            names.reverse();
            assert_eq!(names.join(" "), expected, "{text}: {name}");
        }
        let long = "x.".repeat(126) + "x";
        let conf = ResolvConf::parse("search a");
        assert_eq!(conf.names(&long).len(), 1, "253 bytes");
        assert_eq!(conf.names(&long[2..]).len(), 2);
    }
}
