//! Where is something to be fetched from? The only grammar of URLs: for torrents, trackers and
//! redirects.
//!
//! Read first: RFC 3986, sections 3 (syntax) and 5.2 (references).

use alloc::borrow::ToOwned;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt::{self, Write};
use core::net::Ipv6Addr;

use crate::limits::URL_BYTES_MAX;
use crate::text::{self, is_printable};

/// An `http://` URL in its parts. It has only visible ASCII, so that it can be put into a request
/// unchanged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Url {
    /// A name, an IPv4 address, or an IPv6 address without its brackets.
    pub host: String,
    pub port: u16,
    /// Path and query. It begins with a slash.
    pub target: String,
}

impl Url {
    pub fn parse(text: &str) -> Result<Url, UrlError> {
        if text.len() > URL_BYTES_MAX {
            return Err(UrlError::TooLong { bytes: text.len() });
        }
        if let Some(character) = text.chars().find(|character| !character.is_ascii_graphic()) {
            return Err(UrlError::Character(character));
        }
        let rest = match scheme_of(text) {
            Some(scheme) if scheme.eq_ignore_ascii_case("https") => return Err(UrlError::Https),
            Some(scheme) if scheme.eq_ignore_ascii_case("http") => &text[scheme.len() + 1..],
            _ => return Err(UrlError::NotHttp(text.to_owned())),
        };
        let rest = rest
            .strip_prefix("//")
            .ok_or_else(|| UrlError::NotHttp(text.to_owned()))?;
        let (authority, target) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
        let (host, port) = parse_authority(authority)?;
        let target = before(target, '#');
        let slash = if target.starts_with('/') { "" } else { "/" };
        Ok(Url {
            host,
            port,
            target: format!("{slash}{target}"),
        })
    }

    /// The URL that a reference at this URL means, for example a redirect (RFC 3986, section 5.2).
    pub fn join(&self, location: &str) -> Result<Url, UrlError> {
        let authority = self.authority();
        let location = before(location, '#');
        let path = before(&self.target, '?');
        if scheme_of(location).is_some() {
            return Url::parse(location);
        }
        if location.starts_with("//") {
            return Url::parse(&format!("http:{location}"));
        }
        if location.is_empty() {
            return Ok(self.clone());
        }
        let (new_path, query) = location.split_at(location.find('?').unwrap_or(location.len()));
        let path = if new_path.is_empty() {
            path.to_owned()
        } else if new_path.starts_with('/') {
            without_dots(new_path)
        } else {
            let folder = path.rfind('/').map_or("/", |slash| &path[..=slash]);
            without_dots(&format!("{folder}{new_path}"))
        };
        Url::parse(&format!("http://{authority}{path}{query}"))
    }

    /// Host and port as in a URL and in the `Host` header: IPv6 in brackets, and no port if it is
    /// 80.
    pub fn authority(&self) -> String {
        let (open, close) = if text::contains(&self.host, ":") {
            ("[", "]")
        } else {
            ("", "")
        };
        let host = &self.host;
        match self.port {
            80 => format!("{open}{host}{close}"),
            port => format!("{open}{host}{close}:{port}"),
        }
    }
}

impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "http://{}{}", self.authority(), self.target)
    }
}

impl core::str::FromStr for Url {
    type Err = UrlError;

    fn from_str(text: &str) -> Result<Url, UrlError> {
        Url::parse(text)
    }
}

/// The text before the first colon, if it is a scheme and not a part of a path.
fn scheme_of(text: &str) -> Option<&str> {
    let (scheme, _) = text.split_once(':')?;
    let letters = |byte: u8| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte);
    let is_scheme = scheme.starts_with(|first: char| first.is_ascii_alphabetic())
        && scheme.bytes().all(letters);
    is_scheme.then_some(scheme)
}

