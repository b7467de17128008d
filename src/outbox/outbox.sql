-- nudged outbox, version 1. May be run again at any time, by the owner of the table.
--
-- In the transaction that changes the data, or in a trigger:
--   SELECT nudge('acme', 'posts', 'feed:123');
--   SELECT nudge('acme', VARIADIC ARRAY['posts', 'feed:123']);   -- an empty array publishes nothing
--   SELECT nudge_topic('acme', 'run-7', 'output', '{"n":1}');
--   SELECT nudge_topic_text('acme', 'run-7', 'output', 'a line', bulk => true);
-- nudged publishes it once the transaction is committed, and never if it is rolled back.
BEGIN;

-- Not even "already exists, skipping".
SET LOCAL client_min_messages = warning;

-- All of it is in one schema, the first of search_path. The functions find their table there, whoever calls them from
-- wherever, and no temporary table instead.
DO $$ BEGIN
    IF current_schema() IS NULL THEN
        RAISE EXCEPTION 'search_path has no schema in which to make the outbox';
    END IF;
    PERFORM set_config('search_path', format('%I, pg_temp', current_schema()), true);
END $$;

CREATE TABLE IF NOT EXISTS nudged_outbox (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    xid bigint NOT NULL DEFAULT txid_current(), -- for --outbox-delay
    written timestamptz NOT NULL DEFAULT now(),
    org text NOT NULL,
    keys text[],
    topic text,
    event text,
    data json,
    text text,
    bulk boolean
);

-- Rows live for a moment: what they leave behind is removed soon.
ALTER TABLE nudged_outbox SET (
    autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 10000,
    autovacuum_analyze_scale_factor = 0, autovacuum_analyze_threshold = 100000
);

-- A publish has at most 256 keys: more of them are several rows.
CREATE OR REPLACE FUNCTION nudge(org text, VARIADIC keys text[]) RETURNS void
LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
BEGIN
    IF cardinality($2) > 256 THEN
        INSERT INTO nudged_outbox (org, keys)
        SELECT $1, array_agg(key ORDER BY n) FROM unnest($2) WITH ORDINALITY AS all_keys (key, n)
        GROUP BY (n - 1) / 256;
    ELSIF cardinality($2) > 0 THEN
        INSERT INTO nudged_outbox (org, keys) VALUES ($1, $2);
    END IF;
END $$;

CREATE OR REPLACE FUNCTION nudge_topic(
    org text, topic text, event text, data json, bulk boolean DEFAULT false
) RETURNS void
LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
BEGIN
    INSERT INTO nudged_outbox (org, topic, event, data, bulk) VALUES ($1, $2, $3, $4, $5);
END $$;

CREATE OR REPLACE FUNCTION nudge_topic_text(
    org text, topic text, event text, "text" text, bulk boolean DEFAULT false
) RETURNS void
LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
BEGIN
    INSERT INTO nudged_outbox (org, topic, event, "text", bulk) VALUES ($1, $2, $3, $4, $5);
END $$;

CREATE OR REPLACE FUNCTION nudged_outbox_version() RETURNS integer
LANGUAGE sql IMMUTABLE AS 'SELECT 1';
