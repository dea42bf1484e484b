//! The rules of the house, read from the source: one direction of dependencies, and a pure core.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// Modules that are values alone.
const PURE: [&str; 5] = ["protocol", "app", "hub", "mirror", "connection"];

/// What a pure module has no business with.
const IMPURE: [&str; 10] = [
    "tokio",
    "actix",
    "rand::",
    "Mutex",
    "RwLock",
    "Atomic",
    "Instant::now",
    "SystemTime::now",
    "std::net",
    "std::env",
];

/// The source of each module, without its tests, by module and file.
fn sources() -> BTreeMap<String, Vec<(PathBuf, String)>> {
    let mut sources: BTreeMap<String, Vec<(PathBuf, String)>> = BTreeMap::new();
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut folders = vec![root.clone()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).expect("a folder") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let inside = path.strip_prefix(&root).expect("below src");
            let first = inside.components().next().expect("a name").as_os_str().to_string_lossy();
            let module = first.trim_end_matches(".rs").to_owned();
            if inside.ends_with("tests.rs") {
                continue;
            }
            let text = fs::read_to_string(&path).expect("a file");
            let code = text.split("#[cfg(test)]\nmod tests {").next().expect("a first part").to_owned();
            sources.entry(module).or_default().push((path, code));
        }
    }
    sources
}

/// The modules in reading order, as `lib.rs` lists them.
fn reading_order() -> Vec<String> {
    let lib = include_str!("../../src/lib.rs");
    let names = lib.lines().filter_map(|line| line.strip_prefix("pub mod ")?.strip_suffix(';'));
    names.map(str::to_owned).collect()
}

#[test]
fn a_module_uses_only_those_above_it() {
    let order = reading_order();
    let rank = |name: &str| order.iter().position(|module| module == name);
    assert_eq!(order.first().map(String::as_str), Some("protocol"));
    let mut uses = 0;
    for (module, files) in sources() {
        let Some(own) = rank(&module) else {
            assert!(["lib", "main"].contains(&&*module), "src/lib.rs does not list {module}");
            continue;
        };
        for (path, code) in files {
            for used in code.split("crate::").skip(1) {
                let name: String = used.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
                let other = rank(&name).unwrap_or_else(|| panic!("{}: crate::{name}", path.display()));
                assert!(other <= own, "{} uses {name}, which comes after {module}", path.display());
                uses += 1;
            }
        }
    }
    assert!(uses > 50, "{uses} uses: the source was not read");
}

#[test]
fn the_core_has_no_sockets_clocks_randomness_or_locks() {
    let sources = sources();
    for module in PURE {
        for (path, code) in &sources[module] {
            for line in code.lines().filter(|line| !line.trim_start().starts_with("//")) {
                let found = IMPURE.iter().find(|word| line.contains(*word));
                assert_eq!(found, None, "{}: {line}", path.display());
            }
        }
    }
}

#[test]
fn only_the_configuration_reads_the_environment() {
    for (module, files) in sources() {
        for (path, code) in files {
            let reads = code.contains("env::var");
            // The command line hands the environment to the configuration.
            assert!(!reads || module == "cli", "{}", path.display());
        }
    }
}
