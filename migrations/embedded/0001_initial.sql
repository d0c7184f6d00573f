-- Tables apart by how they change. `seq` is the time-ordered part of the task id: milliseconds and a
-- counter, so rows are appended and no index on the id is needed.

-- Names of upstreams as tasks refer to them; never deleted.
CREATE TABLE upstream (
    id   INTEGER PRIMARY KEY,
    name TEXT NOT NULL UNIQUE
) STRICT;

-- Written once at acceptance, read for results and deliveries, removed by retention.
CREATE TABLE task (
    seq            INTEGER PRIMARY KEY,
    task_id        BLOB NOT NULL CHECK (length(task_id) = 16),
    upstream       INTEGER NOT NULL REFERENCES upstream (id),
    credentials_id TEXT NOT NULL,
    method         TEXT NOT NULL,
    path           TEXT NOT NULL,
    query          BLOB,              -- sealed; NULL without one
    webhook_uri    BLOB,              -- sealed; NULL without one
    accepted_at    INTEGER NOT NULL   -- wall clock, ms
) STRICT;

-- What is needed to call the upstream; erased when the task is final.
CREATE TABLE request (
    seq     INTEGER PRIMARY KEY,
    headers BLOB NOT NULL,            -- sealed; the access token is among them
    body    BLOB,                     -- sealed first chunk; NULL for an empty body
    chunks  INTEGER NOT NULL          -- of the body, the first included
) STRICT;

-- Chunks of bodies and results after the first.
CREATE TABLE chunk (
    seq  INTEGER NOT NULL,
    kind INTEGER NOT NULL CHECK (kind IN (0, 1)),   -- 0 request body, 1 result
    idx  INTEGER NOT NULL CHECK (idx >= 1),
    data BLOB NOT NULL,               -- sealed
    PRIMARY KEY (seq, kind, idx)
) STRICT;

-- One row a task that is neither Succeeded nor Failed; gone when it is.
CREATE TABLE state (
    seq      INTEGER PRIMARY KEY,
    upstream INTEGER NOT NULL,
    due_at   INTEGER NOT NULL,        -- steady clock, ms: schedule and backoff
    deadline INTEGER NOT NULL,        -- steady clock, ms
    lease    INTEGER NOT NULL,        -- 0: nobody's
    attempts INTEGER NOT NULL,        -- settled ones
    started  INTEGER NOT NULL         -- of an unsafe call: the attempt whose first byte may have left
) STRICT;

-- Only resting work is in the index: a task that is handed off never touches it. Repeat `lease = 0` in
-- every query that should use it.
CREATE INDEX state_due ON state (upstream, due_at) WHERE lease = 0;

-- Final tasks, until retention removes the result.
CREATE TABLE result (
    seq             INTEGER PRIMARY KEY,
    succeeded       INTEGER NOT NULL CHECK (succeeded IN (0, 1)),
    finished_at     INTEGER NOT NULL, -- steady clock, ms
    attempts        INTEGER NOT NULL,
    upstream_status INTEGER,          -- of the last answer; NULL without one
    headers         BLOB,             -- sealed, of the last answer
    body            BLOB,             -- sealed first chunk of the last answer
    chunks          INTEGER NOT NULL,
    length          INTEGER NOT NULL, -- bytes of the whole body, unsealed
    failure         TEXT,             -- our code
    reason          TEXT,
    effect_unknown  INTEGER NOT NULL CHECK (effect_unknown IN (0, 1)),
    error           BLOB,             -- sealed: the upstream's own error and description
    CHECK ((failure IS NULL) = (succeeded = 1))
) STRICT;

-- Deliveries still owed; gone when delivered or given up.
CREATE TABLE delivery (
    seq    INTEGER PRIMARY KEY,
    due_at INTEGER NOT NULL,          -- steady clock, ms
    lease  INTEGER NOT NULL,
    tries  INTEGER NOT NULL           -- settled ones
) STRICT;

CREATE INDEX delivery_due ON delivery (due_at) WHERE lease = 0;

-- History: one row a settled attempt or delivery attempt.
CREATE TABLE attempt (
    seq      INTEGER NOT NULL,
    kind     INTEGER NOT NULL CHECK (kind IN (0, 1)),   -- 0 at the upstream, 1 at the receiver
    number   INTEGER NOT NULL,
    ended_at INTEGER NOT NULL,        -- wall clock, ms
    took_ms  INTEGER NOT NULL,
    outcome  TEXT NOT NULL,
    status   INTEGER,                 -- of the answer, if there was one
    PRIMARY KEY (seq, kind, number)
) STRICT, WITHOUT ROWID;

-- The node's own secrets, sealed: the key behind opaque fingerprints, and a text that proves the master
-- key is the right one.
CREATE TABLE secret (
    name  TEXT PRIMARY KEY,
    value BLOB NOT NULL
) STRICT, WITHOUT ROWID;
