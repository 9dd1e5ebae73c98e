-- Requests that have had their effect, and the answer they got, so that a repeat gets the same answer.
CREATE TABLE annals.request_keys (
    tenant      text        COLLATE "C" NOT NULL,
    request_key text        COLLATE "C" NOT NULL,
    fingerprint uuid        NOT NULL,
    result      jsonb       NOT NULL,
    expires_at  timestamptz NOT NULL,
    CONSTRAINT request_keys_key PRIMARY KEY (tenant, request_key)
);

-- For sweeping expired keys in bounded batches.
CREATE INDEX request_keys_expiry ON annals.request_keys (expires_at);
