
COMMIT;

-- What others than the owner of the table need (UPDATE is for FOR UPDATE):
--   GRANT INSERT ON nudged_outbox TO application;
--   GRANT SELECT, UPDATE, DELETE ON nudged_outbox TO nudged;
