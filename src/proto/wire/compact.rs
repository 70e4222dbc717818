//! How are peer addresses packed into a string? As address and port, big-endian, one entry after
//! the other.
//!
//! Answers of trackers (BEP 23, BEP 7) and peer exchange (BEP 11) use it. Addresses that cannot be
//! connected to are left out, and so is a last entry that is cut short.

use alloc::vec::Vec;
use core::net::{IpAddr, Ipv4Addr, SocketAddr};

const V4_BYTES: usize = 6;
const V6_BYTES: usize = 18;

/// The addresses in a string of 6-byte entries.
pub fn v4(packed: &[u8]) -> impl Iterator<Item = SocketAddr> {
    packed
        .as_chunks::<V4_BYTES>()
        .0
        .iter()
        .filter_map(|&[a, b, c, d, port @ ..]| {
            connectable(
                IpAddr::V4(Ipv4Addr::new(a, b, c, d)),
                u16::from_be_bytes(port),
            )
        })
}

/// The addresses in a string of 18-byte entries.
pub fn v6(packed: &[u8]) -> impl Iterator<Item = SocketAddr> {
    packed.as_chunks::<V6_BYTES>().0.iter().filter_map(|entry| {
        let (ip, port) = entry.split_at(16);
        let ip: [u8; 16] = ip.try_into().ok()?;
        connectable(IpAddr::from(ip), u16::from_be_bytes(port.try_into().ok()?))
    })
}

/// The address, if a peer can have it. An IPv4 address mapped to IPv6 (`::ffff:10.77.0.1`) becomes
/// plain IPv4, so that the same peer is not known by two addresses.
pub fn connectable(ip: IpAddr, port: u16) -> Option<SocketAddr> {
    let ip = ip.to_canonical();
    let broadcast = ip == IpAddr::V4(Ipv4Addr::BROADCAST);
    let usable = port != 0 && !ip.is_unspecified() && !ip.is_multicast() && !broadcast;
    usable.then_some(SocketAddr::new(ip, port))
}

/// Packs addresses: the IPv4 ones into the first string, the IPv6 ones into the second.
pub fn pack(addresses: &[SocketAddr]) -> (Vec<u8>, Vec<u8>) {
    let (mut v4, mut v6) = (Vec::new(), Vec::new());
    for address in addresses {
        let out = match address.ip().to_canonical() {
            IpAddr::V4(ip) => {
                v4.extend_from_slice(&ip.octets());
                &mut v4
            }
            IpAddr::V6(ip) => {
                v6.extend_from_slice(&ip.octets());
                &mut v6
            }
        };
        out.extend_from_slice(&address.port().to_be_bytes());
    }
    (v4, v6)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    const TWO: &[u8] = b"\x0a\x4d\x00\x01\x1a\xe1\x0a\x4d\x00\x02\x1a\xe2";
    const ONE_V6: &[u8] = b"\xfd\x77\0\0\0\0\0\0\0\0\0\0\0\0\0\x01\x1a\xe1";

    pub(crate) fn addresses(texts: &[&str]) -> Vec<SocketAddr> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn entries_both_ways_and_cut_short() {
        let known = addresses(&["10.77.0.1:6881", "10.77.0.2:6882"]);
        assert_eq!(v4(TWO).collect::<Vec<_>>(), known);
        let known_v6 = addresses(&["[fd77::1]:6881"]);
        assert_eq!(v6(ONE_V6).collect::<Vec<_>>(), known_v6);
        assert_eq!(
            pack(&[&known[..], &known_v6].concat()),
            (TWO.to_vec(), ONE_V6.to_vec())
        );
        for cut in 0..TWO.len() {
            assert_eq!(v4(&TWO[..cut]).count(), cut / 6);
        }
        for cut in 0..ONE_V6.len() {
            assert_eq!(v6(&ONE_V6[..cut]).count(), 0);
        }
    }

    #[test]
    fn addresses_that_cannot_be_connected_to_are_left_out() {
        let entries = [
            &b"\x0a\x4d\x00\x01\x00\x00"[..], // port 0
            b"\x00\x00\x00\x00\x1a\xe1",      // 0.0.0.0
            b"\xe0\x00\x00\x01\x1a\xe1",      // 224.0.0.1
            b"\xff\xff\xff\xff\x1a\xe1",      // 255.255.255.255
        ];
        assert_eq!(v4(&entries.concat()).count(), 0);
        assert_eq!(v6(&[0; 18]).count(), 0);
        let mapped = b"\0\0\0\0\0\0\0\0\0\0\xff\xff\x0a\x4d\x00\x01\x1a\xe1";
        assert_eq!(
            v6(mapped).collect::<Vec<_>>(),
            addresses(&["10.77.0.1:6881"])
        );
    }

    #[test]
    fn mapped_addresses_are_packed_as_ipv4() {
        let (packed, packed_v6) = pack(&addresses(&["[::ffff:10.77.0.1]:6881"]));
        assert_eq!((&packed[..], &packed_v6[..]), (&TWO[..6], &b""[..]));
    }
}
