-- What is on the machines' disks. A machine that was read before this was known may hold anything: it is never taken for
-- blank.
ALTER TABLE server_state
    ADD COLUMN contents TEXT        NULL,
    ADD COLUMN boot_mac VARCHAR(17) NULL,
    ADD KEY boot_mac (boot_mac);

UPDATE server_state SET contents = '{"Foreign":{"since_ms":0}}' WHERE reading IS NOT NULL;

-- What a machine boots while a job installs it. Holds no secret: of tokens only the hash.
CREATE TABLE boot_session (
    server_uid      VARCHAR(64)  NOT NULL,
    job_id          BIGINT       NOT NULL,
    namespace       VARCHAR(63)  NOT NULL,
    name            VARCHAR(253) NOT NULL,
    mac             VARCHAR(17)  NOT NULL,
    image           VARCHAR(253) NOT NULL,
    digest          VARCHAR(80)  NOT NULL,
    token_hash      VARCHAR(64)  NULL,
    fetched_at_ms   BIGINT       NULL,
    heard_at_ms     BIGINT       NULL,
    told_at_ms      BIGINT       NULL,
    percent         INT          NULL,
    line            VARCHAR(256) NULL,
    failed          VARCHAR(256) NULL,
    installed_at_ms BIGINT       NULL,
    PRIMARY KEY (server_uid),
    UNIQUE KEY mac (mac),
    UNIQUE KEY token_hash (token_hash)
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;
