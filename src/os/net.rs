//! What do sockets need that mio and std do not offer?
//!
//! Reading and writing need nothing from here: std's `read_vectored` and `write_vectored` accept
//! pool buffers. Read first: socket(7), tcp(7), ipv6(7), netdevice(7).

use super::check;
use std::ffi::CString;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileTypeExt;
use std::path::Path;

/// Connections that the kernel queues until we accept them: enough for several classrooms that boot
/// in the same second. The kernel limits the number to net.core.somaxconn.
const BACKLOG_COUNT: libc::c_int = 1024;

/// A listening socket on the first free port of `port_count` ports, from the port of `address` on.
///
/// The IPv6 wildcard address accepts IPv4 connections, too. On a kernel without IPv6 it becomes the
/// IPv4 wildcard, so the default `[::]` works everywhere.
pub fn listen_next_free(address: SocketAddr, port_count: u16) -> io::Result<mio::net::TcpListener> {
    assert!(port_count > 0);
    let last_port = address.port().saturating_add(port_count - 1);
    let mut address = address;
    loop {
        match listen(address) {
            Err(error)
                if error.kind() == io::ErrorKind::AddrInUse && address.port() < last_port =>
            {
                address.set_port(address.port() + 1);
            }
            result => return result,
        }
    }
}

fn listen(address: SocketAddr) -> io::Result<mio::net::TcpListener> {
    match bind_and_listen(address) {
        Err(error) if no_ipv6(&error) && address.is_ipv6() && address.ip().is_unspecified() => {
            bind_and_listen(SocketAddr::new(
                Ipv4Addr::UNSPECIFIED.into(),
                address.port(),
            ))
        }
        other => other,
    }
}

fn bind_and_listen(address: SocketAddr) -> io::Result<mio::net::TcpListener> {
    let family = if address.is_ipv6() {
        libc::AF_INET6
    } else {
        libc::AF_INET
    };
    let socket = stream_socket(family)?;
    // A restarted agent gets its port back at once, not after the minute of TIME_WAIT.
    set_option(&socket, libc::SOL_SOCKET, libc::SO_REUSEADDR, 1)?;
    match address {
        SocketAddr::V4(address) => bind(&socket, &raw_v4(address))?,
        SocketAddr::V6(address) => {
            // Independent of net.ipv6.bindv6only.
            set_option(&socket, libc::IPPROTO_IPV6, libc::IPV6_V6ONLY, 0)?;
            bind(&socket, &raw_v6(address))?;
        }
    }
    start_listening(&socket)?;
    Ok(mio::net::TcpListener::from_std(socket.into()))
}

fn stream_socket(family: libc::c_int) -> io::Result<OwnedFd> {
    socket(family, libc::SOCK_STREAM)
}

fn socket(family: libc::c_int, kind: libc::c_int) -> io::Result<OwnedFd> {
    let kind = kind | libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
    // SAFETY: nothing else owns the new descriptor.
    unsafe { Ok(OwnedFd::from_raw_fd(check(libc::socket(family, kind, 0))?)) }
}

fn start_listening(socket: &OwnedFd) -> io::Result<()> {
    // SAFETY: our own descriptor.
    check(unsafe { libc::listen(socket.as_raw_fd(), BACKLOG_COUNT) }).map(drop)
}

/// A listening Unix socket at `path`, for the owner alone. A socket that a process has left behind
/// is replaced; where another process answers, or something else lies, that is an error.
pub fn listen_at_path(path: &Path) -> io::Result<mio::net::UnixListener> {
    let taken = |why: &str| Err(super::error(why));
    let address = raw_unix(path)?;
    // lstat(2) would not follow a link, but connect(2) and bind(2) do.
    let is_socket = std::fs::metadata(path).map(|found| found.file_type().is_socket());
    match is_socket {
        Ok(false) => return taken("something that is no socket lies there"),
        Ok(true) if is_served(&address)? => return taken("another process answers there"),
        Ok(true) => std::fs::remove_file(path)?,
        Err(_) => {}
    }
    let socket = stream_socket(libc::AF_UNIX)?;
    // SAFETY: changes the mode of new files of this process, which has one thread.
    let mask = unsafe { libc::umask(0o177) };
    let bound = bind(&socket, &address);
    // SAFETY: as above.
    unsafe { libc::umask(mask) };
    bound?;
    start_listening(&socket)?;
    Ok(mio::net::UnixListener::from_std(socket.into()))
}

