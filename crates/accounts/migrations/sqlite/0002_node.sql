-- Processes that serve from this database beside each other; times are of the database's clock. On SQLite one
-- process serves at a time, kept alone by a lock, and the table is empty.
CREATE TABLE node (
    name       TEXT    NOT NULL PRIMARY KEY,
    started_at INTEGER NOT NULL,
    since      INTEGER NOT NULL,    -- set with the row; unused since 0008
    seen_at    INTEGER NOT NULL     -- when it last renewed its lease
) STRICT;
