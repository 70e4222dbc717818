//! In which direction may code depend on code, and where may `unsafe` stand?

use std::collections::{BTreeMap, BTreeSet};

use crate::assert_tidy;
use crate::source::{Source, code, lines_with_word, paths_after, repository, words};

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
const CORE_LAYERS: &[&[&str]] = &[
    &[
        "bitfield", "limits", "rng", "size", "text", "units", "vec_map",
    ],
    &["format"],
    &["wire"],
    &["policy"],
    &["swarm"],
    &["sim"],
];

/// The layers of the shell, likewise.
const SHELL_LAYERS: &[&[&str]] = &[
    &["os"],
    &["net", "storage", "target", "report"],
    &["agent"],
    &["cmd"],
    &["cli"],
    &["main"],
];

#[test]
fn layers_use_only_those_below() {
    assert_tidy(layer_order);
    let bad = [
        "use crate::swarm::X;",
        "use crate::{wire::X, units};",
        "fn f() { crate::policy::g() }",
        "use crate::sim;",
    ];
    for bad in bad {
        let complaints = layer_order(&Source::sample("src/proto/format/a.rs", bad));
        assert_eq!(complaints.len(), 1, "{bad}");
    }
    let words = Source::sample("src/proto/units.rs", "use super::wire;");
    assert_eq!(layer_order(&words).len(), 1);
    let good =
        "use crate::units::{wire, c};\nfn b() {}\n#[cfg(test)]\nmod tests { use crate::sim::x; }\n";
    assert!(layer_order(&Source::sample("src/proto/format/b.rs", good)).is_empty());
    assert_eq!(
        layer_order(&Source::sample("src/proto/z.rs", "")),
        ["is in no layer"]
    );
    let shell = |path, text| layer_order(&Source::sample(path, text)).len();
    assert_eq!(shell("src/net/http.rs", "use crate::agent::Settings;"), 1);
    assert_eq!(shell("src/cmd/get.rs", "use crate::cli::Command;"), 1);
    assert_eq!(shell("src/cli/mod.rs", "use crate::cmd::Command;"), 0);
}

fn layer_order(source: &Source) -> Vec<String> {
    let (layers, inside) = match source.path.strip_prefix("src/proto/") {
        Some(inside) => (CORE_LAYERS, inside),
        None => (
            SHELL_LAYERS,
            source.path.strip_prefix("src/").unwrap_or_default(),
        ),
    };
    let own = inside.split(['/', '.']).next().unwrap_or_default();
    if !source.is_product() || own == "lib" {
        return Vec::new();
    }
    let layer_of = |module: &str| layers.iter().position(|layer| layer.contains(&module));
    let Some(layer) = layer_of(own) else {
        return vec!["is in no layer".into()];
    };
    let product = source.product();
    let mut used = first_names(&product, "crate");
    if !inside.contains('/') {
        // Directly below the crate root, `super` is the root.
        used.extend(first_names(&product, "super"));
    }
    let above = used
        .iter()
        .filter(|module| layer_of(module).is_some_and(|used| used > layer));
    above
        .map(|module| format!("uses {module}, a layer above {own}"))
        .collect()
}

/// The modules directly below `root` that the code names, each once.
fn first_names(code: &str, root: &str) -> Vec<String> {
    let mut names: Vec<String> = paths_after(code, root)
        .into_iter()
        .filter_map(|path| path.into_iter().next())
        .collect();
    names.sort();
    names.dedup();
    names
}

