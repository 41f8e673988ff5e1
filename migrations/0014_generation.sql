-- The generation of the object that the last decision about a server was made on: one on an older object is refused.
ALTER TABLE server_state
    ADD COLUMN generation BIGINT NOT NULL DEFAULT 0;
