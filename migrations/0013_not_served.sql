-- Why the boot service cannot give a session's machine what its image names, whatever the machine does.
ALTER TABLE boot_session
    ADD COLUMN not_served VARCHAR(512) NULL;