/// A process listens at the Unix socket, though it may be too busy to answer now (EAGAIN).
fn is_served(address: &libc::sockaddr_un) -> io::Result<bool> {
    let connected = connect(&stream_socket(libc::AF_UNIX)?, address);
    Ok(!matches!(connected, Err(error) if error.kind() == io::ErrorKind::ConnectionRefused))
}

/// A UDP socket that sends to `peer` and receives from nobody else. Nothing is sent yet; it is an
/// error if no route leads there.
pub fn datagrams_to(peer: SocketAddr) -> io::Result<mio::net::UdpSocket> {
    let socket = match peer {
        SocketAddr::V4(peer) => {
            let socket = socket(libc::AF_INET, libc::SOCK_DGRAM)?;
            connect(&socket, &raw_v4(peer))?;
            socket
        }
        SocketAddr::V6(peer) => {
            let socket = socket(libc::AF_INET6, libc::SOCK_DGRAM)?;
            connect(&socket, &raw_v6(peer))?;
            socket
        }
    };
    Ok(mio::net::UdpSocket::from_std(socket.into()))
}

/// The index of an interface, which may be written as its name; 0 if there is none.
pub fn index_of_interface(text: &str) -> u32 {
    text.parse().unwrap_or_else(|_| {
        // SAFETY: the C library reads up to the zero.
        let index = |name: CString| unsafe { libc::if_nametoindex(name.as_ptr()) };
        CString::new(text).map_or(0, index)
    })
}

/// `T` as for `bind`.
fn connect<T>(socket: &OwnedFd, address: &T) -> io::Result<()> {
    let length = size_of::<T>() as libc::socklen_t;
    let address = std::ptr::from_ref(address).cast();
    // SAFETY: the kernel reads `length` bytes, the size of what `address` points to.
    check(unsafe { libc::connect(socket.as_raw_fd(), address, length) }).map(drop)
}

/// `T` is the `sockaddr_in`, `sockaddr_in6` or `sockaddr_un` of the socket's family.
fn bind<T>(socket: &OwnedFd, address: &T) -> io::Result<()> {
    let length = size_of::<T>() as libc::socklen_t;
    let address = std::ptr::from_ref(address).cast();
    // SAFETY: the kernel reads `length` bytes, the size of what `address` points to.
    check(unsafe { libc::bind(socket.as_raw_fd(), address, length) }).map(drop)
}

/// The path ends with a zero.
fn raw_unix(path: &Path) -> io::Result<libc::sockaddr_un> {
    let mut address = libc::sockaddr_un {
        sun_family: libc::AF_UNIX as libc::sa_family_t,
        sun_path: [0; 108],
    };
    let bytes = path.as_os_str().as_bytes();
    if bytes.len() >= address.sun_path.len() {
        return Err(super::error("a path of a socket has at most 107 bytes"));
    }
    for (to, byte) in address.sun_path.iter_mut().zip(bytes) {
        *to = *byte as libc::c_char;
    }
    Ok(address)
}

fn raw_v4(address: SocketAddrV4) -> libc::sockaddr_in {
    libc::sockaddr_in {
        sin_family: libc::AF_INET as libc::sa_family_t,
        sin_port: address.port().to_be(),
        sin_addr: libc::in_addr {
            s_addr: u32::from_ne_bytes(address.ip().octets()),
        },
        sin_zero: [0; 8],
    }
}

fn raw_v6(address: SocketAddrV6) -> libc::sockaddr_in6 {
    libc::sockaddr_in6 {
        sin6_family: libc::AF_INET6 as libc::sa_family_t,
        sin6_port: address.port().to_be(),
        sin6_flowinfo: address.flowinfo(),
        sin6_addr: libc::in6_addr {
            s6_addr: address.ip().octets(),
        },
        sin6_scope_id: address.scope_id(),
    }
}

/// The name of the interface that has this address.
///
/// getifaddrs(3) would say both, but takes 2 KiB.
pub fn interface_of(address: IpAddr) -> Option<String> {
    match address {
        IpAddr::V4(address) => interface_of_v4(address),
        IpAddr::V6(address) => interface_of_v6(address),
    }
}

/// Addresses that are looked through. A machine has a card or two, and a host of containers fewer
/// than this.
const ADDRESS_COUNT_MAX: usize = 256;

/// The subnets of all interfaces: our address there, and the bits that all of its machines share.
pub fn own_subnets() -> Vec<(IpAddr, u32)> {
    own_v4()
        .unwrap_or_default()
        .into_iter()
        .chain(own_v6())
        .collect()
}

