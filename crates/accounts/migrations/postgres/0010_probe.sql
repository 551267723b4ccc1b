-- A server that couldn't write a hold writes as much as one needs here, to find out whether it can again. One row,
-- which means nothing.
CREATE TABLE probe (
    one     BIGINT NOT NULL PRIMARY KEY CHECK (one = 1),
    padding TEXT   NOT NULL
);
