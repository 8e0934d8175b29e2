-- A few robots that run, for trying the service out; for SQLite and SQL Server alike.
INSERT INTO robots (name, deploymentId)
    SELECT 'Invoices', 'f6d30428-15d1-41e9-a952-0742eaaa5a31'
    WHERE NOT EXISTS (SELECT 1 FROM robots WHERE deploymentId = 'f6d30428-15d1-41e9-a952-0742eaaa5a31');
INSERT INTO robots (name, deploymentId)
    SELECT 'Bank reconciliation', '3e225573-4e78-48c8-bb08-efbeeb795c22'
    WHERE NOT EXISTS (SELECT 1 FROM robots WHERE deploymentId = '3e225573-4e78-48c8-bb08-efbeeb795c22');
INSERT INTO robots (name, deploymentId)
    SELECT 'Customer onboarding', '8c29b906-2518-41c5-ada8-07b83508b5b8'
    WHERE NOT EXISTS (SELECT 1 FROM robots WHERE deploymentId = '8c29b906-2518-41c5-ada8-07b83508b5b8');
INSERT INTO robots (name, deploymentId)
    SELECT 'Monthly report', 'b6941a48-10cc-465d-bf53-178bd2939bd1'
    WHERE NOT EXISTS (SELECT 1 FROM robots WHERE deploymentId = 'b6941a48-10cc-465d-bf53-178bd2939bd1');
