-- name: register_encoder
-- One row an encoder, whoever comes first; the update that changes nothing makes RETURNING answer the second too.
INSERT INTO pgembed.encoders (name, spec, fingerprint, licence)
VALUES (%(name)s, %(spec)s, %(fingerprint)s, %(licence)s)
ON CONFLICT (fingerprint) DO UPDATE SET name = encoders.name
RETURNING id;
