-- Replace the catalogue of a shop by the staged one, touching only rows that differ.
-- Reads: staged_item, filled by COPY earlier in the same transaction. Locks: row locks in item_id order.
INSERT INTO profiles.item AS known
SELECT * FROM staged_item
ORDER BY item_id
ON CONFLICT (shop, item_id) DO UPDATE SET
    title = excluded.title,
    description = excluded.description,
    category = excluded.category,
    brand = excluded.brand,
    price = excluded.price,
    currency = excluded.currency,
    is_available = excluded.is_available,
    is_stub = excluded.is_stub,
    updated_at = excluded.updated_at
WHERE known.* IS DISTINCT FROM excluded.*;
