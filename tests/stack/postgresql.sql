-- What sqlserver.sql, sqlserver_login.sql and robots.sql make, for PostgreSQL. Runs as often as one likes.
CREATE TABLE IF NOT EXISTS robots (
    name           VARCHAR(128) NOT NULL,
    "deploymentId" VARCHAR(128) UNIQUE,
    status         VARCHAR(64) NOT NULL DEFAULT 'RUNNING'
);
INSERT INTO robots (name, "deploymentId")
    VALUES ('Invoices', 'f6d30428-15d1-41e9-a952-0742eaaa5a31')
    ON CONFLICT DO NOTHING;
DO $$ BEGIN
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'sam_callback') THEN
        CREATE ROLE sam_callback LOGIN;
    END IF;
END $$;
GRANT SELECT, UPDATE ON robots TO sam_callback;
