-- How many jobs of a class may be in flight at a site. `used` is the number of live jobs with `permit_held`, changed in
-- the transactions that change those, and repaired by a sweep.
CREATE TABLE permit (
    site  VARCHAR(63) NOT NULL,
    class VARCHAR(32) NOT NULL,
    cap   INT         NOT NULL,
    used  INT         NOT NULL DEFAULT 0,
    PRIMARY KEY (site, class)
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

-- permit_class: NULL where the action needs no permit.
ALTER TABLE job
    ADD COLUMN permit_class VARCHAR(32) NULL,
    ADD COLUMN permit_held  TINYINT     NOT NULL DEFAULT 0;
