//! Holds the walls between the rooms of this crate: every `use` line, and every path that starts with `crate` or `super`, is
//! compared with the table of rooms in ARCHITECTURE.md, and no two files may import each other, directly or in a circle.
//!
//! Code under `#[cfg(test)]` is left out, because unit tests may reach further than the product does.

mod imports;
mod table;

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

use imports::Import;
use table::Rooms;

/// `src/` of this crate.
const SRC: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/src");

fn architecture() -> String {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../ARCHITECTURE.md");
    std::fs::read_to_string(page).unwrap()
}

/// Everything that breaks a wall, one line each: the line, the import, and the rule it breaks.
fn broken_walls(rooms: &Rooms, imports: &[Import]) -> Vec<String> {
    let mut broken = Vec::new();
    for import in imports {
        let (Some(from), Some(to)) = (rooms.of(&import.from), rooms.of(&import.to)) else {
            let without_room = if rooms.of(&import.from).is_none() { &import.from } else { &import.to };
            broken.push(format!("src/{without_room}: no room of the table in ARCHITECTURE.md has this file"));
            continue;
        };
        if from.name != to.name && !from.may_import.contains(&to.name) {
            broken.push(format!(
                "src/{}:{}: `{}` imports room {}, but {} may import only: {}",
                import.from,
                import.line,
                import.path,
                to.name,
                from.name,
                from.may_import.iter().cloned().collect::<Vec<_>>().join(", ")
            ));
        }
    }
    broken.sort();
    broken.dedup();
    broken
}

/// Rooms that the table allows and no line uses: the table would promise less than the code keeps.
fn unused_permissions(rooms: &Rooms, imports: &[Import]) -> Vec<String> {
    let mut used: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for import in imports {
        if let (Some(from), Some(to)) = (rooms.of(&import.from), rooms.of(&import.to)) {
            used.entry(&from.name).or_default().insert(&to.name);
        }
    }
    let unused = rooms.all().iter().flat_map(|room| {
        let used = used.get(room.name.as_str()).cloned().unwrap_or_default();
        let idle = room.may_import.iter().filter(move |other| !used.contains(other.as_str()));
        idle.map(|other| format!("ARCHITECTURE.md lets {} import {other}, which it does not", room.name))
    });
    unused.collect()
}

/// A circle of files, as lines that each import the next file.
fn circle(imports: &[Import]) -> Option<Vec<String>> {
    let mut edges: BTreeMap<&str, BTreeMap<&str, &Import>> = BTreeMap::new();
    for import in imports.iter().filter(|import| import.from != import.to) {
        edges.entry(&import.from).or_default().entry(&import.to).or_insert(import);
    }
    // Depth first from every file; `path` holds the imports that lead to the file at hand.
    fn visit<'a>(
        file: &'a str,
        edges: &BTreeMap<&'a str, BTreeMap<&'a str, &'a Import>>,
        path: &mut Vec<&'a Import>,
        done: &mut BTreeSet<&'a str>,
    ) -> Option<Vec<String>> {
        if let Some(start) = path.iter().position(|import| import.from == file) {
            let said = |i: &&Import| format!("src/{}:{}: `{}` leads to src/{}", i.from, i.line, i.path, i.to);
            return Some(path[start..].iter().map(said).collect());
        }
        if !done.contains(file) {
            for (next, import) in edges.get(file).into_iter().flatten() {
                path.push(import);
                let found = visit(next, edges, path, done);
                path.pop();
                if found.is_some() {
                    return found;
                }
            }
            done.insert(file);
        }
        None
    }
    let mut done = BTreeSet::new();
    edges.keys().find_map(|file| visit(file, &edges, &mut Vec::new(), &mut done))
}

#[test]
fn every_import_is_one_that_the_table_of_rooms_allows() {
    let rooms = Rooms::parse(&architecture(), "rust");
    let broken = broken_walls(&rooms, &imports::of(Path::new(SRC)));
    assert!(broken.is_empty(), "\n{}\n", broken.join("\n"));
}

#[test]
fn the_table_of_rooms_allows_nothing_that_no_line_needs() {
    let rooms = Rooms::parse(&architecture(), "rust");
    let unused = unused_permissions(&rooms, &imports::of(Path::new(SRC)));
    assert!(unused.is_empty(), "\n{}\n", unused.join("\n"));
}

#[test]
fn no_files_import_each_other_in_a_circle() {
    let found = circle(&imports::of(Path::new(SRC)));
    assert!(found.is_none(), "\n{}\n", found.unwrap_or_default().join("\n"));
}

/// The walls fall where they should: a source tree made for this test breaks each rule once.
#[test]
fn a_wall_that_is_broken_is_reported_with_its_line_and_rule() {
    let tree = tempdir();
    let file = |path: &str, text: &str| {
        let path = tree.join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    };
    file("lib.rs", "mod low; mod high;");
    file("low.rs", "\nuse crate::high::Thing;\npub struct Base;\n");
    file("high/mod.rs", "//! Page.\nmod thing;\npub use thing::Thing;\n");
    file(
        "high/thing.rs",
        "pub struct Thing;\npub fn f() -> crate::low::Base { todo!() }\n\
         #[cfg(test)]\nmod tests { use crate::elsewhere::X; }\n",
    );
    let table = "<!-- rooms: rust -->\n| Room | Idea | Imports |\n| --- | --- | --- |\n\
                 | `low` | a | – |\n| `high` | b | `low` |\n<!-- /rooms -->";
    let rooms = Rooms::parse(table, "rust");
    let imports = imports::of(&tree);
    assert_eq!(
        broken_walls(&rooms, &imports),
        ["src/low.rs:2: `crate::high::Thing` imports room high, but low may import only: "]
    );
    assert_eq!(
        circle(&imports).unwrap(),
        [
            "src/high/thing.rs:2: `crate::low::Base` leads to src/low.rs",
            "src/low.rs:2: `crate::high::Thing` leads to src/high/thing.rs",
        ]
    );
    let idle = table.replace("| `low` | a | – |", "| `none` | c | – |\n| `low` | a | `none` |");
    assert_eq!(
        unused_permissions(&Rooms::parse(&idle, "rust"), &imports),
        ["ARCHITECTURE.md lets low import none, which it does not"]
    );
    std::fs::remove_dir_all(tree).unwrap();
}

#[test]
#[should_panic(expected = "`low` may import `high`, which stands below it")]
fn a_table_whose_rooms_import_upwards_is_refused() {
    Rooms::parse(
        "<!-- rooms: rust -->\n| Room | Idea | Imports |\n| --- | --- | --- |\n| `low` | a | `high` |\n| `high` | b | – |\n<!-- /rooms -->",
        "rust",
    );
}

fn tempdir() -> std::path::PathBuf {
    let path = std::env::temp_dir().join(format!("millrace-rooms-{}", std::process::id()));
    std::fs::create_dir_all(&path).unwrap();
    path
}
