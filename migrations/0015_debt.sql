-- A machine that a job has switched off and that has to be on again; NULL where nothing is owed.
ALTER TABLE server_state
    ADD COLUMN debt TEXT NULL;
