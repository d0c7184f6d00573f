-- Calls that carried an Idempotency-Key, until retention forgets the key. Only keyed hashes: neither
-- the key nor the call can be read from them.
CREATE TABLE idempotency (
    seq      INTEGER PRIMARY KEY,                          -- of the task the call became
    key_hash BLOB NOT NULL UNIQUE CHECK (length(key_hash) = 32),
    call_hash BLOB NOT NULL CHECK (length(call_hash) = 32),
    task_id  BLOB NOT NULL CHECK (length(task_id) = 16)    -- outlives the task: a repeat is never a new one
) STRICT;

-- Of an unsafe call: when its first byte may have left. Wall clock, ms; 0 where none has.
ALTER TABLE state ADD COLUMN started_at INTEGER NOT NULL DEFAULT 0;

-- Of a call that was sent and not answered: when, how much of its body, and why there is no answer.
ALTER TABLE result ADD COLUMN sent_at INTEGER;      -- wall clock, ms
ALTER TABLE result ADD COLUMN bytes_sent INTEGER;   -- of the body; NULL where nobody can know
ALTER TABLE result ADD COLUMN cause TEXT;

-- Erased on demand; the row stays only while its delivery is owed.
ALTER TABLE result ADD COLUMN erased INTEGER NOT NULL DEFAULT 0 CHECK (erased IN (0, 1));
CREATE INDEX result_erased ON result (seq) WHERE erased = 1;
