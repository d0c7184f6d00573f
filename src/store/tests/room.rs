//! A bound on what the store holds.

use super::*;

#[tokio::test]
async fn what_is_not_final_or_still_owed_stays_whatever_the_list_says() {
    let dir = tempfile::tempdir().unwrap();
    let opened = open(dir.path());
    let ids = [opened.accept().await, opened.accept().await, opened.accept().await];
    for announce in [Announce::Nobody, Announce::Later] {
        let task = opened.next().await;
        opened.finish(&task, announce).await;
    }
    let list = ids.map(TaskId::seq).to_vec();
    let purged = opened.store.make_room(list.clone(), 0, 500).await.unwrap();
    assert_eq!((purged.tasks, purged.results, purged.reached), (1, 1, Some(list[2])));
    assert!(opened.find(ids[0]).await.is_none());
    assert!(matches!(opened.find(ids[1]).await, Some(Found::Finished(_))));
    assert!(matches!(opened.find(ids[2]).await, Some(Found::Waiting(_))));
    let later = opened.clock.steady().after(Duration::from_hours(1));
    let ended = opened.store.ended_tasks(Seq(0), later, 500).await.unwrap();
    assert_eq!(ended, EndedTasks { tasks: Vec::new(), next: None });
}

#[tokio::test]
async fn tasks_that_may_go_are_named_page_by_page() {
    let dir = tempfile::tempdir().unwrap();
    let opened = open(dir.path());
    for _ in 0..5 {
        opened.accept().await;
        let task = opened.next().await;
        opened.finish(&task, Announce::Nobody).await;
    }
    let later = opened.clock.steady().after(Duration::from_hours(1));
    let (mut from, mut pages) = (Some(Seq(0)), Vec::new());
    while let Some(start) = from {
        let ended = opened.store.ended_tasks(start, later, 2).await.unwrap();
        pages.push(ended.tasks.len());
        from = ended.next;
    }
    assert_eq!(pages, [2, 2, 1]);
    let too_young = opened.store.ended_tasks(Seq(0), Timestamp(0), 500).await.unwrap();
    assert_eq!(too_young.tasks, []);
}

#[tokio::test]
async fn a_store_above_its_bound_refuses_new_tasks_and_still_writes_what_it_has() {
    let dir = tempfile::tempdir().unwrap();
    let opened = open(dir.path());
    opened.accept().await;
    opened.store.close();
    drop(opened);
    let options = OpenOptions { max_bytes: 1, ..options(dir.path()) };
    let (store, ring, _) = Store::open(&options).unwrap();
    let opened = Opened { store, ring, clock: options.clock };
    assert!(opened.store.has_no_room());
    opened.store.crowded().await;
    assert!(matches!(opened.store.accept(opened.task()).await, Err(StoreError::NoRoom)));
    let task = opened.next().await;
    assert_eq!(opened.finish(&task, Announce::Nobody).await, Settled::Done(None));
    assert!(opened.store.bytes_in_use() > 1);
}
