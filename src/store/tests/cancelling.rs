//! Tasks cancelled and results erased, in every order.

use super::*;

impl Opened {
    async fn cancel(&self, seq: Seq) -> Cancelled {
        self.store.cancel(seq, self.clock.steady()).await.unwrap()
    }

    /// How a cancelled task says it ended.
    async fn failure(&self, id: TaskId) -> (String, u32, bool, Option<Timestamp>) {
        let Some(Found::Finished(result)) = self.find(id).await else { panic!("the task is final") };
        (result.failure.unwrap(), result.attempts, result.effect_unknown, result.sent_at)
    }

    fn taken_up(&self, task: &ReadyTask) -> Option<TakenUp> {
        self.store.lanes()[0].cancellations.take_up(task.seq, task.lease)
    }

    async fn owed(&self) -> u64 {
        self.store.numbers().await.unwrap().deliveries_owed
    }
}

fn cancelled(attempts: u32) -> (String, u32, bool, Option<Timestamp>) {
    (String::from("cancelled"), attempts, false, None)
}

#[tokio::test]
async fn a_task_cancelled_while_it_rests_is_never_claimed() {
    let dir = tempfile::tempdir().unwrap();
    let opened = open(dir.path());
    let id = opened.accept().await;
    let task = opened.next().await;
    opened.retry(&task, opened.clock.steady().after(Duration::from_hours(1))).await;
    assert_eq!(opened.cancel(id.seq()).await, Cancelled::Task);
    assert_eq!(opened.failure(id).await, cancelled(1));
    assert_eq!(opened.store.numbers().await.unwrap().unfinished, 0);
    assert!(opened.store.request(id.seq()).await.unwrap().is_none(), "its token and body are erased");
}

#[tokio::test]
async fn a_task_cancelled_in_the_ready_queue_is_not_taken_up() {
    let dir = tempfile::tempdir().unwrap();
    let opened = open(dir.path());
    let id = opened.accept().await;
    assert_eq!(opened.cancel(id.seq()).await, Cancelled::Task);
    let task = opened.next().await;
    assert!(opened.taken_up(&task).is_none());
    assert_eq!(opened.finish(&task, Announce::Now).await, Settled::Lost);
    assert_eq!(opened.failure(id).await, cancelled(0));
}

#[tokio::test]
async fn a_task_cancelled_while_it_is_worked_on_stops_its_worker() {
    let dir = tempfile::tempdir().unwrap();
    let opened = open(dir.path());
    let id = opened.accept().await;
    let task = opened.next().await;
    let mut taken_up = opened.taken_up(&task).unwrap();
    opened.store.started(task.seq, task.lease, 1, Timestamp(7)).await.unwrap();
    opened.store.stage_result_chunk(task.seq, task.lease, 1, Sealed::from_stored(vec![1])).await.unwrap();
    assert_eq!(opened.cancel(id.seq()).await, Cancelled::Task);
    let worked = taken_up.unless_cancelled(tokio::time::sleep(Duration::from_secs(10)));
    assert!(worked.await.is_none());
    assert_eq!(opened.failure(id).await, (String::from("cancelled"), 1, true, Some(Timestamp(7))));
    assert!(opened.store.chunk(id.seq(), ChunkKind::Result, 1).await.unwrap().is_none());
    let stage = opened.store.stage_result_chunk(task.seq, task.lease, 2, Sealed::from_stored(vec![1]));
    assert_eq!(stage.await.unwrap(), Settled::Lost);
    assert_eq!(opened.retry(&task, opened.clock.steady()).await, Settled::Lost);
}

#[tokio::test]
async fn a_settle_and_a_cancellation_in_one_batch_have_the_story_of_the_first() {
    let dir = tempfile::tempdir().unwrap();
    let opened = open(dir.path());
    let (first, second) = (opened.accept().await, opened.accept().await);
    let (one, two) = (opened.next().await, opened.next().await);
    let (cancel, settle) = tokio::join!(opened.cancel(first.seq()), opened.finish(&one, Announce::Later));
    assert_eq!((cancel, settle), (Cancelled::Task, Settled::Lost));
    assert_eq!(opened.failure(first).await, cancelled(0));
    let (settle, cancel) = tokio::join!(opened.finish(&two, Announce::Later), opened.cancel(second.seq()));
    assert_eq!((settle, cancel), (Settled::Done(None), Cancelled::Result));
    assert!(matches!(opened.find(second).await, Some(Found::Expired)));
    assert_eq!(opened.owed().await, 2, "each is announced once");
}

