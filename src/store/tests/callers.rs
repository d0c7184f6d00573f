//! What one caller is to others: no obstacle, and nothing to be seen.

use super::*;

#[tokio::test]
async fn one_caller_cannot_fill_the_store_for_others() {
    let dir = tempfile::tempdir().unwrap();
    let opened = |limit| {
        let options = OpenOptions { max_queued_per_credentials: limit, ..options(dir.path()) };
        let (store, ring, _) = Store::open(&options).unwrap();
        Opened { store, ring, clock: options.clock }
    };
    let by = |opened: &Opened, credentials: &str, lane| {
        let task = opened.task();
        let task = NewTask { credentials_id: Arc::from(credentials), lane: LaneId(lane), ..task };
        let store = opened.store.clone();
        async move { store.accept(task).await }
    };
    let first = opened(2);
    by(&first, "jane", 0).await.unwrap();
    by(&first, "jane", 0).await.unwrap();
    assert!(matches!(by(&first, "jane", 0).await, Err(StoreError::FullForCredentials)));
    by(&first, "john", 0).await.unwrap();
    by(&first, "jane", 1).await.expect("the same id at another upstream is another caller");
    // What ended makes room, once.
    let task = first.next().await;
    first.finish(&task, Announce::Nobody).await;
    by(&first, "jane", 0).await.unwrap();
    assert!(matches!(by(&first, "jane", 0).await, Err(StoreError::FullForCredentials)));
    first.store.close();
    drop(first);
    // The count outlives the process.
    let again = opened(2);
    assert!(matches!(by(&again, "jane", 0).await, Err(StoreError::FullForCredentials)));
}

#[tokio::test]
async fn calls_that_arrive_together_do_not_exceed_the_limit_together() {
    let dir = tempfile::tempdir().unwrap();
    let options = OpenOptions {
        max_queued_tasks: 1_000,
        max_queued_per_credentials: 7,
        ready_capacity: 1_000,
        ..options(dir.path())
    };
    let (store, ring, _) = Store::open(&options).unwrap();
    let opened = Opened { store, ring, clock: options.clock };
    let calls = (0..100).map(|_| opened.store.accept(opened.task()));
    let accepted = futures_util::future::join_all(calls).await.into_iter().flatten().count();
    assert_eq!(accepted, 7);
}

#[tokio::test]
async fn foreign_unknown_and_malformed_ids_run_the_same_statements() {
    let dir = tempfile::tempdir().unwrap();
    let opened = open(dir.path());
    let (foreign, unknown) = (opened.accept().await, opened.store.ids().next(opened.clock.wall(), 7));
    let asked = async |who: &str, id: Option<TaskId>| {
        assert!(opened.store.find(id, "bank", who).await.unwrap().is_none());
        let run = embedded::traced::with(who);
        // What is looked for differs and nothing else.
        let shape = |text: &String| {
            let value = text.find("task.seq = ").map_or(text.len(), |at| at + "task.seq = ".len());
            text[..value].to_owned()
        };
        run.iter().map(shape).collect::<Vec<_>>()
    };
    let first = asked("asks-for-a-foreign-one", Some(foreign)).await;
    assert_eq!(first.len(), 1, "{first:?}");
    assert_eq!(asked("asks-for-an-unknown-one", Some(unknown)).await, first);
    assert_eq!(asked("asks-for-a-malformed-one", None).await, first);
}
