
COMMIT;

-- What others than the owner of the table need (UPDATE is for FOR UPDATE), and USAGE on a schema of your own, which
-- the search_path of the user that drains has to name (ALTER ROLE nudged SET search_path = app):
--   GRANT INSERT ON nudged_outbox TO application;
--   GRANT SELECT, UPDATE, DELETE ON nudged_outbox TO nudged;
