//! Does the source text keep the rules that no compiler checks: direction of dependencies, where
//! `unsafe` may stand, which crates there are, what every file and every script begins with?
//!
//! Each rule is a function from text to complaints. It is run over the whole repository, and once
//! over a bad sample: a check that cannot fail is a defect.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

/// Code is held to 110 by rustfmt; prose in comments may be a little wider, but not without end.
const COLUMNS_MAX: usize = 136;

const CRATES: [&str; 5] = ["crc32fast", "lexopt", "libc", "mio", "sha1_smol"];

/// One file of the repository.
struct Source {
    /// Relative to the repository, with `/`.
    path: String,
    text: String,
    executable: bool,
}

impl Source {
    fn sample(path: &str, text: &str) -> Source {
        Source {
            path: path.into(),
            text: text.into(),
            executable: false,
        }
    }

    fn is_rust(&self) -> bool {
        self.path.ends_with(".rs")
    }

    /// A script by its place and name; lists and configuration files have other extensions.
    fn is_script(&self) -> bool {
        let (directory, name) = self.path.rsplit_once('/').unwrap_or(("", &self.path));
        let place = directory.split('/').next().unwrap_or_default();
        let placed = ["scripts", "initramfs", "qemu-tests", ".ci"].contains(&place);
        placed && (name.ends_with(".sh") || !name.contains('.'))
    }

    /// Read by other scripts.
    fn is_library_script(&self) -> bool {
        self.path.ends_with(".sh")
    }

    /// The core proper: the simulator is compiled for tests only.
    fn is_core(&self) -> bool {
        self.is_rust()
            && self.path.starts_with("src/proto/")
            && !self.path.starts_with("src/proto/sim")
    }

    /// The Rust code that goes into the product, without comments, literals and `#[cfg(test)]`
    /// items.
    fn product(&self) -> String {
        without_tests(&code(&self.text))
    }
}

#[track_caller]
fn assert_tidy(rule: impl Fn(&Source) -> Vec<String>) {
    let sources = repository();
    assert!(
        sources.iter().any(|source| source.path == "src/main.rs"),
        "this is not the repository"
    );
    let complain = |source: &Source| -> Vec<String> {
        rule(source)
            .into_iter()
            .map(|complaint| format!("{}: {complaint}", source.path))
            .collect()
    };
    let complaints: Vec<String> = sources.iter().flat_map(complain).collect();
    assert!(complaints.is_empty(), "\n{}\n", complaints.join("\n"));
}

#[test]
fn core_knows_no_io() {
    assert_tidy(core_imports);
    let bad = "fn f() { std::fs::read(\"x\"); }\n#[cfg(test)]\nmod tests {\n    use std::vec;\n}\n";
    assert_eq!(
        core_imports(&Source::sample("src/proto/a.rs", bad)),
        ["uses std"]
    );
    assert_eq!(
        core_imports(&Source::sample(
            "src/proto/a.rs",
            "use mio::Poll; use libc as c;"
        ))
        .len(),
        2
    );
    let good = "//! Like std::fs, but not mio.\nuse core::fmt;\nuse crate::astd::x;\nconst A: &str = \"libc\";\n";
    assert!(core_imports(&Source::sample("src/proto/a.rs", good)).is_empty());
    assert!(core_imports(&Source::sample("src/proto/sim/a.rs", bad)).is_empty());
    assert!(core_imports(&Source::sample("src/a.rs", bad)).is_empty());
}

fn core_imports(source: &Source) -> Vec<String> {
    if !source.is_core() {
        return Vec::new();
    }
    let product = source.product();
    let banned = ["std", "mio", "libc", "lexopt"].into_iter();
    banned
        .filter(|name| words(&product).any(|word| word == *name))
        .map(|name| format!("uses {name}"))
        .collect()
}

/// The layers of the core, the lowest first; a module uses its own layer and those below.
const CORE_LAYERS: [&[&str]; 6] = [
    &[
        "bitfield", "limits", "rng", "size", "text", "units", "vec_map",
    ],
    &["format"],
    &["wire"],
    &["policy"],
    &["swarm"],
    &["sim"],
];

