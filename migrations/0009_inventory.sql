-- What a machine is made of: long, and hardly ever another. Beside it `server_state.reading` holds what changes, its
-- power; every change of a job's step writes that row, so it is kept short. inventory_hash tells whether a reading
-- brings another inventory; NULL: write it anew.
CREATE TABLE inventory (
    server_uid VARCHAR(64) NOT NULL,
    content    MEDIUMTEXT  NOT NULL,
    PRIMARY KEY (server_uid)
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

INSERT INTO inventory (server_uid, content)
    SELECT server_uid, JSON_REMOVE(reading, '$.power', '$.last_reset_time') FROM server_state WHERE reading IS NOT NULL;

ALTER TABLE server_state ADD COLUMN inventory_hash BIGINT NULL;

-- Old rows go by their key: ids begin with the time. Ids are random below the millisecond: two servers may have jobs of
-- the same id, one server never.
ALTER TABLE job_history
    DROP KEY finished_at_ms,
    DROP PRIMARY KEY,
    ADD PRIMARY KEY (job_id, server_uid);