fn own_v4() -> Option<Vec<(IpAddr, u32)>> {
    let (socket, list) = entries_v4()?;
    let subnet = |mut entry: libc::ifreq| {
        let ip = address_of(&entry);
        // SAFETY: the kernel reads the name and the address of the entry, and writes the mask in
        // place of the address.
        let asked = unsafe {
            libc::ioctl(
                socket.as_raw_fd(),
                libc::SIOCGIFNETMASK as _,
                &raw mut entry,
            )
        };
        check(asked).ok()?;
        Some((IpAddr::V4(ip), address_of(&entry).to_bits().count_ones()))
    };
    Some(list.into_iter().filter_map(subnet).collect())
}

/// From proc_net(5), if_inet6: the address comes first, the length of its prefix third.
fn own_v6() -> Vec<(IpAddr, u32)> {
    let text = super::whole::read_text("/proc/net/if_inet6".as_ref()).unwrap_or_default();
    let subnet = |line: &str| {
        let mut words = line.split_ascii_whitespace();
        let ip = u128::from_str_radix(words.next()?, 16).ok()?;
        let length = u32::from_str_radix(words.nth(1)?, 16).ok()?;
        Some((IpAddr::V6(Ipv6Addr::from_bits(ip)), length))
    };
    text.lines().filter_map(subnet).collect()
}

fn interface_of_v4(address: Ipv4Addr) -> Option<String> {
    let (_, list) = entries_v4()?;
    let name = list
        .iter()
        .find(|entry| address_of(entry) == address)?
        .ifr_name;
    let name = name.iter().map(|byte| *byte as u8 as char);
    Some(
        name.take_while(|byte| !matches!(byte, '\0' | ':'))
            .collect(),
    )
}

fn address_of(entry: &libc::ifreq) -> Ipv4Addr {
    // SAFETY: the kernel has written an address of IPv4 there, and any bytes are valid.
    let raw = unsafe { entry.ifr_ifru.ifru_addr };
    let [a, b, c, d] = [2, 3, 4, 5].map(|place| raw.sa_data[place] as u8);
    Ipv4Addr::new(a, b, c, d)
}

/// From netdevice(7). One entry for each address, by the name that it was given, which is that of
/// the interface or begins with it and a colon (`eth0:1`); and the socket that was asked.
fn entries_v4() -> Option<(OwnedFd, Vec<libc::ifreq>)> {
    // SAFETY: numbers and a union of them, for which zeros are valid.
    let mut list: Vec<libc::ifreq> = vec![unsafe { std::mem::zeroed() }; ADDRESS_COUNT_MAX];
    let mut request = libc::ifconf {
        ifc_len: size_of_val(&*list) as libc::c_int,
        ifc_ifcu: libc::__c_anonymous_ifc_ifcu {
            ifcu_req: list.as_mut_ptr(),
        },
    };
    let socket = socket(libc::AF_INET, libc::SOCK_DGRAM).ok()?;
    // SAFETY: the kernel writes at most `ifc_len` bytes into the list, and how many these were.
    check(unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCGIFCONF as _, &raw mut request) })
        .ok()?;
    list.truncate(request.ifc_len as usize / size_of::<libc::ifreq>());
    Some((socket, list))
}

/// From proc_net(5), if_inet6: the address in 32 digits comes first, the name last.
fn interface_of_v6(address: Ipv6Addr) -> Option<String> {
    let digits: String = address
        .octets()
        .iter()
        .map(|octet| format!("{octet:02x}"))
        .collect();
    let text = super::whole::read_text("/proc/net/if_inet6".as_ref()).ok()?;
    let line = text.lines().find(|line| line.starts_with(&digits))?;
    line.split_ascii_whitespace().next_back().map(String::from)
}

/// The kernel has no IPv6 (EAFNOSUPPORT), or it is switched off by `ipv6.disable=1` or by sysctl.
fn no_ipv6(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::EAFNOSUPPORT | libc::EADDRNOTAVAIL | libc::EPROTONOSUPPORT)
    )
}