#[tokio::test]
async fn a_retry_and_a_cancellation_in_one_batch_end_cancelled() {
    let dir = tempfile::tempdir().unwrap();
    let opened = open(dir.path());
    let id = opened.accept().await;
    let task = opened.next().await;
    let now = opened.clock.steady();
    let (retry, cancel) = tokio::join!(opened.retry(&task, now), opened.cancel(id.seq()));
    assert_eq!((retry, cancel), (Settled::Done(None), Cancelled::Task));
    assert_eq!(opened.failure(id).await, cancelled(1));
}

#[tokio::test]
async fn an_erased_result_is_gone_and_erasing_again_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let opened = open(dir.path());
    let id = opened.accept().await;
    let task = opened.next().await;
    opened.finish(&task, Announce::Nobody).await;
    for _ in 0..2 {
        assert_eq!(opened.cancel(id.seq()).await, Cancelled::Result);
        assert!(matches!(opened.find(id).await, Some(Found::Expired)));
    }
    assert!(opened.store.announcement(id.seq()).await.unwrap().is_none());
}

#[tokio::test]
async fn a_cancelled_task_cancelled_again_stays_as_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let opened = open(dir.path());
    let id = opened.accept().await;
    opened.cancel(id.seq()).await;
    assert_eq!(opened.cancel(id.seq()).await, Cancelled::Result);
    assert_eq!(opened.failure(id).await, cancelled(0));
    assert_eq!(opened.owed().await, 1);
}

#[tokio::test]
async fn what_is_owed_of_an_erased_result_is_announced_and_then_removed() {
    let dir = tempfile::tempdir().unwrap();
    let opened = open(dir.path());
    let id = opened.accept().await;
    let task = opened.next().await;
    let Settled::Done(Some(lease)) = opened.finish(&task, Announce::Now).await else { panic!("no lease") };
    opened.cancel(id.seq()).await;
    assert!(matches!(opened.find(id).await, Some(Found::Expired)));
    let keep = before(Timestamp(0), Timestamp(0));
    assert_eq!(opened.store.purge(keep, 500).await.unwrap().rows, 0);
    let announced = opened.store.announcement(id.seq()).await.unwrap().unwrap();
    assert_eq!(announced.failure.as_deref(), Some("upstream_error"));
    let record = opened.record(1, Outcome::Success);
    opened.store.settle_delivery(id.seq(), lease, record, DeliveryEnd::Delivered).await.unwrap();
    assert_eq!(opened.store.purge(keep, 500).await.unwrap().results, 1);
    assert!(matches!(opened.find(id).await, Some(Found::Expired)));
}

#[tokio::test]
async fn a_cancellation_before_a_retry_in_one_batch_leaves_nothing_to_try() {
    let dir = tempfile::tempdir().unwrap();
    let opened = open(dir.path());
    let id = opened.accept().await;
    let task = opened.next().await;
    let now = opened.clock.steady();
    let (cancel, retry) = tokio::join!(opened.cancel(id.seq()), opened.retry(&task, now));
    assert_eq!((cancel, retry), (Cancelled::Task, Settled::Lost));
    assert_eq!(opened.failure(id).await, cancelled(0));
    assert_eq!(opened.store.numbers().await.unwrap().unfinished, 0);
}

#[tokio::test]
async fn a_task_cancelled_after_its_retry_was_claimed_is_not_taken_up() {
    let dir = tempfile::tempdir().unwrap();
    let opened = open(dir.path());
    let id = opened.accept().await;
    let task = opened.next().await;
    opened.retry(&task, opened.clock.steady()).await;
    let claimed = opened.next().await;
    assert_eq!(claimed.seq, id.seq());
    assert_eq!(opened.cancel(id.seq()).await, Cancelled::Task);
    assert!(opened.taken_up(&claimed).is_none());
    assert_eq!(opened.failure(id).await, cancelled(1));
}

