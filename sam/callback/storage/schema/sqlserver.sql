-- SAM's table in SQL Server: what the service needs of it, and an index for its UPDATE.
-- Runs as often as one likes, in the database that holds the table. A table that is there stays as
-- it is, but for the index.
--
-- SQL_SAM_PAYLOAD_COLUMN and SQL_SAM_FINISHED_COLUMN name two more columns, where they are wanted:
--   ALTER TABLE dbo.robots ADD payload NVARCHAR(MAX) NULL, finished DATETIME2(6) NULL;
SET NOCOUNT ON;

IF OBJECT_ID(N'dbo.robots', N'U') IS NULL
    CREATE TABLE dbo.robots (
        id           INT IDENTITY(1, 1) CONSTRAINT PK_robots PRIMARY KEY,
        name         NVARCHAR(128) NOT NULL,
        deploymentId VARCHAR(128) NULL,
        status       VARCHAR(64) NOT NULL CONSTRAINT DF_robots_status DEFAULT 'RUNNING'
    );
GO

-- Without it each UPDATE reads, and locks, every row.
IF NOT EXISTS (
    SELECT 1
    FROM sys.indexes AS i
    JOIN sys.index_columns AS c ON c.object_id = i.object_id AND c.index_id = i.index_id
    WHERE i.object_id = OBJECT_ID(N'dbo.robots')
      AND i.is_disabled = 0
      AND c.key_ordinal = 1
      AND COL_NAME(c.object_id, c.column_id) = N'deploymentId'
)
    CREATE INDEX IX_robots_deploymentId ON dbo.robots (deploymentId);
GO
