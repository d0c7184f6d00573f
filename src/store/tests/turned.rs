//! The store turned by hand: what is true at the instants that no thread lets a test see.

use futures_util::poll;

use super::*;
use crate::store::by_hand::{Disk, Reads, Turned};

struct ByHand {
    opened: Opened,
    writer: Turned,
    reads: Reads,
}

fn turned(disk: &Disk) -> ByHand {
    let dir = tempfile::tempdir().unwrap();
    let ring = crate::seal::load_or_create(&dir.path().join("keys"), true).unwrap();
    let options = options(dir.path());
    let (store, by_hand) = disk.open(&options, &ring);
    ByHand {
        opened: Opened { store, ring, clock: options.clock },
        writer: by_hand.writer,
        reads: by_hand.reads,
    }
}

#[tokio::test]
async fn nobody_hears_of_a_task_before_it_is_written() {
    let disk = Disk::new();
    let ByHand { opened, mut writer, .. } = turned(&disk);
    let mut client = Box::pin(opened.store.accept(opened.task()));
    assert!(poll!(&mut client).is_pending());
    let taken = writer.take().unwrap();
    assert!(poll!(&mut client).is_pending());
    writer.refuse_writes(true);
    writer.commit(taken);
    assert!(matches!(client.await, Err(StoreError::Unavailable)));
    writer.refuse_writes(false);
    let mut client = Box::pin(opened.store.accept(opened.task()));
    assert!(poll!(&mut client).is_pending());
    let taken = writer.take().unwrap();
    writer.commit(taken);
    assert!(matches!(client.await, Ok(Accepted::New)));
}

#[tokio::test]
async fn what_retention_asks_for_does_not_make_a_store_that_cannot_write_look_well() {
    let disk = Disk::new();
    let ByHand { opened, mut writer, .. } = turned(&disk);
    let taken = writer.take().expect("a first look for what is due");
    writer.commit(taken);
    writer.refuse_writes(true);
    let mut client = Box::pin(opened.store.accept(opened.task()));
    assert!(poll!(&mut client).is_pending());
    let taken = writer.take().unwrap();
    writer.commit(taken);
    assert!(client.await.is_err() && writer.is_failing());
    let mut janitor = Box::pin(opened.store.purge(before(Timestamp(0), Timestamp(0)), 10));
    assert!(poll!(&mut janitor).is_pending());
    let taken = writer.take().unwrap();
    assert!(writer.commit(taken).is_some());
    assert!(writer.is_failing());
}

#[tokio::test]
async fn a_task_is_kept_when_the_node_dies_between_the_commit_and_the_answer() {
    let disk = Disk::new();
    let ByHand { opened, mut writer, .. } = turned(&disk);
    let task = opened.task();
    let seq = task.id.seq();
    let mut client = Box::pin(opened.store.accept(task));
    assert!(poll!(&mut client).is_pending());
    let taken = writer.take().unwrap();
    let unheard = writer.commit_and_die(taken);
    drop((client, unheard));
    drop(opened);
    let tasks: u32 = disk.look.query_row("SELECT count(*) FROM task", [], |row| row.get(0)).unwrap();
    assert_eq!(tasks, 1);
    let ByHand { opened, mut writer, .. } = turned(&disk);
    let taken = writer.take().expect("a first look for what is due");
    writer.commit(taken);
    assert_eq!(opened.next().await.seq, seq);
}

#[tokio::test]
async fn a_reader_sees_what_is_written_and_nothing_before() {
    let disk = Disk::new();
    let ByHand { opened, mut writer, mut reads } = turned(&disk);
    let task = opened.task();
    let id = task.id;
    let mut client = Box::pin(opened.store.accept(task));
    assert!(poll!(&mut client).is_pending());
    let taken = writer.next().await.unwrap();
    let mut reader = Box::pin(opened.find(id));
    assert!(poll!(&mut reader).is_pending());
    let read = reads.take().unwrap();
    read(&disk.look);
    assert!(reader.await.is_none());
    writer.commit(taken);
    client.await.unwrap();
    let mut reader = Box::pin(opened.find(id));
    assert!(poll!(&mut reader).is_pending());
    let read = reads.next().await.unwrap();
    read(&disk.look);
    assert!(matches!(reader.await, Some(Found::Waiting(_))));
}

/// A task with a body of so many bytes, which the node no longer has in memory.
async fn resting(disk: &Disk, body: usize) -> Seq {
    let ByHand { opened, mut writer, .. } = turned(disk);
    let mut task = opened.task();
    let (key, place) = (opened.ring.task_key(task.id), crate::seal::Place::chunk(0, true));
    task.body = vec![key.seal(crate::seal::Column::RequestBody, place, &vec![0; body])];
    let seq = task.id.seq();
    let mut client = Box::pin(opened.store.accept(task));
    assert!(poll!(&mut client).is_pending());
    let taken = writer.take().unwrap();
    writer.commit(taken);
    client.await.unwrap();
    seq
}

#[tokio::test]
async fn small_requests_are_read_before_the_worker_takes_their_tasks_and_large_ones_are_not() {
    let disk = Disk::new();
    let (small, large) = (resting(&disk, 100).await, resting(&disk, CARRIED_BYTES as usize).await);
    let ByHand { opened, mut writer, mut reads } = turned(&disk);
    let taken = writer.take().expect("a first look for what is due");
    writer.commit(taken);
    let ready = &opened.store.lanes()[0].ready;
    assert!(poll!(Box::pin(opened.next())).is_pending());
    assert_eq!(ready.room(), 0, "they have their places already");
    let read = reads.take().unwrap();
    read(&disk.look);
    let tasks = ready.take_all();
    assert_eq!(tasks.iter().map(|task| task.seq).collect::<Vec<_>>(), [small, large]);
    let Some(Request::Stored(stored)) = &tasks[0].request else { panic!("not read") };
    assert_eq!((stored.task.id.seq(), stored.chunks), (small, 1));
    assert!(tasks[1].request.is_none());
    assert_eq!(ready.room(), 2);
}

#[tokio::test]
async fn a_claimed_task_that_could_not_be_read_reaches_the_worker_all_the_same() {
    let disk = Disk::new();
    let seq = resting(&disk, 100).await;
    let ByHand { opened, mut writer, mut reads } = turned(&disk);
    let taken = writer.take().expect("a first look for what is due");
    writer.commit(taken);
    drop(reads.take().unwrap());
    let ready = &opened.store.lanes()[0].ready;
    let tasks = ready.take_all();
    assert_eq!(tasks.iter().map(|task| task.seq).collect::<Vec<_>>(), [seq]);
    assert!(tasks[0].request.is_none());
    assert_eq!(ready.room(), 2);
}