#[tokio::test]
async fn of_an_unsafe_call_cancelled_in_the_batch_of_its_start_the_first_of_both_tells_the_story() {
    let dir = tempfile::tempdir().unwrap();
    let opened = open(dir.path());
    let (first, second) = (opened.accept().await, opened.accept().await);
    let (one, two) = (opened.next().await, opened.next().await);
    let started =
        async |task: &ReadyTask| opened.store.started(task.seq, task.lease, 1, Timestamp(7)).await.unwrap();
    let (start, cancel) = tokio::join!(started(&one), opened.cancel(first.seq()));
    assert_eq!((start, cancel), (Settled::Done(None), Cancelled::Task));
    assert_eq!(opened.failure(first).await, (String::from("cancelled"), 1, true, Some(Timestamp(7))));
    let (cancel, start) = tokio::join!(opened.cancel(second.seq()), started(&two));
    assert_eq!((cancel, start), (Cancelled::Task, Settled::Lost), "it must not be sent");
    assert_eq!(opened.failure(second).await, cancelled(0));
}

#[tokio::test]
async fn of_an_answer_that_arrives_while_its_task_is_cancelled_nothing_stays() {
    let dir = tempfile::tempdir().unwrap();
    let opened = open(dir.path());
    let (first, second) = (opened.accept().await, opened.accept().await);
    let (one, two) = (opened.next().await, opened.next().await);
    let stage = async |task: &ReadyTask| {
        let chunk = Sealed::from_stored(vec![1]);
        opened.store.stage_result_chunk(task.seq, task.lease, 1, chunk).await.unwrap()
    };
    let (staged, cancel) = tokio::join!(stage(&one), opened.cancel(first.seq()));
    assert_eq!((staged, cancel), (Settled::Done(None), Cancelled::Task));
    let (cancel, staged) = tokio::join!(opened.cancel(second.seq()), stage(&two));
    assert_eq!((cancel, staged), (Cancelled::Task, Settled::Lost));
    for id in [first, second] {
        assert!(opened.store.chunk(id.seq(), ChunkKind::Result, 1).await.unwrap().is_none());
        assert_eq!(opened.failure(id).await, cancelled(0));
    }
}

#[tokio::test]
async fn two_cancellations_in_one_batch_end_the_task_once() {
    let dir = tempfile::tempdir().unwrap();
    let opened = open(dir.path());
    let id = opened.accept().await;
    let task = opened.next().await;
    let both = tokio::join!(opened.cancel(id.seq()), opened.cancel(id.seq()));
    assert_eq!(both, (Cancelled::Task, Cancelled::Result));
    assert_eq!(opened.failure(id).await, cancelled(0));
    assert_eq!(opened.owed().await, 1);
    opened.finish(&task, Announce::Now).await;
    let both = tokio::join!(opened.cancel(id.seq()), opened.cancel(id.seq()));
    assert_eq!(both, (Cancelled::Result, Cancelled::Result));
    assert_eq!(opened.failure(id).await, cancelled(0));
}

#[tokio::test]
async fn a_result_erased_in_the_batch_of_its_delivery_is_gone_and_nothing_is_owed() {
    for erased_first in [true, false] {
        let dir = tempfile::tempdir().unwrap();
        let opened = open(dir.path());
        let id = opened.accept().await;
        let task = opened.next().await;
        let finished = opened.finish(&task, Announce::Now).await;
        let Settled::Done(Some(lease)) = finished else { panic!("no lease") };
        let record = opened.record(1, Outcome::Success);
        let delivered = opened.store.settle_delivery(id.seq(), lease, record, DeliveryEnd::Delivered);
        let (cancel, settled) = if erased_first {
            tokio::join!(opened.cancel(id.seq()), delivered)
        } else {
            let (settled, cancel) = tokio::join!(delivered, opened.cancel(id.seq()));
            (cancel, settled)
        };
        assert_eq!((cancel, settled.unwrap()), (Cancelled::Result, Settled::Done(None)));
        assert!(matches!(opened.find(id).await, Some(Found::Expired)));
        assert_eq!(opened.owed().await, 0);
    }
}
