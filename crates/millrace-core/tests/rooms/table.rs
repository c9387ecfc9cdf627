//! The table of rooms in ARCHITECTURE.md: between `<!-- rooms: rust -->` and `<!-- /rooms -->`, one row a room, its name in the
//! first column and the rooms it may import in the last one, each in backquotes. A room imports only rooms of rows above it.

use std::collections::BTreeSet;

/// One row.
pub(crate) struct Room {
    /// A path below src/ without its extension: `rx/guard` has src/rx/guard.rs and everything below src/rx/guard/.
    pub(crate) name: String,
    /// Names of the rooms it may import.
    pub(crate) may_import: BTreeSet<String>,
}

/// The whole table, from the lowest room up.
pub(crate) struct Rooms(Vec<Room>);

impl Rooms {
    /// Reads the table for one language.
    ///
    /// # Panics
    /// When there is none, or when a room is allowed to import one that does not stand above it in the table.
    pub(crate) fn parse(page: &str, language: &str) -> Self {
        let open = format!("<!-- rooms: {language} -->");
        let rest = page.split_once(&open).unwrap_or_else(|| panic!("no {open}")).1;
        let table = rest.split_once("<!-- /rooms -->").expect("no end of the table").0;
        let mut rooms: Vec<Room> = Vec::new();
        for row in table.lines().filter(|line| line.starts_with("| `")) {
            let cells: Vec<&str> = row.trim_matches('|').split('|').collect();
            let name = quoted(cells[0]).next().expect("a room without a name").to_owned();
            let may_import: BTreeSet<String> = quoted(cells[cells.len() - 1]).map(str::to_owned).collect();
            for other in &may_import {
                let above = rooms.iter().any(|room| room.name == *other);
                assert!(above, "`{name}` may import `{other}`, which stands below it or not at all");
            }
            rooms.push(Room { name, may_import });
        }
        assert!(rooms.len() > 1, "the table of rooms has no rows");
        Rooms(rooms)
    }

    /// Every row, from the lowest room up.
    pub(crate) fn all(&self) -> &[Room] {
        &self.0
    }

    /// The room of a file, given by its path below src/: the one with the longest name that fits.
    pub(crate) fn of(&self, file: &str) -> Option<&Room> {
        let path = file.trim_end_matches(".rs");
        let fits = |room: &&Room| path == room.name || path.starts_with(&format!("{}/", room.name));
        self.0.iter().filter(fits).max_by_key(|room| room.name.len())
    }
}

fn quoted(cell: &str) -> impl Iterator<Item = &str> {
    cell.split('`').skip(1).step_by(2)
}