#[test]
fn core_layers_use_only_those_below() {
    assert_tidy(core_order);
    let bad = [
        "use crate::swarm::X;",
        "use crate::{wire::X, units};",
        "fn f() { crate::policy::g() }",
        "use crate::sim;",
    ];
    for bad in bad {
        assert_eq!(
            core_order(&Source::sample("src/proto/format/a.rs", bad)).len(),
            1,
            "{bad}"
        );
    }
    assert_eq!(
        core_order(&Source::sample("src/proto/units.rs", "use super::wire;")).len(),
        1
    );
    let good =
        "use crate::units::{wire, c};\nfn b() {}\n#[cfg(test)]\nmod tests { use crate::sim::x; }\n";
    assert!(core_order(&Source::sample("src/proto/format/b.rs", good)).is_empty());
    assert_eq!(
        core_order(&Source::sample("src/proto/z.rs", "")),
        ["is in no layer of the core"]
    );
}

fn core_order(source: &Source) -> Vec<String> {
    let inside = source.path.strip_prefix("src/proto/").unwrap_or_default();
    let own = inside.split(['/', '.']).next().unwrap_or_default();
    if !source.is_core() || own == "lib" {
        return Vec::new();
    }
    let layer_of = |module: &str| CORE_LAYERS.iter().position(|layer| layer.contains(&module));
    let Some(layer) = layer_of(own) else {
        return vec!["is in no layer of the core".into()];
    };
    let product = source.product();
    let mut used = paths_after(&product, "crate");
    if !inside.contains('/') {
        // Directly below the crate root, `super` is the root.
        used.extend(paths_after(&product, "super"));
    }
    let above = used
        .iter()
        .filter(|module| layer_of(module).is_some_and(|used| used > layer));
    above
        .map(|module| format!("uses {module}, a layer above {own}"))
        .collect()
}

#[test]
fn os_stands_below_everything() {
    assert_tidy(os_imports);
    let bad =
        "use crate::run;\nuse swarm_proto::wire::Message;\nuse swarm_proto::{limits, picker::P};\n";
    assert_eq!(
        os_imports(&Source::sample("src/os/a.rs", bad)),
        [
            "uses swarm_proto::picker",
            "uses swarm_proto::wire",
            "uses crate::run"
        ]
    );
    let good = "use swarm_proto::units::{DiskOffset, Ticket};\nuse swarm_proto::{limits, units};\nuse crate::os::pool;";
    assert!(os_imports(&Source::sample("src/os/a.rs", good)).is_empty());
}

fn os_imports(source: &Source) -> Vec<String> {
    if !source.path.starts_with("src/os/") {
        return Vec::new();
    }
    let product = source.product();
    let beyond = |root: &str, allowed: &[&str]| -> Vec<String> {
        let mut used = paths_after(&product, root);
        used.retain(|module| !allowed.contains(&module.as_str()));
        used.sort();
        used.dedup();
        used.iter()
            .map(|module| format!("uses {root}::{module}"))
            .collect()
    };
    [
        beyond("swarm_proto", &["units", "limits"]),
        beyond("crate", &["os"]),
    ]
    .concat()
}

#[test]
fn unsafe_stands_only_in_os() {
    assert_tidy(unsafe_place);
    let bad = "fn f() { unsafe { g() } }";
    assert_eq!(
        unsafe_place(&Source::sample("src/run.rs", bad)),
        ["line 1: unsafe outside src/os/"]
    );
    assert!(unsafe_place(&Source::sample("src/os/aio.rs", bad)).is_empty());
    assert!(
        unsafe_place(&Source::sample(
            "src/run.rs",
            "// unsafe\n#![forbid(unsafe_code)]\n"
        ))
        .is_empty()
    );
}

fn unsafe_place(source: &Source) -> Vec<String> {
    if !source.is_rust() || source.path.starts_with("src/os/") {
        return Vec::new();
    }
    let code = code(&source.text);
    lines_with_word(&code, &["unsafe"])
        .map(|(line, word)| format!("line {line}: {word} outside src/os/"))
        .collect()
}

#[test]
fn nothing_is_left_unfinished() {
    assert_tidy(leftovers);
    for bad in [
        "todo!()",
        "fn f() { unimplemented!(\"x\") }",
        "dbg!(x);",
        "#![allow(dead_code)]\n",
    ] {
        assert_eq!(
            leftovers(&Source::sample("src/a.rs", bad)).len(),
            1,
            "{bad}"
        );
    }
    let good = "// todo!() is banned\nfn f(todo: u8) -> bool { todo != 0 }\n#[allow(clippy::x)]\nfn g() {}\n";
    assert!(leftovers(&Source::sample("src/a.rs", good)).is_empty());
}

/// Macros of unfinished work, and permissions for a whole module.
fn leftovers(source: &Source) -> Vec<String> {
    if !source.is_rust() {
        return Vec::new();
    }
    let code = code(&source.text);
    let banned = ["todo!(", "unimplemented!(", "dbg!(", "#![allow"].into_iter();
    banned
        .filter(|text| code.contains(text))
        .map(|text| format!("has {text}"))
        .collect()
}