fn parse_authority(authority: &str) -> Result<(String, u16), UrlError> {
    let bad_host = || UrlError::Host(authority.to_owned());
    if text::contains(authority, "@") {
        return Err(UrlError::UserInfo);
    }
    let (host, port) = if let Some(rest) = authority.strip_prefix('[') {
        let (host, port) = rest.split_once(']').ok_or_else(bad_host)?;
        host.parse::<Ipv6Addr>().map_err(|_| bad_host())?;
        (host, port)
    } else {
        let (host, port) = authority.split_at(authority.find(':').unwrap_or(authority.len()));
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
        if host.is_empty() || !host.bytes().all(allowed) {
            return Err(bad_host());
        }
        (host, port)
    };
    let port = match port {
        "" | ":" => 80, // RFC 3986 allows a colon with nothing behind it
        _ => port
            .strip_prefix(':')
            .and_then(parse_port)
            .ok_or_else(bad_host)?,
    };
    Ok((host.to_owned(), port))
}

fn parse_port(digits: &str) -> Option<u16> {
    let all_digits = digits.bytes().all(|byte| byte.is_ascii_digit());
    digits.parse().ok().filter(|port| all_digits && *port != 0)
}

/// The text up to the first `mark`.
fn before(text: &str, mark: char) -> &str {
    text.split_once(mark).map_or(text, |(before, _)| before)
}

/// The path without its `.` and `..` segments. It begins with a slash and never leads above it.
fn without_dots(path: &str) -> String {
    let mut kept: Vec<&str> = Vec::new();
    for segment in path.split('/').skip(1) {
        match segment {
            "." => {}
            ".." => drop(kept.pop()),
            segment => kept.push(segment),
        }
    }
    if path.ends_with("/.") || path.ends_with("/..") {
        kept.push("");
    }
    format!("/{}", kept.join("/"))
}

/// Why a text is not a URL that we can fetch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UrlError {
    TooLong { bytes: usize },
    Character(char),
    Https,
    NotHttp(String),
    UserInfo,
    Host(String),
}

impl fmt::Display for UrlError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            UrlError::TooLong { bytes } => {
                write!(
                    f,
                    "URL is {bytes} bytes long, at most {URL_BYTES_MAX} are accepted"
                )
            }
            UrlError::Character(character) => {
                f.write_str("URL contains '")?;
                // Not `escape_debug`: its tables of Unicode are 3 KiB.
                match is_printable(*character) {
                    true => f.write_char(*character)?,
                    false => character.escape_default().fmt(f)?,
                }
                f.write_str("', which must be percent-encoded")
            }
            UrlError::Https => f.write_str(
                "https:// is not supported: what is fetched is pinned by --info-hash, not by TLS",
            ),
            UrlError::NotHttp(text) => write!(f, "'{text}' is not a URL beginning with http://"),
            UrlError::UserInfo => f.write_str("URL contains a user name, which is not supported"),
            UrlError::Host(text) => write!(f, "URL has no valid host and port in '{text}'"),
        }
    }
}

impl core::error::Error for UrlError {}

#[cfg(test)]
mod tests {
    use super::*;
    use std::string::ToString;

    fn url(text: &str) -> Url {
        Url::parse(text).unwrap()
    }

    #[test]
    fn url_is_taken_apart_and_put_together() {
        let cases = [
            // What is given, host, port, target, what is given back if different.
            (
                "http://10.77.0.1/a.torrent",
                "10.77.0.1",
                80,
                "/a.torrent",
                "",
            ),
            (
                "http://server:6969/announce",
                "server",
                6969,
                "/announce",
                "",
            ),
            ("HTTP://server/", "server", 80, "/", "http://server/"),
            ("http://server", "server", 80, "/", "http://server/"),
            ("http://server:80", "server", 80, "/", "http://server/"),
            ("http://server:/x", "server", 80, "/x", "http://server/x"),
            (
                "http://server?mac=1:2",
                "server",
                80,
                "/?mac=1:2",
                "http://server/?mac=1:2",
            ),
            (
                "http://server/x?a=b/c#part",
                "server",
                80,
                "/x?a=b/c",
                "http://server/x?a=b/c",
            ),
            ("http://server#part", "server", 80, "/", "http://server/"),
            ("http://[fd77::1]:8080/x", "fd77::1", 8080, "/x", ""),
            ("http://[::1]", "::1", 80, "/", "http://[::1]/"),
            (
                "http://my_host.example-lab.org/x%20y",
                "my_host.example-lab.org",
                80,
                "/x%20y",
                "",
            ),
        ];
        for (text, host, port, target, shown) in cases {
            let parsed = url(text);
            assert_eq!(
                (&*parsed.host, parsed.port, &*parsed.target),
                (host, port, target),
                "{text}"
            );
            let shown = if shown.is_empty() { text } else { shown };
            assert_eq!(parsed.to_string(), shown);
            assert_eq!(url(shown), parsed);
        }
    }

