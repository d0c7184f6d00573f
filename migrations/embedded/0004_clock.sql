-- Both clocks of the node at one instant, so that the steady clock of the next start goes on from there,
-- whatever the machine's clock was set to meanwhile. One row, or none before the first start.
CREATE TABLE clock (
    id   INTEGER PRIMARY KEY CHECK (id = 1),
    seen INTEGER NOT NULL,            -- steady clock, ms
    wall INTEGER NOT NULL             -- wall clock at that instant, ms
) STRICT;
