-- Processes that serve from this database beside each other, by the database's clock. SQLite has one at a
-- time, kept alone by a lock file, and no rows here.
CREATE TABLE node (
    name       TEXT    NOT NULL PRIMARY KEY,
    started_at INTEGER NOT NULL,
    since      INTEGER NOT NULL,    -- heard of without a gap since then
    seen_at    INTEGER NOT NULL     -- when it was last heard of
) STRICT;
