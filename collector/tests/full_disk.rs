//! What becomes of batches while the collector's file can't grow: nothing is shown or acknowledged that isn't written.

mod desk;

use rusqlite::Connection;
use shared::wire::encode;
use shared::{Ack, Batch, Lane, Status};
use ward_collector::store::{self, Store};

use desk::{BOOT, CSV, Desk, batch, boot, change, gap, heartbeat, import, payload};

/// A collector whose file is full but for a few bytes, until [`make_room`].
fn full() -> Desk {
    let folder = tempfile::tempdir().expect("a folder");
    import(&folder, CSV);
    let store = Store::open(folder.path()).expect("the file opens");
    let db = store.connection();
    db.execute_batch("create table ballast (bytes blob); insert into ballast values (zeroblob(4000000));")
        .expect("there is room");
    let pages: i64 = db.pragma_query_value(None, "page_count", |row| row.get(0)).expect("a number");
    db.pragma_update_and_check(None, "max_page_count", pages, |_| Ok(())).expect("any number will do");
    Desk::with(store, folder, BOOT + 10_000, 1_000_000)
}

/// Frees pages of the file, as an operator frees a disk.
fn make_room(desk: &Desk) {
    let db = Connection::open(desk.folder.path().join("ward.db")).expect("it is there");
    db.execute("delete from ballast", []).expect("deleting needs no room");
}

fn rows(desk: &Desk) -> (i64, i64, u64) {
    let store = Store::open(desk.folder.path()).expect("the file opens");
    let count = |sql| store.connection().query_row(sql, [], |row| row.get(0)).expect("the schema");
    let through = store::streams(store.connection()).expect("readable").first().map_or(0, |row| row.through);
    (count("select count(*) from transition"), count("select count(*) from gap"), through)
}

/// A batch that doesn't fit: entries were lost, then m1 went down and up often, and is down.
fn large() -> Batch {
    let flips = (0..2_001).map(|i| change("m1", if i % 2 == 0 { Status::Down } else { Status::Up }, 9_100 + i / 10));
    batch(1, BOOT, 4, 9_500, std::iter::once(gap(1, 9_000, 9_050, 1)).chain(flips).collect())
}

fn take(desk: &mut Desk, batch: &Batch) -> Option<Ack> {
    desk.handle(vec![payload(Lane::Up, encode(batch).expect("within the limit"))])
}

#[test]
fn while_the_disk_is_full_nothing_is_shown_or_acknowledged_and_then_it_goes_on() {
    let mut desk = full();
    let first = batch(1, BOOT, 1, 9_000, vec![boot(1), change("m1", Status::Up, 1_000), change("m2", Status::Up, 1_000)]);
    assert_eq!(take(&mut desk, &first).map(|ack| ack.through), Some(3));
    let failing =
        |desk: &Desk| (desk.metrics.value("ward_ledger_failing", ""), desk.metrics.value("ward_ledger_errors_total", ""));
    assert_eq!(failing(&desk), (0.0, 0.0));
    let before = rows(&desk);
    for n in 1..=3 {
        assert_eq!(take(&mut desk, &large()), None, "nothing is acknowledged");
        assert_eq!(failing(&desk), (1.0, f64::from(n)));
        assert_eq!((desk.shown("m1").as_str(), desk.shown("m2").as_str()), ("up", "up"), "nothing is shown");
        assert_eq!(rows(&desk), before, "nothing is half-written");
        assert_eq!(desk.metrics.value("ward_gaps_total", ""), 0.0, "nothing is counted");
    }
    // The stream is known no further, so a heartbeat of a later entry vouches for nothing, and nothing is in doubt.
    let ack = desk.handle(vec![heartbeat(1, BOOT, 2_006, 9_900)]);
    assert!(ack.is_none_or(|ack| ack.through == 3 && !ack.restate), "{ack:?}");
    let known = desk.live.fleet().branches[0].observed;
    assert_eq!(known.map(|at| at.0), Some(BOOT + 9_000 - 10));
    // The rest of the stream is early, as it would be if the large one had been lost on its way.
    let later = Batch { oldest: 4, ..batch(1, BOOT, 2_006, 9_900, vec![change("m2", Status::Down, 9_800)]) };
    assert_eq!(take(&mut desk, &later).map(|ack| ack.through), Some(3));

    make_room(&desk);
    let ack = take(&mut desk, &large()).expect("there is room");
    assert_eq!((ack.through, ack.restate), (2_005, true));
    assert_eq!(failing(&desk), (0.0, 3.0));
    assert_eq!((desk.shown("m1").as_str(), desk.shown("m2").as_str()), ("down", "unknown(never_observed)"));
    assert_eq!(rows(&desk), (2 + 2_001, 1, 2_005));
}

#[test]
fn what_the_file_would_not_take_of_one_branch_is_lost_to_none_of_its_group() {
    let mut desk = full();
    let first = batch(1, BOOT, 1, 9_000, vec![boot(1), change("m1", Status::Up, 1_000), change("m2", Status::Up, 1_000)]);
    let all = [&first, &large()].map(|batch| encode(batch).expect("within the limit"));
    let group = || all.iter().map(|bytes| payload(Lane::Up, bytes.clone())).collect();
    assert_eq!(desk.handle(group()), None);
    assert_eq!(rows(&desk), (0, 0, 0));
    assert_eq!(desk.shown("m1"), "unknown(never_observed)");
    make_room(&desk);
    assert_eq!(desk.handle(group()).map(|ack| ack.through), Some(2_005));
    assert_eq!(desk.shown("m1"), "down");
}
