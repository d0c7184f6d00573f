-- The latest instant of the steady clock that the store has seen, so that the clock of the next start does
-- not begin before it, whatever the machine's clock was set to meanwhile. One row.
CREATE TABLE clock (
    id   INTEGER PRIMARY KEY CHECK (id = 1),
    seen INTEGER NOT NULL             -- steady clock, ms
) STRICT;
INSERT INTO clock (id, seen) VALUES (1, 0);
