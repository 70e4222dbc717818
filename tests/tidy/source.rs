//! The files of the repository as text: what is code, what is a comment or a literal, and which
//! paths the code names.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

/// One file of the repository.
pub struct Source {
    /// Relative to the repository, with `/`.
    pub path: String,
    pub text: String,
    pub executable: bool,
}

impl Source {
    pub fn sample(path: &str, text: &str) -> Source {
        Source {
            path: path.into(),
            text: text.into(),
            executable: false,
        }
    }

    pub fn is_rust(&self) -> bool {
        self.path.ends_with(".rs")
    }

    /// A script by its place and name; lists and configuration files have other extensions.
    pub fn is_script(&self) -> bool {
        let (directory, name) = self.path.rsplit_once('/').unwrap_or(("", &self.path));
        let place = directory.split('/').next().unwrap_or_default();
        let placed = ["scripts", "initramfs", "qemu-tests", ".ci"].contains(&place);
        placed && (name.ends_with(".sh") || !name.contains('.'))
    }

    /// Read by other scripts.
    pub fn is_library_script(&self) -> bool {
        self.path.ends_with(".sh")
    }

    /// Rust that goes into the product: not the simulator, not files of tests.
    pub fn is_product(&self) -> bool {
        self.is_rust()
            && self.path.starts_with("src/")
            && !self.path.starts_with("src/proto/sim")
            && !self.path.ends_with("tests.rs")
            && !self.path.contains("/tests/")
    }

    /// The core proper: the simulator is compiled for tests only.
    pub fn is_core(&self) -> bool {
        self.is_rust()
            && self.path.starts_with("src/proto/")
            && !self.path.starts_with("src/proto/sim")
    }

    /// The Rust code that goes into the product, without comments, literals and `#[cfg(test)]`
    /// items.
    pub fn product(&self) -> String {
        without_tests(&code(&self.text))
    }
}

/// The text with every comment and every literal turned into blanks; lines stay where they are.
pub fn code(text: &str) -> String {
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
pub fn without_tests(code: &str) -> String {
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

pub fn is_word_letter(letter: char) -> bool {
    letter.is_alphanumeric() || letter == '_'
}

pub fn words(code: &str) -> impl Iterator<Item = &str> {
    code.split(|letter| !is_word_letter(letter))
        .filter(|word| !word.is_empty())
}

pub fn lines_with_word<'a>(
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

/// The paths that begin with `root`, each as its segments without the root; groups are taken apart:
/// `root::{a::X, b}` gives `[a, X]` and `[b]`.
pub fn paths_after(code: &str, root: &str) -> Vec<Vec<String>> {
    let marker = format!("{root}::");
    let mut paths = Vec::new();
    for (position, _) in code.match_indices(&marker) {
        let before = &code[..position];
        // `mycrate::x` is another root, and `a::super::b` is a path that begins earlier.
        if !before.ends_with(is_word_letter) && !before.ends_with("::") {
            take_tree(
                &code[position + marker.len()..],
                &mut Vec::new(),
                &mut paths,
            );
        }
    }
    paths
}

/// Reads one use tree, adds its paths behind `prefix`, and returns what follows it.
fn take_tree<'a>(text: &'a str, prefix: &mut Vec<String>, paths: &mut Vec<Vec<String>>) -> &'a str {
    let text = text.trim_start();
    if let Some(mut group) = text.strip_prefix('{') {
        loop {
            group = group.trim_start_matches([',', ' ', '\n']);
            if group.is_empty() || group.starts_with('}') {
                return group.get(1..).unwrap_or_default();
            }
            let depth = prefix.len();
            let rest = take_tree(group, prefix, paths);
            prefix.truncate(depth);
            // Skips `as name` and whatever else stands before the next member.
            group = rest.trim_start_matches(|letter| letter != ',' && letter != '}');
        }
    }
    let end = text
        .find(|letter| !is_word_letter(letter))
        .unwrap_or(text.len());
    let (word, rest) = text.split_at(end);
    if !word.is_empty() {
        prefix.push(word.to_string());
    }
    match rest.strip_prefix("::") {
        Some(rest) if !word.is_empty() => take_tree(rest, prefix, paths),
        _ => {
            paths.push(prefix.clone());
            rest
        }
    }
}

#[test]
fn paths_are_taken_apart() {
    let paths = |code: &str| -> Vec<String> {
        paths_after(code, "crate")
            .iter()
            .map(|path| path.join("."))
            .collect()
    };
    assert_eq!(paths("use crate::a::b; crate::c()"), ["a.b", "c"]);
    assert_eq!(
        paths("use crate::{a::{X, y::Z as Q}, b, d::*}; mycrate::n"),
        ["a.X", "a.y.Z", "b", "d"]
    );
}

pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Every text file that could be ours: what cargo and git make is left out.
pub fn repository() -> Vec<Source> {
    let mut sources = Vec::new();
    collect(root(), &mut sources);
    sources
}

fn collect(directory: &Path, sources: &mut Vec<Source>) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        // `src/target` is ours.
        let made = directory == root() && (name == "target" || name == ".git");
        if path.is_symlink() || made || name == "__pycache__" {
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