fn set_option(
    socket: impl AsFd,
    level: libc::c_int,
    name: libc::c_int,
    value: libc::c_int,
) -> io::Result<()> {
    let length = size_of::<libc::c_int>() as libc::socklen_t;
    let pointer = std::ptr::from_ref(&value).cast();
    // SAFETY: the kernel reads one int, `value`.
    check(unsafe { libc::setsockopt(socket.as_fd().as_raw_fd(), level, name, pointer, length) })
        .map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::os::testing::Scratch;
    use std::io::{Read, Write};
    use std::net::TcpStream;
    use std::os::unix::fs::PermissionsExt;

    /// Accepts the connection that has just been made. Waits ten seconds at most.
    fn accept(listener: &mio::net::TcpListener) -> (mio::net::TcpStream, SocketAddr) {
        let mut poll = libc::pollfd {
            fd: listener.as_raw_fd(),
            events: libc::POLLIN,
            revents: 0,
        };
        // SAFETY: one pollfd on the stack.
        assert_eq!(unsafe { libc::poll(&raw mut poll, 1, 10_000) }, 1);
        listener.accept().unwrap()
    }

    #[test]
    fn the_wildcard_accepts_both_families() {
        let listener = listen("[::]:0".parse().unwrap()).unwrap();
        let port = listener.local_addr().unwrap().port();
        let mut client = TcpStream::connect(("127.0.0.1", port)).unwrap();
        let (served, from) = accept(&listener);
        assert_eq!(from.ip().to_canonical(), Ipv4Addr::LOCALHOST);
        client.write_all(b"x").unwrap();
        let mut served = std::net::TcpStream::from(served);
        served.set_nonblocking(false).unwrap();
        let mut byte = [0];
        served.read_exact(&mut byte).unwrap();
        assert_eq!(byte, *b"x");
        if listener.local_addr().unwrap().is_ipv6() {
            let _client = TcpStream::connect(("::1", port)).unwrap();
            accept(&listener);
        }
    }

    #[test]
    fn a_socket_in_the_file_system_is_for_the_owner_and_replaces_one_that_nobody_serves() {
        let scratch = Scratch::new("socket");
        let refused = || listen_at_path(scratch.path()).unwrap_err().to_string();
        std::fs::write(scratch.path(), b"abc").unwrap();
        assert_eq!(refused(), "something that is no socket lies there");
        assert_eq!(std::fs::read(scratch.path()).unwrap(), b"abc");
        std::fs::remove_file(scratch.path()).unwrap();

        let first = listen_at_path(scratch.path()).unwrap();
        let mode = std::fs::metadata(scratch.path()).unwrap().permissions();
        assert_eq!(mode.mode() & 0o777, 0o600);
        assert_eq!(refused(), "another process answers there");
        drop(first);
        assert!(scratch.path().exists(), "it is left behind");
        listen_at_path(scratch.path()).unwrap();
    }

    #[test]
    fn an_interface_is_found_by_its_address() {
        let interface = |address: &str| interface_of(address.parse().unwrap());
        assert_eq!(interface("127.0.0.1").as_deref(), Some("lo"));
        let text = std::fs::read_to_string("/proc/net/if_inet6").unwrap_or_default();
        let has_v6 = text.lines().any(|line| line.ends_with(" lo"));
        assert_eq!(interface("::1").as_deref(), has_v6.then_some("lo"));
        assert_eq!(interface("2001:db8::1"), None);
        assert_eq!(interface("192.0.2.1"), None, "an address of documents");
    }

    #[test]
    fn the_subnets_of_this_machine_have_its_addresses() {
        let subnets = own_subnets();
        let has = |ip: &str, length| subnets.contains(&(ip.parse().unwrap(), length));
        assert!(has("127.0.0.1", 8), "{subnets:?}");
        let text = std::fs::read_to_string("/proc/net/if_inet6").unwrap_or_default();
        let has_v6 = text.lines().any(|line| line.ends_with(" lo"));
        assert_eq!(has("::1", 128), has_v6);
    }

    #[test]
    fn an_interface_has_an_index() {
        let cases = [
            ("lo", 1),
            ("7", 7),
            ("", 0),
            ("no-such-link", 0),
            ("l\0o", 0),
        ];
        for (text, index) in cases {
            assert_eq!(index_of_interface(text), index, "{text:?}");
        }
    }

    #[test]
    fn the_next_port_is_used_if_the_first_is_in_use() {
        let first = listen("127.0.0.1:0".parse().unwrap()).unwrap();
        let taken = first.local_addr().unwrap();
        assert_eq!(listen(taken).unwrap_err().kind(), io::ErrorKind::AddrInUse);
        assert_eq!(
            listen_next_free(taken, 1).unwrap_err().kind(),
            io::ErrorKind::AddrInUse
        );
        let second = listen_next_free(taken, 100).unwrap();
        assert!(second.local_addr().unwrap().port() > taken.port());
    }
}
