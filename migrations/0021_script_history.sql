-- In which history (see `meta`) the first script of a boot session was given: in another one it is not given again, and its job
-- goes on. NULL: none was given yet, or a process of the release before gave it.
ALTER TABLE boot_session ADD COLUMN given_in VARCHAR(64) NULL;
