-- Account for one received file; the table's check refuses an account that does not add up.
INSERT INTO quality.file_account (
    shop, received_on, file, source, file_digest, status, rows_read, accepted, quarantined, duplicate
) VALUES (
    :shop, :received_on, :file, :source, :file_digest, :status, :rows_read, :accepted, :quarantined, :duplicate
);
