-- Guards against another database in the place of this one, a clock that is far off, a node that is cut off, and a
-- command that is repeated.

-- The id that tells this database from any other, also from a new one under its name. One row.
CREATE TABLE identity (
    one BIGINT NOT NULL PRIMARY KEY CHECK (one = 1),
    id  TEXT COLLATE "C" NOT NULL
);

-- The newest time that was seen while the clock could be trusted. One row.
CREATE TABLE clock (
    one     BIGINT NOT NULL PRIMARY KEY CHECK (one = 1),
    newest  BIGINT NOT NULL,
    probed  BIGINT NOT NULL DEFAULT 0                      -- counts writes that only probe whether writing works
);

-- How often a node has renewed its lease: other nodes see by it whether the node is alive.
ALTER TABLE node ADD COLUMN beat BIGINT NOT NULL DEFAULT 0;

-- The request, as it was asked, to recognize a replay: "30 days from now" is another day tomorrow, and yet the same.
ALTER TABLE movement ADD COLUMN asked TEXT;

-- When the current secret was first used. Rotating a key whose newest secret was never used (it was lost, or the command
-- was repeated) keeps the old secret that is still in use.
ALTER TABLE api_key ADD COLUMN secret_used_at BIGINT;
UPDATE api_key SET secret_used_at = last_used_at;
