-- A network card is claimed like a BMC, under `mac:ADDRESS`. proven: 1 where the BMC of the machine tells of it; 0 where
-- only spec.bootMACAddress does, which yields to a machine whose BMC tells of it.
ALTER TABLE bmc_claim
    ADD COLUMN proven TINYINT NOT NULL DEFAULT 1;

-- What was met while a session waited for its machine: another card of that machine asked, or another machine asked with
-- the card's address.
ALTER TABLE boot_session
    ADD COLUMN other_card       VARCHAR(17)  NULL,
    ADD COLUMN other_card_at_ms BIGINT       NULL,
    ADD COLUMN other_machine    VARCHAR(512) NULL;

-- Through which address and login the last good reading came. NULL, of an older release: the claimed address.
ALTER TABLE server_state
    ADD COLUMN read_through VARCHAR(64) NULL;

-- Written by nobody: with the right to change it alone, a process that changes nothing else here may lock a row of `meta`, by
-- which each makes sure at its start that the server skips locked rows.
ALTER TABLE meta
    ADD COLUMN probe TINYINT NULL;
