-- What keeps the books right where the world isn't: another database in the place of this one, a clock that is far off,
-- a node that is cut off, a command that is repeated.

-- Tells this database from any other, also from one that was made anew under its name. One row.
CREATE TABLE identity (
    one INTEGER NOT NULL PRIMARY KEY CHECK (one = 1),
    id  TEXT NOT NULL
) STRICT;

-- The newest time that was seen while the clock could be trusted. One row.
CREATE TABLE clock (
    one     INTEGER NOT NULL PRIMARY KEY CHECK (one = 1),
    newest  INTEGER NOT NULL,
    probed  INTEGER NOT NULL DEFAULT 0                      -- counts writes that only tried whether one can write
) STRICT;

-- Counts how often a node has renewed its lease: another node looks at it to tell whether this one is alive.
ALTER TABLE node ADD COLUMN beat INTEGER NOT NULL DEFAULT 0;

-- What was asked, as it was asked: 30 days from now are another day tomorrow, and yet the same command.
ALTER TABLE movement ADD COLUMN asked TEXT;

-- When the secret of now was first used. Rotating a key whose new secret nobody has used (it was lost, or the command was
-- repeated) leaves the old secret that is still in use.
ALTER TABLE api_key ADD COLUMN secret_used_at INTEGER;
UPDATE api_key SET secret_used_at = last_used_at;
