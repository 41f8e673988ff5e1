-- One BMC, one Server. host is `name:HOST:PORT` (claimed by the controller), `addr:IP:PORT` or `hw:IDENTITY`
-- (claimed by the worker after its first read); an empty system is the whole host.
CREATE TABLE bmc_claim (
    host       VARCHAR(320) NOT NULL,
    bmc_system VARCHAR(255) NOT NULL,
    server_uid VARCHAR(64)  NOT NULL,
    namespace  VARCHAR(63)  NOT NULL,
    name       VARCHAR(253) NOT NULL,
    PRIMARY KEY (host, bmc_system),
    KEY server_uid (server_uid)
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

-- Failed logins by BMC and content of the Secret (a keyed hash: the password cannot be guessed from here).
CREATE TABLE login (
    bmc           VARCHAR(320) NOT NULL,
    secret_hash   VARCHAR(64)  NOT NULL,
    failures      INT          NOT NULL DEFAULT 0,
    pending       INT          NOT NULL DEFAULT 0,
    pending_at_ms BIGINT       NOT NULL DEFAULT 0,
    succeeded     TINYINT      NOT NULL DEFAULT 0,
    PRIMARY KEY (bmc, secret_hash)
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;