#[test]
fn every_rust_file_says_what_it_answers() {
    assert_tidy(first_line);
    assert_eq!(
        first_line(&Source::sample("src/a.rs", "use std::fs;\n")).len(),
        1
    );
    assert_eq!(
        first_line(&Source::sample("src/a.rs", "// A comment.\n")).len(),
        1
    );
    assert!(first_line(&Source::sample("src/a.rs", "//! How?\n")).is_empty());
    assert!(first_line(&Source::sample("scripts/a", "#!/bin/sh\n")).is_empty());
}

fn first_line(source: &Source) -> Vec<String> {
    let silent = source.is_rust() && !source.text.starts_with("//! ");
    if silent {
        vec!["does not begin with `//! ` and the question it answers".into()]
    } else {
        Vec::new()
    }
}

#[test]
fn no_line_is_too_long() {
    assert_tidy(long_lines);
    let long = "é".repeat(COLUMNS_MAX + 1);
    assert_eq!(
        long_lines(&Source::sample("src/a.rs", &long)),
        ["line 1 has 137 columns"]
    );
    assert_eq!(
        long_lines(&Source::sample("initramfs/lib.sh", &long)).len(),
        1
    );
    assert!(long_lines(&Source::sample("src/a.rs", &"é".repeat(COLUMNS_MAX))).is_empty());
    assert!(long_lines(&Source::sample("README.md", &long)).is_empty());
}

fn long_lines(source: &Source) -> Vec<String> {
    if !source.is_rust() && !source.is_script() {
        return Vec::new();
    }
    let columns = source
        .text
        .lines()
        .map(|line| line.chars().count())
        .zip(1..);
    columns
        .filter(|(width, _)| *width > COLUMNS_MAX)
        .map(|(width, n)| format!("line {n} has {width} columns"))
        .collect()
}

#[test]
fn scripts_stop_at_errors_and_can_be_run() {
    assert_tidy(script_manners);
    let script = |path: &str, text: &str, executable| Source {
        path: path.into(),
        text: text.into(),
        executable,
    };
    assert_eq!(
        script_manners(&script("scripts/a", "echo\n", false)),
        [
            "has no #! line",
            "has no line `set -eu`",
            "is not executable"
        ]
    );
    assert_eq!(
        script_manners(&script("initramfs/init", "#!/bin/sh\n", true)),
        ["has no line `set -u`"]
    );
    let good = "#!/bin/sh\n# What it is for.\nset -eu\n";
    assert!(script_manners(&script("scripts/build", good, true)).is_empty());
    assert!(script_manners(&script("initramfs/init", "#!/bin/sh\nset -u\n", true)).is_empty());
    assert!(script_manners(&script("initramfs/lib.sh", "# Read by others.\n", false)).is_empty());
    assert!(script_manners(&script("initramfs/files.list", "a\n", false)).is_empty());
    assert!(script_manners(&script("scripts/plot", "#!/usr/bin/python3\n", true)).is_empty());
}

fn script_manners(source: &Source) -> Vec<String> {
    // What others read in has their options and their interpreter; shellcheck is told which by a
    // directive.
    if !source.is_script() || source.is_library_script() {
        return Vec::new();
    }
    let interpreter = source
        .text
        .lines()
        .next()
        .and_then(|line| line.strip_prefix("#!"));
    let shell = interpreter.is_none_or(|interpreter| interpreter.ends_with("sh"));
    // The first process must never exit, so init has to go on after an error.
    let stop = if source.path == "initramfs/init" {
        "set -u"
    } else {
        "set -eu"
    };
    let stops = source.text.lines().any(|line| line == stop);
    let rules = [
        (interpreter.is_some(), "has no #! line".to_string()),
        (stops || !shell, format!("has no line `{stop}`")),
        (source.executable, "is not executable".to_string()),
    ];
    rules
        .into_iter()
        .filter(|(kept, _)| !kept)
        .map(|(_, complaint)| complaint)
        .collect()
}

#[test]
fn processes_are_ended_by_their_own_pid() {
    assert_tidy(broad_kills);
    assert_eq!(
        broad_kills(&Source::sample("scripts/serve", "pkill -f nginx\n")),
        ["line 1: pkill"]
    );
    assert_eq!(
        broad_kills(&Source::sample("tests/a.rs", "Command::new(\"killall\")")),
        ["line 1: killall"]
    );
    assert!(
        broad_kills(&Source::sample(
            "scripts/serve",
            "# no pkill here\nkill \"$pid\"\n"
        ))
        .is_empty()
    );
}

