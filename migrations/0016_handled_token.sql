-- Every value of a token that was ever handled for a server, by the first eight bytes of its SHA-256: a value asks once, ever.
-- server_state.handled has the last ones in words; what it has from before comes here with the next one.
CREATE TABLE handled_token (
    server_uid VARCHAR(64) NOT NULL,
    kind       VARCHAR(16) NOT NULL,
    hash       BIGINT      NOT NULL,
    PRIMARY KEY (server_uid, kind, hash)
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

-- The tokens that the job's first request takes, while no request of it may have been carried out; NULL: none.
ALTER TABLE job
    ADD COLUMN taking TEXT NULL;
