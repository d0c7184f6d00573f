-- Whose task waits: a hash of upstream and credentials id, so that what one caller has queued can be
-- counted without a look at the task. 0 for tasks of before.
ALTER TABLE state ADD COLUMN owner INTEGER NOT NULL DEFAULT 0;
