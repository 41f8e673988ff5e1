-- Which objects, in which version, the user data and the install data of a boot session are from: its hash, fixed with the
-- first script. The same session never serves another one.
ALTER TABLE boot_session ADD COLUMN data_version CHAR(64) NULL;