#[test]
fn no_circles() {
    let sources = repository();
    assert_eq!(circle(&uses_by_file(&sources)), None);
    assert_eq!(circle(&uses_by_folder(&sources)), None);

    let sample = |second: &str| {
        [
            Source::sample("src/proto/sim/a.rs", "use super::b::X;"),
            Source::sample("src/proto/sim/b.rs", second),
            Source::sample("src/proto/sim/c.rs", "use super::X; use crate::sim::a;"),
        ]
    };
    assert_eq!(circle(&uses_by_file(&sample("use crate::units;"))), None);
    let files = uses_by_file(&sample("use crate::{units, sim::c::C};"));
    let found = circle(&files).expect("a uses b, b uses c, c uses a");
    assert!(
        found.contains("src/proto/sim/b.rs -> src/proto/sim/c.rs"),
        "{found}"
    );
    let folders = [
        Source::sample("src/net/a.rs", "use crate::target::X;"),
        Source::sample("src/target/mod.rs", "use crate::net::b;"),
        Source::sample("src/net/b.rs", ""),
    ];
    assert!(circle(&uses_by_folder(&folders)).is_some());
}

/// What each file uses: paths to paths. A file and the `mod.rs` above it count as one thing, since
/// a folder may spread the methods of one type over its files.
fn uses_by_file(sources: &[Source]) -> BTreeMap<String, BTreeSet<String>> {
    let files: BTreeSet<&str> = sources.iter().map(|source| source.path.as_str()).collect();
    let rust = sources.iter().filter(|source| {
        source.path.starts_with("src/") && source.is_rust() && !source.path.ends_with("tests.rs")
    });
    let used_by = |source: &Source| {
        let mut used: BTreeSet<String> = used_files(source, &files).collect();
        used.retain(|file| *file != source.path && !is_parent(file, &source.path));
        (source.path.clone(), used)
    };
    rust.map(used_by).collect()
}

fn uses_by_folder(sources: &[Source]) -> BTreeMap<String, BTreeSet<String>> {
    let folder = |path: &str| {
        path.rsplit_once('/')
            .map_or(path, |(folder, _)| folder)
            .to_string()
    };
    let mut folders: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for (file, used) in uses_by_file(sources) {
        let own = folder(&file);
        let others = used
            .iter()
            .map(|file| folder(file))
            .filter(|used| *used != own);
        // The root of a crate names its folders, and is not one of them.
        if own != "src" && own != "src/proto" {
            folders.entry(own.clone()).or_default().extend(others);
        }
    }
    folders
}

fn is_parent(file: &str, child: &str) -> bool {
    file.strip_suffix("mod.rs")
        .is_some_and(|folder| child.starts_with(folder))
}

/// The files behind the paths that a file names.
fn used_files<'a>(source: &'a Source, files: &'a BTreeSet<&str>) -> impl Iterator<Item = String> {
    let code = if source.is_product() {
        source.product()
    } else {
        code(&source.text)
    };
    let own_root = if source.path.starts_with("src/proto/") {
        "src/proto"
    } else {
        "src"
    };
    let folder = source
        .path
        .rsplit_once('/')
        .map_or("", |(folder, _)| folder)
        .to_string();
    // In `a/mod.rs` `super` is what holds the folder `a`, in `a/b.rs` it is `a`.
    let above = match source.path.ends_with("/mod.rs") {
        true => folder
            .rsplit_once('/')
            .map_or("", |(above, _)| above)
            .to_string(),
        false => folder.clone(),
    };
    let roots = [
        ("crate", own_root.to_string()),
        ("swarm_proto", "src/proto".to_string()),
        ("super", above),
        ("self", folder),
    ];
    roots.into_iter().flat_map(move |(root, place)| {
        let paths = paths_after(&code, root);
        paths
            .into_iter()
            .filter_map(move |path| file_of(&place, &path, files))
            .collect::<Vec<_>>()
    })
}

/// The longest beginning of a path that is a file: `[wire, http, Url]` is `wire/http.rs`.
fn file_of(place: &str, path: &[String], files: &BTreeSet<&str>) -> Option<String> {
    (1..=path.len()).rev().find_map(|count| {
        let module = format!("{place}/{}", path[..count].join("/"));
        [format!("{module}.rs"), format!("{module}/mod.rs")]
            .into_iter()
            .find(|file| files.contains(file.as_str()))
    })
}

