//! What lies in the real store, read from outside.

use std::collections::BTreeMap;

use rusqlite::Connection;

use crate::id::Seq;
use crate::store::tests::model::{Delivery, Result, State, Task};

/// Everything that is stored, as the model would have it.
pub(super) fn rows(connection: &Connection) -> BTreeMap<Seq, Task> {
    let mut select = connection
        .prepare_cached(
            "SELECT task.seq, task.webhook_uri IS NOT NULL,
                    state.attempts, state.started, state.due_at, state.deadline, state.lease <> 0,
                    result.failure, result.attempts, result.finished_at, result.chunks, result.erased,
                    delivery.tries, delivery.due_at, delivery.lease <> 0,
                    (SELECT count(*) FROM attempt WHERE attempt.seq = task.seq AND kind = 0),
                    (SELECT count(*) FROM attempt WHERE attempt.seq = task.seq AND kind = 1),
                    (SELECT group_concat(idx) FROM chunk WHERE chunk.seq = task.seq AND kind = 1),
                    (request.seq IS NOT NULL) = (state.seq IS NOT NULL)
             FROM task LEFT JOIN state USING (seq) LEFT JOIN result USING (seq)
                  LEFT JOIN delivery USING (seq) LEFT JOIN request USING (seq)",
        )
        .unwrap();
    let lease = |held: bool| held.then_some(1);
    let rows = select.query_map([], |row| {
        let state = match row.get(2)? {
            Some(attempts) => Some(State {
                attempts,
                started: row.get(3)?,
                due_at: row.get(4)?,
                deadline: row.get(5)?,
                lease: lease(row.get(6)?),
            }),
            None => None,
        };
        let result = match row.get(8)? {
            Some(attempts) => Some(Result {
                failure: row.get(7)?,
                attempts,
                finished_at: row.get(9)?,
                chunks: row.get(10)?,
                erased: row.get(11)?,
            }),
            None => None,
        };
        let delivery = match row.get(12)? {
            Some(tries) => Some(Delivery { tries, due_at: row.get(13)?, lease: lease(row.get(14)?) }),
            None => None,
        };
        let chunks: Option<String> = row.get(17)?;
        let chunks =
            chunks.iter().flat_map(|list| list.split(',')).map(|index| index.parse().unwrap()).collect();
        assert!(row.get::<_, bool>(18)?, "a request is kept exactly as long as its task waits");
        let history = (row.get(15)?, row.get(16)?);
        Ok((
            Seq(row.get(0)?),
            Task { caller: 0, webhook: row.get(1)?, state, result, delivery, chunks, history },
        ))
    });
    rows.unwrap().map(std::result::Result::unwrap).collect()
}
