-- The shared inbox of the SAM callback service, for PostgreSQL 12 and later. It may be run again.
--
-- Run it as the owner of the database:
--     psql --set ON_ERROR_STOP=1 --file postgresql.sql --dbname sam_inbox
-- or let the service's command do it, with a login that may create tables:
--     python -m sam.callback inbox init
--
-- The service's own login needs no more than
--     GRANT SELECT, INSERT, UPDATE, DELETE ON sam_callback_inbox TO sam_callback;
--     GRANT SELECT, UPDATE ON sam_callback_inbox_version TO sam_callback;
--
-- Name at least two standbys in synchronous_standby_names, as in 'ANY 1 (a, b)': what is
-- acknowledged is then on two machines, and one may fail.
CREATE TABLE IF NOT EXISTS sam_callback_inbox (
    entry_key      text PRIMARY KEY,   -- the deployment, as SAM's database compares ids
    number         bigint NOT NULL,    -- the sequence number; for one key the higher one wins
    kind           text NOT NULL,      -- queued, unmatched, dead_letter, invalid; applied is done
    deployment_id  text,
    status         text,
    payload        bytea,
    reason         text NOT NULL,
    size           bigint NOT NULL,    -- bytes, roughly
    line           smallint NOT NULL,  -- 0 new, 1 tried before, 2 applied, 3 for an operator
    attempts       integer NOT NULL,
    due            bigint NOT NULL     -- in ms since 1970, by this server's clock
);
CREATE INDEX IF NOT EXISTS sam_callback_inbox_due ON sam_callback_inbox (line, due, number);
CREATE INDEX IF NOT EXISTS sam_callback_inbox_kind ON sam_callback_inbox (kind, number);
CREATE TABLE IF NOT EXISTS sam_callback_inbox_version (
    version   integer NOT NULL,
    key_rule  text NOT NULL            -- which ids SAM's database takes for the same
);
INSERT INTO sam_callback_inbox_version (version, key_rule)
    SELECT 1, '' WHERE NOT EXISTS (SELECT 1 FROM sam_callback_inbox_version);
