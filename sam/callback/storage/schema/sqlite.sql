-- SAM's table in the embedded SQLite database: the columns that the service uses, and a name.
CREATE TABLE IF NOT EXISTS robots (
    id           INTEGER PRIMARY KEY,
    name         TEXT NOT NULL,
    deploymentId VARCHAR(128) UNIQUE,
    status       VARCHAR(64) NOT NULL DEFAULT 'RUNNING' CHECK (length(status) <= 64)
);