/// By name one ends the work of others too. In Rust the names stand in string literals; this file
/// is excepted.
fn broad_kills(source: &Source) -> Vec<String> {
    if !(source.is_rust() || source.is_script()) || source.path == "tests/tidy.rs" {
        return Vec::new();
    }
    let comment = if source.is_rust() { "//" } else { "#" };
    let blank = |line| {
        if str::trim_start(line).starts_with(comment) {
            ""
        } else {
            line
        }
    };
    let text = source
        .text
        .lines()
        .map(blank)
        .collect::<Vec<_>>()
        .join("\n");
    lines_with_word(&text, &["pkill", "killall"])
        .map(|(line, word)| format!("line {line}: {word}"))
        .collect()
}

#[test]
fn the_product_has_five_crates() {
    assert_tidy(|source| {
        if source.path == "Cargo.toml" {
            crates(&source.text)
        } else {
            Vec::new()
        }
    });
    let five: String = CRATES
        .iter()
        .map(|name| format!("{name} = \"1\"\n"))
        .collect();
    assert!(
        crates(&format!(
            "[package]\nname = \"x\"\n[dependencies]\n# why\n{five}[profile.dev]\n"
        ))
        .is_empty()
    );
    assert_eq!(
        crates(&format!("[dependencies]\n{five}serde = \"1\"\n")).len(),
        1
    );
    assert_eq!(crates("[dependencies]\nmio = \"1\"\n").len(), 1);
    for section in [
        "dev-dependencies",
        "build-dependencies",
        "target.'cfg(unix)'.dependencies",
        "dependencies.serde",
    ] {
        assert_eq!(
            crates(&format!("[dependencies]\n{five}[{section}]\n")).len(),
            1,
            "{section}"
        );
    }
}

fn crates(manifest: &str) -> Vec<String> {
    let mut section = "";
    let (mut names, mut complaints) = (Vec::new(), Vec::new());
    for line in manifest
        .lines()
        .map(str::trim)
        .filter(|line| !line.starts_with('#'))
    {
        if let Some(name) = line.strip_prefix('[') {
            section = name.trim_end_matches(']');
            if section.contains("dependencies") && section != "dependencies" {
                complaints.push(format!("has a section [{section}]"));
            }
        } else if let ("dependencies", Some((name, _))) = (section, line.split_once('=')) {
            names.push(name.trim());
        }
    }
    names.sort();
    if names != CRATES {
        complaints.push(format!("[dependencies] are {names:?}, not {CRATES:?}"));
    }
    complaints
}

/// The text with every comment and every literal turned into blanks; lines stay where they are.
fn code(text: &str) -> String {
    let letters: Vec<char> = text.chars().collect();
    let mut code = String::new();
    let mut at = 0;
    while at < letters.len() {
        let blanks = blank_length(&letters[at..], code.chars().next_back());
        code.extend(
            letters[at..at + blanks]
                .iter()
                .map(|&letter| if letter == '\n' { '\n' } else { ' ' }),
        );
        if blanks == 0 {
            code.push(letters[at]);
        }
        at += blanks.max(1);
    }
    code
}

/// Length of the comment or literal that begins here, 0 if none does.
fn blank_length(rest: &[char], before: Option<char>) -> usize {
    let in_word = before.is_some_and(is_word_letter);
    match rest {
        ['/', '/', ..] => rest
            .iter()
            .position(|&letter| letter == '\n')
            .unwrap_or(rest.len()),
        ['/', '*', ..] => find(rest, &['*', '/'], 2),
        ['"', ..] => string_length(rest),
        ['r', '"' | '#', ..] if !in_word => raw_string_length(rest),
        // A character, and not a lifetime: `'\x'` or `'x'`.
        ['\'', '\\', _, ..] => find(rest, &['\''], 3),
        ['\'', _, '\'', ..] => 3,
        _ => 0,
    }
}

fn find(rest: &[char], wanted: &[char], from: usize) -> usize {
    let found = rest[from..]
        .windows(wanted.len())
        .position(|window| window == wanted);
    found.map_or(rest.len(), |position| from + position + wanted.len())
}

fn string_length(rest: &[char]) -> usize {
    let mut at = 1;
    while at < rest.len() && rest[at] != '"' {
        at += if rest[at] == '\\' { 2 } else { 1 };
    }
    (at + 1).min(rest.len())
}

