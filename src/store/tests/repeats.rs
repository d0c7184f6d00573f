//! Calls sent again with one key.

use super::*;

fn with_key(opened: &Opened, call: u8) -> NewTask {
    NewTask { repeatable: Some(Box::new(Repeatable { key: [1; 32], call: [call; 32] })), ..opened.task() }
}

#[tokio::test]
async fn calls_with_one_key_in_one_batch_make_one_task() {
    let dir = tempfile::tempdir().unwrap();
    let opened = open(dir.path());
    let tasks: Vec<_> = (0..4).map(|_| with_key(&opened, 2)).collect();
    let ids: Vec<_> = tasks.iter().map(|task| task.id).collect();
    let accepted = futures_util::future::join_all(tasks.into_iter().map(|task| opened.store.accept(task)));
    let accepted: Vec<_> = accepted.await.into_iter().map(Result::unwrap).collect();
    assert_eq!(accepted[0], Accepted::New);
    assert!(accepted[1..].iter().all(|accepted| *accepted == Accepted::Before(ids[0])), "{accepted:?}");
    assert_eq!(opened.store.accept(with_key(&opened, 3)).await.unwrap(), Accepted::OtherCall);
    assert_eq!(opened.store.numbers().await.unwrap().unfinished, 1);
    assert!(!opened.store.is_full(), "repeats take no place");
}

#[tokio::test]
async fn a_key_outlives_its_task_and_ends_with_its_own_retention() {
    let dir = tempfile::tempdir().unwrap();
    let opened = open(dir.path());
    let first = with_key(&opened, 2);
    let id = first.id;
    opened.store.accept(first).await.unwrap();
    let task = opened.next().await;
    opened.finish(&task, Announce::Nobody).await;
    let later = opened.clock.steady().after(Duration::from_hours(1));
    opened.store.purge(before(later, later), 500).await.unwrap();
    assert!(opened.find(id).await.is_none());
    assert_eq!(opened.store.accept(with_key(&opened, 2)).await.unwrap(), Accepted::Before(id));
    let purged = opened.store.purge(Cutoffs { keys: later, ..before(later, later) }, 500).await.unwrap();
    assert_eq!((purged.keys, purged.rows), (1, 1));
    assert_eq!(opened.store.accept(with_key(&opened, 2)).await.unwrap(), Accepted::New);
}

#[tokio::test]
async fn forgetting_keys_keeps_to_the_rows_allowed() {
    let dir = tempfile::tempdir().unwrap();
    let opened = open(dir.path());
    for number in 0..5 {
        let key = [number; 32];
        let task = NewTask { repeatable: Some(Box::new(Repeatable { key, call: [0; 32] })), ..opened.task() };
        opened.store.accept(task).await.unwrap();
    }
    let later = opened.clock.steady().after(Duration::from_hours(1));
    let cutoffs = Cutoffs { keys: later, ..before(Timestamp(0), Timestamp(0)) };
    let mut removed = Vec::new();
    for _ in 0..4 {
        removed.push(opened.store.purge(cutoffs, 2).await.unwrap().keys);
    }
    assert_eq!(removed, [2, 2, 1, 0]);
}