    #[test]
    #[expect(clippy::too_many_lines, reason = "a table of cases")]
    fn errors_say_what_is_wrong() {
        let cases = [
            (
                "https://server/",
                "https:// is not supported: what is fetched is pinned by --info-hash, not by TLS",
            ),
            (
                "ftp://server/",
                "'ftp://server/' is not a URL beginning with http://",
            ),
            ("server/x", "'server/x' is not a URL beginning with http://"),
            (
                "http:/server",
                "'http:/server' is not a URL beginning with http://",
            ),
            ("", "'' is not a URL beginning with http://"),
            ("http://", "URL has no valid host and port in ''"),
            ("http:///x", "URL has no valid host and port in ''"),
            (
                "http://server:0/",
                "URL has no valid host and port in 'server:0'",
            ),
            (
                "http://server:65536/",
                "URL has no valid host and port in 'server:65536'",
            ),
            (
                "http://server:+80/",
                "URL has no valid host and port in 'server:+80'",
            ),
            (
                "http://a:80:80/",
                "URL has no valid host and port in 'a:80:80'",
            ),
            ("http://a*b/", "URL has no valid host and port in 'a*b'"),
            ("http://[::1/", "URL has no valid host and port in '[::1'"),
            (
                "http://[::1]80/",
                "URL has no valid host and port in '[::1]80'",
            ),
            (
                "http://[server]/",
                "URL has no valid host and port in '[server]'",
            ),
            (
                "http://user:word@server/",
                "URL contains a user name, which is not supported",
            ),
            (
                "http://server/a b",
                "URL contains ' ', which must be percent-encoded",
            ),
            (
                "http://server/\r\nX: y",
                "URL contains '\\r', which must be percent-encoded",
            ),
            (
                "http://server/ä",
                "URL contains 'ä', which must be percent-encoded",
            ),
        ];
        for (text, sentence) in cases {
            assert_eq!(
                Url::parse(text).unwrap_err().to_string(),
                sentence,
                "{text}"
            );
        }
        let long = format!("http://server/{}", "x".repeat(URL_BYTES_MAX - 14));
        assert!(Url::parse(&long).is_ok());
        assert_eq!(
            Url::parse(&format!("{long}x")),
            Err(UrlError::TooLong {
                bytes: URL_BYTES_MAX + 1
            })
        );
    }

    #[test]
    fn references_are_joined() {
        let cases = [
            ("http://other/x", "http://other/x"),
            ("//other:81/x", "http://other:81/x"),
            ("/x/y?z", "http://[fd77::1]:8080/x/y?z"),
            ("x.torrent", "http://[fd77::1]:8080/a/b/x.torrent"),
            ("./x", "http://[fd77::1]:8080/a/b/x"),
            ("../x?y=../z", "http://[fd77::1]:8080/a/x?y=../z"),
            ("../../../../x", "http://[fd77::1]:8080/x"),
            ("..", "http://[fd77::1]:8080/a/"),
            (".", "http://[fd77::1]:8080/a/b/"),
            ("/x/./y/../z/", "http://[fd77::1]:8080/x/z/"),
            ("?again", "http://[fd77::1]:8080/a/b/c?again"),
            ("", "http://[fd77::1]:8080/a/b/c?query=/1/2"),
            ("#part", "http://[fd77::1]:8080/a/b/c?query=/1/2"),
        ];
        let base = url("http://[fd77::1]:8080/a/b/c?query=/1/2");
        for (location, expected) in cases {
            assert_eq!(
                base.join(location).map(|url| url.to_string()),
                Ok(expected.into()),
                "{location}"
            );
        }
        assert_eq!(base.join("https://server/"), Err(UrlError::Https));
        assert!(base.join("x y").is_err());
        assert!(base.join(&"x".repeat(URL_BYTES_MAX)).is_err());
        assert_eq!(
            url("http://server").join("x").unwrap().to_string(),
            "http://server/x"
        );
    }
}