/// `r"…"`, `r#"…"#` and so on; 0 for a raw identifier such as `r#type`.
fn raw_string_length(rest: &[char]) -> usize {
    let hashes = rest[1..]
        .iter()
        .take_while(|&&letter| letter == '#')
        .count();
    if rest.get(1 + hashes) != Some(&'"') {
        return 0;
    }
    let end: Vec<char> = std::iter::once('"')
        .chain(std::iter::repeat_n('#', hashes))
        .collect();
    find(rest, &end, 2 + hashes)
}

/// Drops each item after `#[cfg(test)]`: up to its `;`, or up to the `}` that closes its first `{`.
fn without_tests(code: &str) -> String {
    let Some((before, item)) = code.split_once("#[cfg(test)]") else {
        return code.to_string();
    };
    let mut depth = 0;
    let end = item.find(|letter| {
        depth += i32::from(letter == '{') - i32::from(letter == '}');
        depth == 0 && (letter == '}' || letter == ';')
    });
    format!(
        "{before}{}",
        without_tests(end.map_or("", |end| &item[end + 1..]))
    )
}

#[test]
fn code_is_told_from_text() {
    for (text, expected) in [
        ("a // b\nc", "a     \nc"),
        ("a /* b\n */c", "a     \n   c"),
        (
            "f(\"x\\\"y\") + 'a' + '\\'' + z",
            "f(      ) +     +      + z",
        ),
        ("r#\"a\"b\"# r\"\\\" for", "              for"),
        ("r#type + bar\"x\"", "r#type + bar   "),
        ("fn f<'a>(x: &'a str)", "fn f<'a>(x: &'a str)"),
        ("\"open", "     "),
    ] {
        assert_eq!(code(text), expected, "{text}");
    }
    let product = without_tests(
        "a;\n#[cfg(test)]\nmod sim;\nb;\n#[cfg(test)]\nmod tests {\n fn f() {}\n}\nc;",
    );
    assert_eq!(
        product.split_whitespace().collect::<Vec<_>>(),
        ["a;", "b;", "c;"]
    );
}

fn is_word_letter(letter: char) -> bool {
    letter.is_alphanumeric() || letter == '_'
}

fn words(code: &str) -> impl Iterator<Item = &str> {
    code.split(|letter| !is_word_letter(letter))
        .filter(|word| !word.is_empty())
}

fn lines_with_word<'a>(
    text: &'a str,
    wanted: &'a [&'a str],
) -> impl Iterator<Item = (usize, &'a str)> {
    let hits = |(line, n)| {
        words(line)
            .filter(|word| wanted.contains(word))
            .map(move |word| (n, word))
    };
    text.lines().zip(1..).flat_map(hits)
}

/// The first names behind `root::`, also those of `root::{a::X, b}`.
fn paths_after(code: &str, root: &str) -> Vec<String> {
    let marker = format!("{root}::");
    let mut names = Vec::new();
    for (position, _) in code.match_indices(&marker) {
        let behind = &code[position + marker.len()..];
        match behind.strip_prefix('{') {
            // `mycrate::x` is another root.
            _ if code[..position].ends_with(is_word_letter) => {}
            Some(group) => names.extend(group_heads(group)),
            None => names.extend(words(behind).next().map(String::from)),
        }
    }
    names
}

/// The first name of each member of a group whose `{` has been read: `a::{b, c}, d}` gives `a` and
/// `d`.
fn group_heads(group: &str) -> Vec<String> {
    let mut depth = 0;
    let mut heads = vec![String::new()];
    for letter in group.chars() {
        match letter {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => heads.push(String::new()),
            _ if depth == 0 => heads.last_mut().expect("never empty").push(letter),
            _ => {}
        }
    }
    heads
        .iter()
        .filter_map(|head| words(head).next().map(String::from))
        .collect()
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Every text file that could be ours: what cargo and git make is left out.
fn repository() -> Vec<Source> {
    let mut sources = Vec::new();
    collect(root(), &mut sources);
    sources
}

fn collect(directory: &Path, sources: &mut Vec<Source>) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if path.is_symlink() || name == "target" || name == ".git" {
            continue;
        }
        if path.is_dir() {
            collect(&path, sources);
        } else if path.metadata().unwrap().len() < SOURCE_BYTES_MAX
            && let Ok(text) = fs::read_to_string(&path)
        {
            let executable = path.metadata().unwrap().permissions().mode() & 0o100 != 0;
            let path = path
                .strip_prefix(root())
                .unwrap()
                .to_string_lossy()
                .into_owned();
            sources.push(Source {
                path,
                text,
                executable,
            });
        }
    }
}

/// What is larger is an image or a build product that somebody left here, not source text.
const SOURCE_BYTES_MAX: u64 = 1 << 20;
