//! Which `pub` items of the core does nothing outside their file use? rustc cannot tell, since it
//! takes a library to be for everybody; in the binary it says so by itself.

use std::collections::{BTreeMap, BTreeSet};

use crate::source::{Source, repository, words};

/// Used by nothing but tests and the simulator, or not yet; each with its reason.
const EXCEPTIONS: &[(&str, &str)] = &[
    (
        "dropped",
        "of a PEX message (BEP 11), which nothing sends yet",
    ),
    ("ut_pex", "the id of PEX messages, likewise"),
    (
        "NotAnInfoHash",
        "the error of `FromStr`, which nothing names",
    ),
    ("chance", "draws the faults of tests and simulated runs"),
    (
        "check_invariants",
        "recounts everything in tests and simulated runs",
    ),
    (
        "frame_bytes_max",
        "the bound of a connection's inbox, which its test asserts",
    ),
];

#[test]
fn every_pub_is_used() {
    let complaints = dead(&repository());
    assert!(complaints.is_empty(), "\n{}\n", complaints.join("\n"));

    let sample = [
        Source::sample(
            "src/proto/a.rs",
            "pub fn f() { g() }\npub const fn g() {}\npub fn e() -> S {}\npub struct S {\n    pub read: u8,\n    pub unread: u8,\n}\n",
        ),
        Source::sample(
            "src/b.rs",
            "fn x() { f(e().read) }\n#[cfg(test)]\nmod tests { use g; }\n",
        ),
    ];
    assert_eq!(
        dead(&sample),
        [
            "src/proto/a.rs: pub g is used nowhere else",
            "src/proto/a.rs: pub unread is used nowhere else"
        ]
    );
}

fn dead(sources: &[Source]) -> Vec<String> {
    let product: Vec<(&str, String)> = sources
        .iter()
        .filter(|source| source.is_product())
        .map(|source| (source.path.as_str(), source.product()))
        .collect();
    // The files in which each word stands.
    let mut places: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for (path, code) in &product {
        words(code).for_each(|word| {
            places.entry(word).or_default().insert(path);
        });
    }
    let used_elsewhere = |name: &str, path: &str| places[name].iter().any(|place| *place != path);
    let excepted = |name: &str| EXCEPTIONS.iter().any(|(exception, _)| *exception == name);
    let complaint = |path: &str, code: &str, name: &str| {
        let dead =
            !used_elsewhere(name, path) && !excepted(name) && !is_part_of_another(name, code);
        dead.then(|| format!("{path}: pub {name} is used nowhere else"))
    };
    let core = product
        .iter()
        .filter(|(path, _)| path.starts_with("src/proto/"));
    core.flat_map(|(path, code)| {
        code.lines()
            .filter_map(|line| complaint(path, code, pub_name(line)?))
    })
    .collect()
}

/// A type may be used elsewhere without its name: as what a function takes or returns, or as a
/// field.
fn is_part_of_another(name: &str, code: &str) -> bool {
    code.match_indices("pub ").any(|(position, _)| {
        let declared = &code[position..];
        // A field ends with its line, a signature before its body.
        let field = pub_name(declared).is_some_and(|name| is_field(declared, name));
        let end = match field {
            true => declared.find('\n'),
            false => declared.find(['{', ';']),
        };
        let end = end.unwrap_or(declared.len());
        pub_name(declared).is_some_and(|other| other != name)
            && words(&declared[..end]).any(|word| word == name)
    })
}

/// The name of the item or field that a line makes `pub`.
fn pub_name(line: &str) -> Option<&str> {
    let declared = line.trim_start().strip_prefix("pub ")?;
    let mut names = words(declared);
    let kinds = [
        "const", "enum", "fn", "static", "struct", "trait", "type", "union", "unsafe",
    ];
    let first = names.next()?;
    match first {
        "use" | "mod" => None,
        _ if kinds.contains(&first) => names.find(|name| !kinds.contains(name)),
        field => is_field(line.trim_start(), field).then_some(field),
    }
}

fn is_field(declared: &str, name: &str) -> bool {
    declared.starts_with(&format!("pub {name}:"))
}
