//! The store's file from outside: how many rows each table has, whatever the tables are called.

use std::collections::BTreeMap;
use std::path::Path;

use rusqlite::{Connection, OpenFlags};

/// Rows by table.
pub type Rows = BTreeMap<String, i64>;

/// Counts the rows of every table of the store in `data_dir`, which a node may have open.
pub fn rows(data_dir: &Path) -> Rows {
    let store = open(data_dir);
    let count = |table: &str| {
        let count = store.query_row(&format!("SELECT count(*) FROM \"{table}\""), [], |row| row.get(0));
        count.expect("rows can be counted")
    };
    tables(&store).into_iter().map(|table| (table.clone(), count(&table))).collect()
}

/// Everything in the store as text: two equal texts mean that nothing was committed in between.
pub fn content(data_dir: &Path) -> String {
    let store = open(data_dir);
    let mut content = String::new();
    // The mark of the clock is no content: every commit may move it.
    for table in tables(&store).into_iter().filter(|table| table != "clock") {
        let mut rows = store.prepare(&format!("SELECT * FROM \"{table}\"")).expect("a table can be read");
        let columns = rows.column_count();
        let mut rows = rows.query([]).expect("a table can be read");
        while let Some(row) = rows.next().expect("a table can be read") {
            let values = (0..columns).map(|column| format!("{:?}", row.get_ref(column).expect("a column")));
            content.extend([table.as_str(), ": ", &values.collect::<Vec<_>>().join(", "), "\n"]);
        }
    }
    content
}

/// How many of the larger kinds of sealed values this key sealed: a value's first bytes name it.
pub fn sealed_by(data_dir: &Path, key: u32) -> i64 {
    let store = open(data_dir);
    let count = |(table, value): (&str, &str)| -> i64 {
        let sql = format!("SELECT count(*) FROM {table} WHERE substr({value}, 1, 4) = ?1");
        store.query_row(&sql, [key.to_be_bytes()], |row| row.get(0)).expect("values can be counted")
    };
    [("task", "query"), ("chunk", "data"), ("result", "headers"), ("result", "body")].map(count).iter().sum()
}

/// What SQLite finds wrong in the store; `None` if it is sound.
pub fn damage(data_dir: &Path) -> Option<String> {
    let found = open(data_dir).query_row("PRAGMA integrity_check(1)", [], |row| row.get::<_, String>(0));
    let found = found.unwrap_or_else(|error| error.to_string());
    (found != "ok").then_some(found)
}

/// Whether the database file is as long as the store takes it to be: no page of it is in the log alone.
pub fn is_carried_over(data_dir: &Path) -> bool {
    let pages = "SELECT page_count * page_size FROM pragma_page_count, pragma_page_size";
    let bytes: i64 = open(data_dir).query_row(pages, [], |row| row.get(0)).expect("pages can be counted");
    let file = std::fs::metadata(data_dir.join("ringback.db")).expect("the file is there");
    file.len() == u64::try_from(bytes).expect("not negative")
}

/// Chunks that no request and no result refers to.
pub fn stray_chunks(data_dir: &Path) -> i64 {
    let count = open(data_dir).query_row(
        "SELECT count(*) FROM chunk WHERE NOT EXISTS
           (SELECT 1 FROM request WHERE kind = 0 AND request.seq = chunk.seq AND idx < request.chunks)
         AND NOT EXISTS
           (SELECT 1 FROM result WHERE kind = 1 AND result.seq = chunk.seq AND idx < result.chunks)",
        [],
        |row| row.get(0),
    );
    count.expect("rows can be counted")
}

/// Overwrites what was sealed of every answer, as a disk that forgets would.
pub fn spoil_results(data_dir: &Path) {
    let store = Connection::open(data_dir.join("ringback.db")).expect("the store can be written");
    store.busy_timeout(super::LIMIT).expect("a busy timeout can be set");
    store.execute("UPDATE result SET headers = zeroblob(64)", []).expect("results can be overwritten");
}

fn open(data_dir: &Path) -> Connection {
    let file = data_dir.join("ringback.db");
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let store =
        Connection::open_with_flags(&file, flags).expect("the store is a SQLite file that can be read");
    store.busy_timeout(super::LIMIT).expect("a busy timeout can be set");
    store
}

fn tables(store: &Connection) -> Vec<String> {
    let mut names = store
        .prepare(
            "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%' ORDER BY name",
        )
        .expect("the schema can be read");
    let names = names.query_map([], |row| row.get(0)).expect("the schema can be read");
    names.map(|name| name.expect("a table has a name")).collect()
}
