-- What became of every job that was worth telling. Append-only; old rows go in small deletes by finished_at_ms.
CREATE TABLE job_history (
    job_id         BIGINT        NOT NULL,
    server_uid     VARCHAR(64)   NOT NULL,
    namespace      VARCHAR(63)   NOT NULL,
    name           VARCHAR(253)  NOT NULL,
    site           VARCHAR(63)   NOT NULL,
    action         VARCHAR(32)   NOT NULL,
    result         VARCHAR(32)   NOT NULL,
    reason         VARCHAR(64)   NOT NULL,
    message        VARCHAR(1100) NOT NULL,
    step           VARCHAR(32)   NOT NULL,
    intent         VARCHAR(64)   NOT NULL,
    requester      VARCHAR(255)  NOT NULL,
    enqueued_at_ms BIGINT        NOT NULL,
    started_at_ms  BIGINT        NULL,
    finished_at_ms BIGINT        NOT NULL,
    PRIMARY KEY (job_id),
    KEY finished_at_ms (finished_at_ms)
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;
