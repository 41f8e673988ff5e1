-- The request for a look (`autobuild.dev/reconcile-requested-at`) that was acted on last; NULL: nobody kept count yet.
ALTER TABLE server_state
    ADD COLUMN reconcile_request TEXT NULL;

-- What a BMC refused, so that a right password is tried again: since when it is refused, when it may be tried next
-- without a person's word, the last such word (a hash), and what the BMC said first.
ALTER TABLE login
    ADD COLUMN refused_since_ms BIGINT       NULL,
    ADD COLUMN next_try_ms      BIGINT       NOT NULL DEFAULT 0,
    ADD COLUMN word             VARCHAR(64)  NULL,
    ADD COLUMN said             VARCHAR(512) NULL;
