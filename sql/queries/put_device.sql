-- Store the links of a device that is locked.
UPDATE nearline.device SET linked_at = :linked_at, user_id = :user_id
WHERE shop = :shop AND anonymous_id = :anonymous_id;
