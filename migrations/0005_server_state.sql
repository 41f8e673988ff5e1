-- What is known of each server. changed_at_ms is set while the controller has not shown the newest version in status.
CREATE TABLE server_state (
    server_uid        VARCHAR(64)  NOT NULL,
    namespace         VARCHAR(63)  NOT NULL,
    name              VARCHAR(253) NOT NULL,
    version           BIGINT       NOT NULL,
    changed_at_ms     BIGINT       NULL,
    reading           MEDIUMTEXT   NULL,
    last_good_read_ms BIGINT       NULL,
    last_try_ms       BIGINT       NULL,
    unanswered        TEXT         NULL,
    handled           TEXT         NOT NULL,
    failure           TEXT         NULL,
    last_job          TEXT         NULL,
    claimed_address   VARCHAR(512) NULL,
    refusal           TEXT         NULL,
    refused_host      VARCHAR(320) NULL,
    PRIMARY KEY (server_uid),
    KEY changed_at_ms (changed_at_ms),
    KEY refused_host (refused_host)
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;
