-- The live workers. A row is one life of one process; its heartbeat is a sequence, not a time, because no wall clock
-- decides about a lease.
CREATE TABLE worker (
    incarnation BIGINT       NOT NULL,
    site        VARCHAR(63)  NOT NULL,
    host        VARCHAR(255) NOT NULL,
    heartbeat   BIGINT       NOT NULL,
    tombstone   TINYINT      NOT NULL DEFAULT 0,
    PRIMARY KEY (incarnation)
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;
