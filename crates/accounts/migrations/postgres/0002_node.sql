-- Processes that serve from this database beside each other; times are of the database's clock.
CREATE TABLE node (
    name       TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    started_at BIGINT NOT NULL,
    since      BIGINT NOT NULL,    -- set with the row; unused since 0008
    seen_at    BIGINT NOT NULL     -- when it last renewed its lease
);
