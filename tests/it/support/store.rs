//! The store's file from outside: how many rows each table has, whatever the tables are called.

use std::collections::BTreeMap;
use std::path::Path;

use rusqlite::{Connection, OpenFlags};

/// Rows by table.
pub type Rows = BTreeMap<String, i64>;

/// Counts the rows of every table of the store in `data_dir`, which a node may have open.
pub fn rows(data_dir: &Path) -> Rows {
    let file = data_dir.join("ringback.db");
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let store =
        Connection::open_with_flags(&file, flags).expect("the store is a SQLite file that can be read");
    store.busy_timeout(super::LIMIT).expect("a busy timeout can be set");
    let mut names = store
        .prepare("SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%'")
        .expect("the schema can be read");
    let names = names.query_map([], |row| row.get::<_, String>(0)).expect("the schema can be read");
    names
        .map(|name| {
            let name = name.expect("a table has a name");
            let count = format!("SELECT count(*) FROM \"{name}\"");
            let count = store.query_row(&count, [], |row| row.get(0)).expect("rows can be counted");
            (name, count)
        })
        .collect()
}
