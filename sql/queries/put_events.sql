-- Put one event or many into the inbox; return how many. An event that names no shop is of this one.
SELECT inbox.put(coalesce(jsonb_agg(
    CASE jsonb_typeof(given.event)
        WHEN 'object' THEN jsonb_build_object('shop', cast(:shop AS text)) || jsonb_strip_nulls(given.event)
        ELSE given.event
    END
), '[]')) AS taken
FROM jsonb_array_elements(
    CASE jsonb_typeof(cast(:events AS jsonb))
        WHEN 'array' THEN cast(:events AS jsonb) ELSE jsonb_build_array(cast(:events AS jsonb))
    END
) AS given (event);
