-- What is known of a machine whichever Server it belongs to: it outlives them. `contents` as in server_state.
CREATE TABLE machine (
    identity      VARCHAR(320) NOT NULL,
    server_uid    VARCHAR(64)  NOT NULL,
    contents      TEXT         NOT NULL,
    changed_at_ms BIGINT       NOT NULL,
    PRIMARY KEY (identity)
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

-- The machine that answered, as `machine` has it; NULL until then, or where it tells nothing of itself.
ALTER TABLE server_state
    ADD COLUMN machine VARCHAR(320) NULL;

-- How many machines of a namespace had their data given up in an hour (of the Unix epoch).
CREATE TABLE budget (
    hour      BIGINT      NOT NULL,
    namespace VARCHAR(63) NOT NULL,
    used      BIGINT      NOT NULL DEFAULT 0,
    PRIMARY KEY (hour, namespace)
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

-- The hour of whose budget the job took its share; NULL: it took none, or gave it back.
ALTER TABLE job
    ADD COLUMN budget_hour BIGINT NULL;

-- What a session boots for.
ALTER TABLE boot_session
    ADD COLUMN purpose VARCHAR(16) NOT NULL DEFAULT 'Install';
