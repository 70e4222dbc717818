//! What does a program ask of the daemon?
//!
//! An object on a line. Its member `do` names the request; a member that the request does not know
//! is refused, since a program that sends it expects something of it.

use swarm_proto::units::InfoHash;
use swarm_proto::wire::json::{self, Value};

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Request {
    Add(Addition),
    List,
    Pause(InfoHash),
    Shutdown,
}

/// A job that is to be begun.
#[derive(Debug, PartialEq, Eq)]
pub struct Addition {
    /// Where the torrent is.
    pub torrent: String,
    /// The TARGET of `swarmdd get` or the SOURCE of `swarmdd seed`.
    pub path: String,
    pub seed: bool,
}

impl Request {
    pub fn parse(line: &[u8]) -> Result<Request, String> {
        let mut members = Members(json::object(line).map_err(|error| error.to_string())?);
        let name = members.text("do")?;
        let request = match name.as_str() {
            "add" => Request::Add(Addition {
                torrent: members.text("torrent")?,
                path: members.text("path")?,
                seed: members.flag("seed")?,
            }),
            "list" => Request::List,
            "pause" => {
                let text = members.text("info_hash")?;
                let wrong = |_| "\"info_hash\" takes 40 hexadecimal digits".to_string();
                Request::Pause(text.parse().map_err(wrong)?)
            }
            "shutdown" => Request::Shutdown,
            _ => return Err("\"do\" takes add, list, pause or shutdown".into()),
        };
        match members.0.first() {
            Some((member, _)) => Err(format!("{name} has no member \"{member}\"")),
            None => Ok(request),
        }
    }
}

/// The members that were not taken yet.
struct Members(json::Members);

impl Members {
    fn take(&mut self, name: &str) -> Option<Value> {
        let at = self.0.iter().position(|(member, _)| member == name)?;
        Some(self.0.remove(at).1)
    }

    fn text(&mut self, name: &str) -> Result<String, String> {
        match self.take(name) {
            Some(Value::Text(text)) => Ok(text),
            _ => Err(format!("\"{name}\" is needed, as a string")),
        }
    }

    /// False if it is missing.
    fn flag(&mut self, name: &str) -> Result<bool, String> {
        match self.take(name) {
            Some(Value::Word(word)) if word == "true" => Ok(true),
            Some(Value::Word(word)) if word == "false" => Ok(false),
            None => Ok(false),
            _ => Err(format!("\"{name}\" takes true or false")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Request, String> {
        Request::parse(line.as_bytes())
    }

    #[test]
    fn each_request_is_understood() {
        let add = |seed| {
            Ok(Request::Add(Addition {
                torrent: "a.torrent".into(),
                path: "/dev/sda1".into(),
                seed,
            }))
        };
        let members = r#""do":"add","path":"/dev/sda1","torrent":"a.torrent""#;
        assert_eq!(parse(&format!("{{{members}}}\n")), add(false));
        assert_eq!(parse(&format!("{{{members},\"seed\":false}}")), add(false));
        assert_eq!(parse(&format!("{{\"seed\":true,{members}}}")), add(true));
        assert_eq!(parse(r#"{"do":"list"}"#), Ok(Request::List));
        assert_eq!(parse(r#"{"do":"shutdown"}"#), Ok(Request::Shutdown));
        let hash = "00ff10ef0123456789abcdef0123456789abcdef";
        assert_eq!(
            parse(&format!(r#"{{"do":"pause","info_hash":"{hash}"}}"#)),
            Ok(Request::Pause(hash.parse().unwrap()))
        );
    }

    #[test]
    fn anything_else_is_refused_with_a_reason() {
        for (line, reason) in [
            ("", "not an object at byte 0: expected '{'"),
            ("{}", "\"do\" is needed, as a string"),
            (r#"{"do":7}"#, "\"do\" is needed, as a string"),
            (
                r#"{"do":"stop"}"#,
                "\"do\" takes add, list, pause or shutdown",
            ),
            (r#"{"do":"list","all":true}"#, "list has no member \"all\""),
            (r#"{"do":"list","do":"list"}"#, "list has no member \"do\""),
            (r#"{"do":"add"}"#, "\"torrent\" is needed, as a string"),
            (
                r#"{"do":"add","torrent":"a","path":null}"#,
                "\"path\" is needed, as a string",
            ),
            (
                r#"{"do":"add","torrent":"a","path":"b","seed":"yes"}"#,
                "\"seed\" takes true or false",
            ),
            (
                r#"{"do":"pause","info_hash":"00"}"#,
                "\"info_hash\" takes 40 hexadecimal digits",
            ),
        ] {
            assert_eq!(parse(line), Err(reason.into()), "{line}");
        }
    }
}
