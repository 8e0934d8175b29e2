-- The shared inbox of the SAM callback service, for SQL Server 2016 and later, and Azure SQL, in a
-- database of compatibility level 130 or higher, which has OPENJSON. It may be run again.
--
-- Run it in the inbox's database, as its owner:
--     sqlcmd -S <server> -d <database> -i sqlserver.sql
-- or let the service's command do it, with a login that may create tables:
--     python -m sam.callback inbox init
--
-- The service's own login needs no more than
--     GRANT SELECT, INSERT, UPDATE, DELETE ON sam_callback_inbox TO sam_callback;
--     GRANT SELECT, UPDATE ON sam_callback_inbox_version TO sam_callback;
--
-- Keep the database in an availability group with synchronous-commit replicas and
-- REQUIRED_SYNCHRONIZED_SECONDARIES_TO_COMMIT = 1 or more (Azure SQL: Business Critical): what is
-- acknowledged is then on two machines, and one may fail.
SET NOCOUNT ON;
IF OBJECT_ID(N'sam_callback_inbox', N'U') IS NULL
    CREATE TABLE sam_callback_inbox (
        -- The deployment, as SAM's database compares ids.
        entry_key      NVARCHAR(400) COLLATE Latin1_General_100_BIN2 NOT NULL PRIMARY KEY,
        number         BIGINT NOT NULL,       -- the sequence number; for one key the higher one wins
        kind           VARCHAR(16) NOT NULL,  -- queued, unmatched, dead_letter, invalid; applied is done
        deployment_id  NVARCHAR(256),         -- 128 characters, each of one or two code units
        status         NVARCHAR(128),         -- 64
        payload        VARBINARY(MAX),
        reason         NVARCHAR(MAX) NOT NULL,
        size           BIGINT NOT NULL,       -- bytes, roughly
        line           SMALLINT NOT NULL,     -- 0 new, 1 tried before, 2 applied, 3 for an operator
        attempts       INT NOT NULL,
        due            BIGINT NOT NULL,       -- in ms since 1970, by this server's clock
        INDEX sam_callback_inbox_due (line, due, number),
        INDEX sam_callback_inbox_kind (kind, number)
    );
IF OBJECT_ID(N'sam_callback_inbox_version', N'U') IS NULL
    CREATE TABLE sam_callback_inbox_version (
        version   INT NOT NULL,
        key_rule  VARCHAR(200) NOT NULL       -- which ids SAM's database takes for the same
    );
INSERT INTO sam_callback_inbox_version (version, key_rule)
    SELECT 1, '' WHERE NOT EXISTS (SELECT 1 FROM sam_callback_inbox_version);
