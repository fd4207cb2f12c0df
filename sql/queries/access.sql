-- What a connection may be used for. None of this leaves anything behind, but own_session, which a pooler is never asked.

-- name: backend_pid
SELECT pg_backend_pid();

-- name: write_access
-- Whether the server takes writes, who has said otherwise, and where a standby's primary is (for roles that may see it).
SELECT pg_is_in_recovery(), current_setting('transaction_read_only')::boolean,
       (SELECT CASE source WHEN 'database' THEN 'set for the database'
                           WHEN 'user' THEN 'set for the role'
                           WHEN 'database user' THEN 'set for the role in this database'
                           WHEN 'client' THEN 'set by the connection string'
                           ELSE 'set by the ' || source END
          FROM pg_settings WHERE name = 'default_transaction_read_only'),
       w.sender_host, w.sender_port
  FROM (SELECT) AS one
  LEFT JOIN pg_stat_wal_receiver w ON true;

-- name: own_session
-- Long work takes as long as it takes: no time limits (transaction_timeout came with version 17), but for lock_timeout,
-- which spares others from queueing behind us. Statements that are no transaction of their own see what is committed. A
-- client that was killed is noticed within two seconds; a host that is gone says nothing, and without keepalives its
-- session, and its locks, would stay for two hours.
SELECT set_config(name, CASE name WHEN 'default_transaction_isolation' THEN 'read committed'
                                  WHEN 'client_connection_check_interval' THEN '2s'
                                  WHEN 'tcp_keepalives_idle' THEN '30'
                                  WHEN 'tcp_keepalives_interval' THEN '10'
                                  WHEN 'tcp_keepalives_count' THEN '3'
                                  ELSE '0' END, false)
  FROM pg_settings
 WHERE name IN ('default_transaction_isolation', 'client_connection_check_interval', 'tcp_keepalives_idle',
                'tcp_keepalives_interval', 'tcp_keepalives_count', 'statement_timeout', 'transaction_timeout',
                'idle_in_transaction_session_timeout', 'idle_session_timeout');
