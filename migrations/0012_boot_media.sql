-- Machines that boot from virtual media: the hash of the token by which their BMC reads the medium, and when it did first.
-- What runs from the medium has a token of its own, token_hash.
ALTER TABLE boot_session
    ADD COLUMN media_hash       VARCHAR(64) NULL,
    ADD COLUMN media_read_at_ms BIGINT      NULL,
    ADD UNIQUE KEY media_hash (media_hash);
