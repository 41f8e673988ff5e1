-- A reason that the oldest release served does not know: `reason` has the word that it knows. NULL: `reason` is exact.
-- The circumstances by the named fields: `cause` has them as the release before compares them. NULL: that one enqueued the job.
ALTER TABLE job
    ADD COLUMN exact_reason VARCHAR(64) NULL,
    ADD COLUMN named_cause  VARCHAR(64) NULL;
