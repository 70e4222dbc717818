//! Does the source text keep the rules that no compiler checks: direction of dependencies
//! (`layers`), `pub` that nothing uses (`dead`), which crates there are, what every file and every
//! script begins with, how long lines and files are? Clippy checks what it can: see `[lints]` in
//! Cargo.toml.
//!
//! Each rule is a function from text to complaints. It is run over the whole repository, and once
//! over a bad sample: a check that cannot fail is a defect.

mod dead;
mod layers;
mod source;

use source::{Source, code, lines_with_word, repository, root};

/// For code and comments. A literal may be longer: it is clearer whole.
const COLUMNS_MAX: usize = 100;

/// Non-blank lines of a file before its tests. Longer ones answer more than one question.
const FILE_LINES_MAX: usize = 500;

const CRATES: [&str; 5] = ["crc32fast", "lexopt", "libc", "mio", "sha1_smol"];

#[track_caller]
fn assert_tidy(rule: impl Fn(&Source) -> Vec<String>) {
    let sources = repository();
    assert!(
        sources.iter().any(|source| source.path == "src/main.rs"),
        "this is not the repository"
    );
    assert!(
        sources
            .iter()
            .any(|source| source.path == "src/target/mod.rs"),
        "a folder of ours is called like Cargo's"
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
fn no_module_wide_allow() {
    assert_tidy(module_allows);
    let bad = Source::sample("src/a.rs", "#![allow(dead_code)]\n");
    assert_eq!(module_allows(&bad), ["has #![allow"]);
    let good = Source::sample("src/a.rs", "#[allow(clippy::x)]\nfn g() {}\n");
    assert!(module_allows(&good).is_empty());
}

/// One hides every later mistake of its kind in the file.
fn module_allows(source: &Source) -> Vec<String> {
    let has = source.is_rust() && code(&source.text).contains("#![allow");
    has.then(|| "has #![allow".into()).into_iter().collect()
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
    for path in ["src/a.rs", "initramfs/lib.sh", "scripts/a.py", "README.md"] {
        let complaints = long_lines(&Source::sample(path, &long));
        assert_eq!(complaints, ["line 1 has 101 columns"], "{path}");
    }
    assert_eq!(
        long_lines(&Source::sample("initramfs/a.sh", &"\t".repeat(26))).len(),
        1
    );
    let literal = format!("    assert_eq!(x, \"{long}\");");
    let table = format!("| {long} |");
    for (path, text) in [
        ("src/a.rs", "é".repeat(COLUMNS_MAX)),
        ("src/a.rs", literal),
        ("README.md", table),
        ("initramfs/files.list", long),
    ] {
        assert!(
            long_lines(&Source::sample(path, &text)).is_empty(),
            "{text}"
        );
    }
}

fn long_lines(source: &Source) -> Vec<String> {
    let prose = source.path.ends_with(".md");
    let python = source.path.ends_with(".py");
    if !(source.is_rust() || source.is_script() || python || prose) {
        return Vec::new();
    }
    let bare = if source.is_rust() {
        code(&source.text)
    } else {
        source.text.clone()
    };
    let may_be_long = |line: &str, bare: &str| match prose {
        // A row of a table.
        true => line.starts_with('|'),
        // A literal is clearer whole.
        false => !line.trim_start().starts_with("//") && line != bare,
    };
    let lines = source.text.lines().zip(bare.lines()).zip(1..);
    lines
        .filter(|((line, bare), _)| width(line) > COLUMNS_MAX && !may_be_long(line, bare))
        .map(|((line, _), n)| format!("line {n} has {} columns", width(line)))
        .collect()
}

/// A tab is four columns wide.
fn width(line: &str) -> usize {
    line.chars()
        .map(|letter| if letter == '\t' { 4 } else { 1 })
        .sum()
}

#[test]
fn no_file_is_too_long() {
    assert_tidy(long_file);
    let lines = |count| "x;\n\n".repeat(count);
    let long = Source::sample("src/a.rs", &lines(FILE_LINES_MAX + 1));
    assert_eq!(long_file(&long), ["has 501 lines before its tests"]);
    let tested = format!(
        "{}#[cfg(test)]\nmod tests {{\n{}}}\n",
        lines(FILE_LINES_MAX),
        lines(9)
    );
    assert!(long_file(&Source::sample("src/a.rs", &tested)).is_empty());
    assert!(long_file(&Source::sample("tests/a.rs", &lines(FILE_LINES_MAX + 1))).is_empty());
}

fn long_file(source: &Source) -> Vec<String> {
    let production = source.is_rust() && source.path.starts_with("src/");
    let mut tests_begin = false;
    let lines = source.text.lines();
    let count = lines
        .filter(|line| {
            tests_begin |= line.starts_with("mod tests {")
                || line.starts_with("pub(crate) mod tests {")
                || line.starts_with("pub(super) mod tests {");
            !tests_begin && !line.trim().is_empty()
        })
        .count();
    // The attribute of the test module, which stands on the line before it.
    let count = count - usize::from(tests_begin);
    let long = production && !source.path.ends_with("tests.rs") && count > FILE_LINES_MAX;
    long.then(|| format!("has {count} lines before its tests"))
        .into_iter()
        .collect()
}

#[test]
fn the_page_of_the_core_names_its_modules() {
    let lib = std::fs::read_to_string(root().join("src/proto/lib.rs")).unwrap();
    assert_eq!(unnamed_modules(&lib), Vec::<String>::new());
    let sample = "//! ```text\n//! a b    words\n//! c/     bytes\n//! ```\nmod a;\npub mod d;\n";
    assert_eq!(unnamed_modules(sample), ["b", "c", "d"]);
}

/// Modules that stand only in the list of the crate's documentation, or only in the code.
fn unnamed_modules(lib: &str) -> Vec<String> {
    let list = lib
        .split("```text")
        .nth(1)
        .and_then(|text| text.split("```").next());
    let rows = list
        .unwrap_or_default()
        .lines()
        .filter_map(|line| line.strip_prefix("//! "));
    // What follows two blanks says what the modules are.
    let told = rows.flat_map(|row| row.split("  ").next().unwrap_or_default().split(' '));
    let told: Vec<String> = told.map(|name| name.trim_end_matches('/').into()).collect();
    let module = |line: &str| {
        let name = line.trim_start_matches("pub ").strip_prefix("mod ")?;
        Some(name.strip_suffix(';')?.to_string())
    };
    let modules: Vec<String> = lib.lines().filter_map(module).collect();
    let missing = |from: &[String], others: &[String]| -> Vec<String> {
        from.iter()
            .filter(|name| !name.is_empty() && !others.contains(name))
            .cloned()
            .collect()
    };
    [missing(&told, &modules), missing(&modules, &told)].concat()
}

#[test]
fn the_readme_names_files_that_exist() {
    let exists = |path: &str| root().join(path).exists();
    for page in ["README.md", "scripts/bench/README.md"] {
        let text = std::fs::read_to_string(root().join(page)).unwrap();
        let missing: Vec<String> = named_paths(&text).filter(|path| !exists(path)).collect();
        assert_eq!(missing, Vec::<String>::new(), "{page}");
    }
    let sample = "`src/a.rs` and `scripts/b --c` and scripts/d. `tests/e.rs:5` `x src/f`";
    let named: Vec<String> = named_paths(sample).collect();
    assert_eq!(
        named,
        ["src/a.rs", "scripts/b", "scripts/d", "tests/e.rs", "src/f"]
    );
}

/// Words that look like a path in this repository.
fn named_paths(text: &str) -> impl Iterator<Item = String> {
    let word = |letter: char| letter.is_alphanumeric() || "/._-".contains(letter);
    let words = text.split(move |letter| !word(letter));
    let folders = ["src/", "scripts/", "initramfs/", "qemu-tests/", "tests/"];
    words
        .map(|word| word.trim_end_matches('.'))
        .filter(move |word| folders.iter().any(|folder| word.starts_with(folder)))
        .map(String::from)
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
    if !(source.is_rust() || source.is_script()) || source.path.starts_with("tests/tidy/") {
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
