-- Processes that serve from this database beside each other, by the database's clock.
CREATE TABLE node (
    name       TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    started_at BIGINT NOT NULL,
    since      BIGINT NOT NULL,    -- heard of without a gap since then
    seen_at    BIGINT NOT NULL     -- when it was last heard of
);
