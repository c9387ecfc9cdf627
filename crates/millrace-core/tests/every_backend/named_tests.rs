//! Pages that name tests as evidence, docs/traps.md and the guard's table, name tests that exist.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

fn package() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The texts in backquotes.
fn quoted(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

fn defines(source: &str, test: &str) -> bool {
    source.contains(&format!("#[test]\nfn {test}()"))
}

#[test]
fn the_page_of_traps_names_tests_that_exist() {
    let page = fs::read_to_string(package().join("../../docs/traps.md")).unwrap();
    let named: BTreeSet<(&str, &str)> = quoted(&page).filter_map(|t| t.rsplit_once("::")).collect();
    assert!(named.len() > 40, "{named:?}");
    for (file, test) in named {
        // The page explains how it writes them.
        if test == "test" {
            continue;
        }
        let path = package().join(format!("tests/{}.rs", file.replace("::", "/")));
        let source = fs::read_to_string(path).unwrap_or_default();
        assert!(defines(&source, test), "docs/traps.md: {file}::{test} does not exist");
    }
}

#[test]
fn the_guards_table_names_tests_that_exist() {
    let page = fs::read_to_string(package().join("src/rx/guard/mod.rs")).unwrap();
    let rows = page.lines().filter(|line| line.starts_with("//! |") && line.ends_with('|'));
    let named: BTreeSet<&str> =
        rows.filter_map(|row| row.rsplit('|').nth(1)).flat_map(quoted).collect();
    assert!(named.len() > 20, "{named:?}");
    let tests = sources(&package().join("tests"));
    for test in named {
        assert!(
            tests.iter().any(|source| defines(source, test)),
            "src/rx/guard/mod.rs: {test} does not exist"
        );
    }
}

/// The text of every file below a folder.
fn sources(folder: &Path) -> Vec<String> {
    let paths: Vec<PathBuf> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    let (folders, files): (Vec<_>, Vec<_>) = paths.into_iter().partition(|path| path.is_dir());
    let mut texts: Vec<String> = files.iter().map(|path| fs::read_to_string(path).unwrap()).collect();
    texts.extend(folders.iter().flat_map(|folder| sources(folder)));
    texts
}
