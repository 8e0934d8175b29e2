-- The service's login, with the least rights that it needs: SELECT and UPDATE on SAM's table.
-- Runs as often as one likes, with sqlcmd, in the database that holds the table:
--
--   sqlcmd -d SAM -v CALLBACK_LOGIN_PASSWORD="..." -i sqlserver_login.sql
--
-- sqlcmd puts the password into this text as it is, so a quote in it has to be written twice.
-- Running it again gives the login the password of that run. Azure SQL Database has its logins in
-- master: there, CREATE USER sam_callback WITH PASSWORD = '...' and the GRANT below do the same.
SET NOCOUNT ON;
SET XACT_ABORT ON;

IF OBJECT_ID(N'dbo.robots') IS NULL
    THROW 50001, 'There is no table dbo.robots in this database. Run sqlserver.sql first.', 1;

-- CREATE and ALTER LOGIN take no variable for the password: the statement is put together.
DECLARE @password NVARCHAR(MAX) = N'$(CALLBACK_LOGIN_PASSWORD)';
IF DATALENGTH(@password) > 256
    THROW 50002, 'CALLBACK_LOGIN_PASSWORD is longer than 128 characters, which no login may have.', 1;
DECLARE @verb NVARCHAR(6) =
    CASE WHEN SUSER_ID(N'sam_callback') IS NULL THEN N'CREATE' ELSE N'ALTER' END;
DECLARE @statement NVARCHAR(400) =
    @verb + N' LOGIN sam_callback WITH PASSWORD = N' + QUOTENAME(@password, N'''');
EXECUTE (@statement);

IF USER_ID(N'sam_callback') IS NULL
    CREATE USER sam_callback FOR LOGIN sam_callback;
ELSE
    ALTER USER sam_callback WITH LOGIN = sam_callback;

GRANT SELECT, UPDATE ON dbo.robots TO sam_callback;
GO
