-- Requests that were executed, with their answers, so that a repeated request gets the same answer.
CREATE TABLE annals.request_keys (
    tenant      text        COLLATE "C" NOT NULL,
    request_key text        COLLATE "C" NOT NULL,
    fingerprint uuid        NOT NULL,
    result      jsonb       NOT NULL,
    expires_at  timestamptz NOT NULL,
    CONSTRAINT request_keys_key PRIMARY KEY (tenant, request_key),
    -- As in the library: 1 to 200 bytes, no control characters.
    CONSTRAINT request_keys_are_named CHECK (
        octet_length(tenant) BETWEEN 1 AND 200 AND octet_length(request_key) BETWEEN 1 AND 200
        AND tenant || request_key !~ E'[\\u0001-\\u001f\\u007f-\\u009f]')
);

-- For deleting expired keys in bounded batches.
CREATE INDEX request_keys_expiry ON annals.request_keys (expires_at);
