//! Which machine is this, as the server of `--report` gets to know it?
//!
//! Read first: Documentation/ABI/testing/sysfs-class-net of the kernel.

use std::ffi::OsString;
use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use super::json::{option, string};
use crate::os::{directory, net, whole};

/// Of a machine without a card that leads to the server, all is unknown.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Machine {
    mac: Option<String>,
    nic: Option<String>,
    driver: Option<String>,
    link_mbps: Option<u32>,
}

impl Machine {
    /// As seen from `server`: by the card through which packets go there now.
    pub fn towards(server: SocketAddr) -> Machine {
        let nic = local_address(server).and_then(net::interface_of);
        nic.map_or_else(Machine::default, |nic| Machine::with(Path::new("/"), nic))
    }

    fn with(root: &Path, nic: String) -> Machine {
        let class = root.join("sys/class/net").join(&nic);
        let read = |file| {
            let text = whole::read_text(&class.join(file)).ok()?;
            Some(text.trim_ascii().to_string()).filter(|text| !text.is_empty())
        };
        Machine {
            // The loopback interface has an address of zeros, which is no machine's.
            mac: read("address").filter(|mac| mac.bytes().any(|digit| !b"0:".contains(&digit))),
            driver: driver(&class),
            // Of a link that is down, or of a virtual one, the kernel says -1 or nothing.
            link_mbps: read("speed").and_then(|speed| speed.parse().ok()),
            nic: Some(nic),
        }
    }

    /// Members for the object of a report.
    pub fn members(&self) -> String {
        let Machine {
            mac,
            nic,
            driver,
            link_mbps,
        } = self;
        let text = |text: &Option<String>| option(text.as_deref().map(string));
        format!(
            "\"mac\":{},\"nic\":{},\"driver\":{},\"link_mbps\":{},\"version\":\"{}\"",
            text(mac),
            text(nic),
            text(driver),
            option(*link_mbps),
            env!("CARGO_PKG_VERSION"),
        )
    }
}

/// The driver of a card; of a VLAN or a bond, that of the first card below it.
fn driver(class: &Path) -> Option<String> {
    let own = class.join("device/driver");
    let lower = || {
        let names = directory::names(class).ok()?;
        let lower = |name: &&OsString| name.as_bytes().starts_with(b"lower_");
        let name = names.iter().find(lower)?;
        fs::read_link(class.join(name).join("device/driver")).ok()
    };
    let driver = fs::read_link(own).ok().or_else(lower)?;
    Some(driver.file_name()?.to_string_lossy().into_owned())
}

/// The address of this machine that `server` would see. Connecting a UDP socket sends nothing.
fn local_address(server: SocketAddr) -> Option<IpAddr> {
    Some(net::datagrams_to(server).ok()?.local_addr().ok()?.ip())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::os::testing::Scratch;
    use std::os::unix::fs::symlink;

    #[test]
    fn a_card_is_described_by_sysfs() {
        let root = Scratch::new("sysfs-net");
        let class = root.path().join("sys/class/net");
        let card = |name: &str, files: &[(&str, &str)]| {
            fs::create_dir_all(class.join(name)).unwrap();
            for (file, text) in files {
                fs::write(class.join(name).join(file), text).unwrap();
            }
        };
        card(
            "eth0",
            &[("address", "52:54:00:77:00:01\n"), ("speed", "1000\n")],
        );
        fs::create_dir(class.join("eth0/device")).unwrap();
        symlink("../../bus/drivers/e1000", class.join("eth0/device/driver")).unwrap();
        card(
            "eth0.5",
            &[("address", "52:54:00:77:00:01\n"), ("speed", "-1\n")],
        );
        symlink("../eth0", class.join("eth0.5/lower_eth0")).unwrap();
        card("lo", &[("address", "00:00:00:00:00:00\n")]);
        let of = |nic: &str| Machine::with(root.path(), nic.into()).members();
        let version = env!("CARGO_PKG_VERSION");
        assert_eq!(
            of("eth0"),
            format!(
                "\"mac\":\"52:54:00:77:00:01\",\"nic\":\"eth0\",\"driver\":\"e1000\",\
                 \"link_mbps\":1000,\"version\":\"{version}\""
            )
        );
        assert!(of("eth0.5").contains("\"driver\":\"e1000\",\"link_mbps\":null"));
        assert!(of("lo").starts_with("\"mac\":null,\"nic\":\"lo\",\"driver\":null"));
    }

    #[test]
    fn the_card_that_leads_to_the_server_is_found() {
        let machine = Machine::towards("127.0.0.1:80".parse().unwrap());
        assert_eq!(machine.nic.as_deref(), Some("lo"));
    }
}
