
-- For --outbox-listen. PostgreSQL makes transactions that notify wait for each other when they commit.
CREATE OR REPLACE FUNCTION nudged_outbox_notify() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_notify('nudged_outbox', '');
    RETURN NULL;
END $$;
DROP TRIGGER IF EXISTS nudged_outbox_notify ON nudged_outbox;
CREATE TRIGGER nudged_outbox_notify AFTER INSERT ON nudged_outbox
FOR EACH STATEMENT EXECUTE PROCEDURE nudged_outbox_notify();