/// Two steps of a circle, if there is one: leaves are taken away until nothing is left or nothing
/// can be taken away.
fn circle(uses: &BTreeMap<String, BTreeSet<String>>) -> Option<String> {
    let mut left = uses.clone();
    loop {
        let names: BTreeSet<String> = left.keys().cloned().collect();
        left.values_mut()
            .for_each(|used| used.retain(|name| names.contains(name)));
        let count = left.len();
        left.retain(|_, used| !used.is_empty());
        if left.is_empty() {
            return None;
        }
        if left.len() == count {
            let steps = left.iter().map(|(name, used)| {
                let used: Vec<&str> = used.iter().map(String::as_str).collect();
                format!("{name} -> {}", used.join(", "))
            });
            return Some(steps.collect::<Vec<_>>().join("\n"));
        }
    }
}

#[test]
fn os_uses_nothing_above_it() {
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
        let mut used = first_names(&product, root);
        used.retain(|module| !allowed.contains(&module.as_str()));
        used.iter()
            .map(|module| format!("uses {root}::{module}"))
            .collect()
    };
    // A `Device` keeps where the blocks of a packed image are (`format::lz4_frame`), so that its
    // readers need not know.
    [
        beyond("swarm_proto", &["units", "limits", "size", "format"]),
        beyond("crate", &["os"]),
    ]
    .concat()
}

/// The allocator in src/os/heap.rs has no lock.
#[test]
fn the_agent_has_one_thread() {
    assert_tidy(new_threads);
    let bad =
        "use std::thread;\nfn f() { thread::scope(g); thread::sleep(h); Builder::new().spawn(i); }";
    assert_eq!(
        new_threads(&Source::sample("src/run.rs", bad)),
        [
            "line 2: scope starts a thread",
            "line 2: spawn starts a thread"
        ]
    );
}

fn new_threads(source: &Source) -> Vec<String> {
    if !source.is_product() {
        return Vec::new();
    }
    let code = source.product();
    lines_with_word(&code, &["spawn", "spawn_unchecked", "scope"])
        .map(|(line, word)| format!("line {line}: {word} starts a thread"))
        .collect()
}

/// What std does in other ways costs 10 KiB: src/os/file.rs, whole.rs and directory.rs say why.
#[test]
fn files_are_opened_by_os() {
    assert_tidy(files_of_std);
    let bad = "fn f() { std::fs::read(a); fs::read_dir(b); File::open(c); d.canonicalize(); }";
    assert_eq!(
        files_of_std(&Source::sample("src/cmd/a.rs", bad)),
        [
            "line 1: fs::read( is in os already",
            "line 1: fs::read_dir( is in os already",
            "line 1: File::open( is in os already",
            "line 1: .canonicalize( is in os already"
        ]
    );
    let good = "fn f() { file::open(a); fs::read_link(b); }\n#[cfg(test)]\nmod tests {\n    fn g() { fs::read(c); }\n}\n";
    assert!(files_of_std(&Source::sample("src/cmd/a.rs", good)).is_empty());
}

fn files_of_std(source: &Source) -> Vec<String> {
    const CALLS: [&str; 10] = [
        "fs::read(",
        "fs::read_to_string(",
        "fs::write(",
        "fs::read_dir(",
        "fs::canonicalize(",
        "File::open(",
        "File::options(",
        "File::create",
        "OpenOptions::",
        ".canonicalize(",
    ];
    if !source.is_product() || source.path.ends_with("/testing.rs") {
        return Vec::new();
    }
    let code = source.product();
    let calls = |(line, n): (&str, usize)| {
        CALLS
            .iter()
            .filter(move |call| line.contains(*call))
            .map(move |call| format!("line {n}: {call} is in os already"))
            .collect::<Vec<_>>()
    };
    code.lines().zip(1..).flat_map(calls).collect()
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
