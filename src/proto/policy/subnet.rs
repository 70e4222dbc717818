//! Which machines may take part, if not all?

use core::net::IpAddr;

use crate::text::split_once;

/// The addresses whose first `length` bits are those of `ip`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Subnet {
    ip: IpAddr,
    length: u32,
}

impl Subnet {
    /// `10.77.0.0/16` or `fd77::/64`. The bits after the first LEN do not matter, so that an
    /// address may be given as `ip address` prints it. None if it is no subnet, or one of IPv4
    /// addresses in the form of IPv6.
    pub fn parse(text: &str) -> Option<Subnet> {
        let (ip, digits) = split_once(text, "/")?;
        let ip: IpAddr = ip.parse().ok()?;
        let all_digits = digits.bytes().all(|byte| byte.is_ascii_digit());
        let length = digits.parse().ok().filter(|_| all_digits)?;
        Subnet::new(ip, length)
    }

    pub fn new(ip: IpAddr, length: u32) -> Option<Subnet> {
        let fits = length <= bits(ip).1 && ip.to_canonical() == ip;
        fits.then_some(Subnet { ip, length })
    }

    /// The address that it was written with.
    pub fn ip(&self) -> IpAddr {
        self.ip
    }

    /// Bits that all of its addresses share.
    pub fn length(&self) -> u32 {
        self.length
    }

    /// An IPv4 address that IPv6 carries (`::ffff:10.77.0.1`) counts as the IPv4 address.
    pub fn contains(&self, ip: IpAddr) -> bool {
        let ((own, width), (other, other_width)) = (bits(self.ip), bits(ip.to_canonical()));
        // There is nothing left to compare if the subnet is all of IPv6.
        let differ = (own ^ other).checked_shr(width - self.length);
        width == other_width && differ.unwrap_or(0) == 0
    }
}

/// The bits of an address, and how many they are.
fn bits(ip: IpAddr) -> (u128, u32) {
    match ip {
        IpAddr::V4(ip) => (ip.to_bits().into(), 32),
        IpAddr::V6(ip) => (ip.to_bits(), 128),
    }
}

/// Whether a machine may take part. Without any subnet every machine may.
pub fn allows(subnets: &[Subnet], ip: IpAddr) -> bool {
    subnets.is_empty() || subnets.iter().any(|subnet| subnet.contains(ip))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Rng;
    use std::net::{Ipv4Addr, Ipv6Addr};
    use std::vec::Vec;

    fn contains(subnet: &str, ip: &str) -> bool {
        let subnet = Subnet::parse(subnet).unwrap_or_else(|| panic!("{subnet}"));
        subnet.contains(ip.parse().unwrap())
    }

    #[test]
    fn a_subnet_contains_what_begins_like_it() {
        for (subnet, ip, expected) in [
            ("10.77.0.0/16", "10.77.255.1", true),
            ("10.77.0.0/16", "10.78.0.1", false),
            ("10.77.3.9/16", "10.77.0.1", true),
            ("10.77.0.128/25", "10.77.0.127", false),
            ("10.77.0.128/25", "10.77.0.255", true),
            ("10.77.0.1/32", "10.77.0.1", true),
            ("10.77.0.1/32", "10.77.0.0", false),
            ("0.0.0.0/0", "255.255.255.255", true),
            ("fd77::/64", "fd77::1:2:3:4", true),
            ("fd77::/64", "fd77:0:0:1::1", false),
            ("fd77::1/128", "fd77::1", true),
            ("::/0", "fe80::1", true),
            // One address, whether IPv4 or IPv6 carries it, and never both families.
            ("10.77.0.0/16", "::ffff:10.77.0.1", true),
            ("10.77.0.0/16", "::ffff:10.78.0.1", false),
            ("::/0", "::ffff:10.77.0.1", false),
            ("::/0", "10.77.0.1", false),
            ("0.0.0.0/0", "::1", false),
            ("0.0.0.0/0", "::a4d:1", false),
            ("::/96", "10.77.0.1", false),
            ("fd77::/128", "10.77.0.1", false),
        ] {
            assert_eq!(contains(subnet, ip), expected, "{subnet} {ip}");
        }
    }

    #[test]
    fn what_is_no_subnet_is_refused() {
        for text in [
            "",
            "/",
            "10.77.0.0",
            "10.77.0.0/",
            "/16",
            "10.77.0.0/33",
            "fd77::/129",
            "10.77/16",
            "10.77.0.0/+16",
            "10.77.0.0/-1",
            "10.77.0.0/16/16",
            "10.77.0.0/255.255.0.0",
            "10.77.0.0/99999999999",
            "::ffff:10.77.0.0/112",
            "[fd77::]/64",
            "lab/24",
            "fe80::1%1/64",
        ] {
            assert_eq!(Subnet::parse(text), None, "{text}");
        }
    }

    #[test]
    fn without_a_subnet_everybody_may_take_part() {
        let ip = "10.78.0.1".parse().unwrap();
        let subnets = |texts: &[&str]| -> Vec<Subnet> {
            texts
                .iter()
                .filter_map(|text| Subnet::parse(text))
                .collect()
        };
        assert!(allows(&[], ip));
        assert!(!allows(&subnets(&["10.77.0.0/16", "::/0"]), ip));
        assert!(allows(&subnets(&["10.77.0.0/16", "10.78.0.0/31"]), ip));
    }

    /// Against a twin that compares one bit after the other.
    #[test]
    fn bit_by_bit_the_same() {
        let mut rng = Rng::new(77);
        for _ in 0..20_000 {
            let near = u128::from(rng.next_u64()) >> rng.below(64) << rng.below(65);
            let one = u128::from(rng.next_u64()) << 64 | u128::from(rng.next_u64());
            let ip = |number: u128, v4: bool| match v4 {
                true => IpAddr::from(Ipv4Addr::from_bits(number as u32)),
                false => IpAddr::from(Ipv6Addr::from_bits(number)),
            };
            let v4 = rng.chance(1, 2);
            let (own, other) = (ip(one, v4), ip(one ^ near, v4));
            let length = rng.below(bits(own).1 + 1);
            let bit = |ip, place| bits(ip).0 >> (bits(ip).1 - 1 - place) & 1;
            let same = (0..length).all(|place| bit(own, place) == bit(other, place));
            let subnet = Subnet::parse(&std::format!("{own}/{length}")).unwrap();
            assert_eq!(subnet.contains(other), same, "{own}/{length} {other}");
        }
    }
}
