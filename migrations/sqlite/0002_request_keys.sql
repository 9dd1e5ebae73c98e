-- Requests that were executed, with their answers, so that a repeated request gets the same answer.
CREATE TABLE annals_request_keys (
    tenant      TEXT    NOT NULL,
    request_key TEXT    NOT NULL,
    fingerprint BLOB    NOT NULL CONSTRAINT annals_request_keys_fingerprint_is_a_uuid CHECK (length(fingerprint) = 16),
    result      TEXT    NOT NULL CONSTRAINT annals_request_keys_result_is_json CHECK (json_valid(result)),
    expires_at  INTEGER NOT NULL,
    CONSTRAINT annals_request_keys_key PRIMARY KEY (tenant, request_key)
) STRICT, WITHOUT ROWID;

-- For deleting expired keys in bounded batches.
CREATE INDEX annals_request_keys_expiry ON annals_request_keys (expires_at);
