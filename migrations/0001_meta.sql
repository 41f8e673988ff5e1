-- What holds for the whole database: schema facts that every process reads at its start.
-- Names: `epoch` (random; a restore writes a new one with `autobuild migrate --new-epoch`), `shards` (per site).
CREATE TABLE meta (
    name  VARCHAR(64)  NOT NULL,
    value VARCHAR(255) NOT NULL,
    PRIMARY KEY (name)
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;
