//! What a package brings beside the binary: completions of shells, and the manual.

use std::collections::BTreeSet;
use std::fs;

use crate::support::run;

/// Names below a heading of a manual page, as in `fanfare\-app(1)`.
fn pages_named(page: &str) -> Vec<String> {
    let names = page.replace("\\-", "-");
    names.lines().filter_map(|line| line.strip_suffix("(1)")).map(|name| format!("{name}.1")).collect()
}

#[test]
fn every_shell_gets_a_script_that_knows_the_commands() {
    for shell in ["bash", "elvish", "fish", "powershell", "zsh"] {
        let printed = run(&["completions", shell], &[]);
        assert_eq!(printed.code, Some(0), "{printed:?}");
        for word in ["serve", "healthcheck", "rotate", "completions"] {
            assert!(printed.stdout.contains(word), "{word} is not in that for {shell}");
        }
    }
    let unknown = run(&["completions", "tcsh"], &[]);
    assert!(unknown.code == Some(2) && unknown.stderr.contains("zsh"), "{unknown:?}");
}

#[test]
fn every_command_that_a_page_names_has_a_page() {
    let folder = tempfile::tempdir().expect("a folder");
    let out = folder.path().join("new/man");
    let written = run(&["man", "--out", out.to_str().expect("UTF-8")], &[]);
    assert_eq!(written.code, Some(0), "{written:?}");
    let names = fs::read_dir(&out).expect("a folder");
    let pages: BTreeSet<String> =
        names.map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned()).collect();
    for name in ["fanfare.1", "fanfare-app-create.1", "fanfare.toml.5"] {
        assert!(pages.contains(name), "{name} is not among {pages:?}");
    }
    let mut named = 0;
    for page in &pages {
        let text = fs::read_to_string(out.join(page)).expect("a page");
        assert!(text.contains(".SH NAME"), "{page}");
        for name in pages_named(&text) {
            assert!(pages.contains(&name), "{page} names {name}");
            named += 1;
        }
    }
    // All but that of the program itself and that of the file.
    assert_eq!(named, pages.len() - 2);
}

#[test]
fn without_a_folder_the_first_page_is_printed() {
    let printed = run(&["man"], &[]);
    assert!(printed.code == Some(0) && printed.stdout.contains(".TH fanfare 1"), "{printed:?}");
}

#[test]
fn a_folder_that_cannot_be_made_is_told() {
    let refused = run(&["man", "--out", "/dev/null/man"], &[]);
    assert!(refused.code == Some(1) && refused.stderr.contains("cannot be written"), "{refused:?}");
}
