//! docs/traps.md names tests that exist.

use std::{collections::BTreeSet, fs, path::Path};

#[test]
fn the_page_names_tests_that_exist() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let page = fs::read_to_string(root.join("../../docs/traps.md")).unwrap();
    let named: BTreeSet<(&str, &str)> =
        page.split('`').skip(1).step_by(2).filter_map(|t| t.rsplit_once("::")).collect();
    assert!(named.len() > 40, "{named:?}");
    for (file, test) in named {
        // The page explains how it writes them.
        if test == "test" {
            continue;
        }
        let path = format!("tests/{}.rs", file.replace("::", "/"));
        let source = fs::read_to_string(root.join(path)).unwrap_or_default();
        assert!(source.contains(&format!("fn {test}()")), "{file}::{test}");
    }
}
