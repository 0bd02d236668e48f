//! A copy of the file while it is in use.

use std::path::Path;
use std::time::Duration;

use rusqlite::backup::Backup;
use rusqlite::{Connection, OpenFlags};

use super::{StoreError, file};

/// Pages that are copied in one go: a commit of the collector waits for no more than these.
const PAGES: i32 = 4_096;
/// Between two goes.
const PAUSE: Duration = Duration::from_millis(5);

/// Copies the file of a data folder into another folder, as it is at the end of the copy, and checks the copy.
///
/// # Errors
/// When it can't be read, written, or isn't sound.
pub fn backup(data_dir: &Path, folder: &Path) -> Result<(), StoreError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let from = file(data_dir);
    let at = |path: &Path, source| StoreError::Sqlite { path: path.display().to_string(), source };
    let source = Connection::open_with_flags(&from, flags).map_err(|error| at(&from, error))?;
    source.busy_timeout(Duration::from_secs(10))?;
    // One reading of the whole: a commit meanwhile would otherwise begin the copy anew, again and again.
    source.execute_batch("begin; select count(*) from inventory_version")?;
    let to = file(folder);
    let mut copy = Connection::open(&to).map_err(|error| at(&to, error))?;
    Backup::new(&source, &mut copy)?.run_to_completion(PAGES, PAUSE, None).map_err(|error| at(&to, error))?;
    // A copy in one file: no log beside it that could be forgotten.
    copy.pragma_update(None, "journal_mode", "delete")?;
    let verdict: String = copy.query_row("pragma quick_check", [], |row| row.get(0))?;
    if verdict != "ok" {
        return Err(StoreError::Content(format!("a copy that is not sound: {verdict}")));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Store;

    #[test]
    fn a_copy_is_what_was_committed_and_commits_go_on_beside_it() {
        let (data, copy) = (tempfile::tempdir().expect("a folder"), tempfile::tempdir().expect("a folder"));
        let mut store = Store::open(data.path()).expect("made");
        let write = |store: &mut Store, id: &str| {
            let done = store.transaction(|db| Ok(db.execute("insert into region values (?1, ?1)", [id])?));
            done.expect("written");
        };
        write(&mut store, "before");
        backup(data.path(), copy.path()).expect("copied");
        write(&mut store, "after");
        assert!(!copy.path().join("ward.db-wal").exists(), "a copy is one file");
        let copied = Store::open(copy.path()).expect("a copy is a file like any other");
        let regions: String =
            copied.connection().query_row("select group_concat(id) from region", [], |row| row.get(0)).expect("read");
        assert_eq!(regions, "before");
    }
}
