-- What reads of the past need: which appends are not contiguous in the log, and when the log was at which position.

-- Appends of several events between whose positions other events were recorded, or none. A read as of a position does not
-- divide an append: of the appends that are not in this table, all events follow each other in the log. The trigger of the
-- events fills it.
CREATE TABLE annals.interleaved_appends (
    first_position bigint NOT NULL,
    last_position  bigint NOT NULL,
    CONSTRAINT interleaved_appends_are_in_order CHECK (first_position < last_position)
);

-- For finding those that a position divides.
CREATE INDEX interleaved_appends_divided ON annals.interleaved_appends USING gist (int8range(first_position, last_position));

-- For some events of the log, about each thousandth, the latest time in microseconds that it or any event before it was
-- recorded. So the first event after a time is found without reading the log. Readers fill it; all rows may be deleted at any
-- time. A row counts only if the event is at its position, as a restored log may have another one there.
CREATE TABLE annals.time_marks (
    position bigint NOT NULL,
    event_id uuid   NOT NULL,
    latest   bigint NOT NULL,
    CONSTRAINT time_marks_key PRIMARY KEY (position)
);
