-- For some events of the log, about each thousandth, the latest time in microseconds that it or any event before it was
-- recorded. So the first event after a time is found without reading the log. Readers fill it; all rows may be deleted at any
-- time. A row counts only if the event is at its position, as a restored log may have another one there.
CREATE TABLE annals_time_marks (
    position INTEGER PRIMARY KEY,
    event_id BLOB    NOT NULL,
    latest   INTEGER NOT NULL
) STRICT;
