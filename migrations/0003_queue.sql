-- The narrow rows of what waits. state: 0 ready (started), 1 queued (never started), 3 parked (ord is the wake time);
-- 2 is kept for queued jobs that need a permit. ord of 0 and 1 is the lane in the top byte and the order below it.
-- No other index: a claim reads a range of the primary key and never sorts.
CREATE TABLE queue (
    site       VARCHAR(63) NOT NULL,
    shard      INT         NOT NULL,
    state      TINYINT     NOT NULL,
    ord        BIGINT      NOT NULL,
    id         BIGINT      NOT NULL,
    server_uid VARCHAR(64) NOT NULL,
    PRIMARY KEY (site, shard, state, ord, id)
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;
