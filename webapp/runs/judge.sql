-- All that a worker of the judge queue may do in the database. It runs next to untrusted programs,
-- so its role owns nothing and may read no table: it may call these functions, which run with their
-- owner's rights, and which touch a shard only under its lease and only in the judge queue. What a
-- finished shard means for its run is settled by others (webapp/runs/settling.py).
CREATE OR REPLACE FUNCTION judge_held(shard bigint, lease uuid) RETURNS bool
LANGUAGE sql SECURITY DEFINER SET search_path = public, pg_temp AS $$
    SELECT EXISTS (
        SELECT FROM runs_shard s JOIN runs_stage st ON st.id = s.stage_id
        WHERE s.id = shard AND s.lease_token = lease AND s.state = 'running' AND st.queue = 'judge'
    )
$$;

CREATE OR REPLACE FUNCTION judge_claim(
    worker text, lease_seconds float8, sticky bigint, default_limit int,
    OUT shard_id bigint, OUT stage_id bigint, OUT run_id bigint, OUT token uuid, OUT work jsonb,
    OUT accepted text[]
) RETURNS SETOF record
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
BEGIN
    SELECT c.shard_id, c.stage_id, c.run_id, c.token, c.work, c.accepted
    INTO shard_id, stage_id, run_id, token, work, accepted
    FROM runs_claim(
        ARRAY['judge'], 'judge:' || worker, least(lease_seconds, 600), sticky, NULL, 0, default_limit
    ) c;
    IF judge_claim.shard_id IS NULL THEN
        RETURN;
    END IF;
    RETURN NEXT;
END $$;

-- What people see of a claim. Apart from it, because a claim must not wait for these rows.
CREATE OR REPLACE FUNCTION judge_started(shard bigint, lease uuid) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
    of_stage bigint;
    of_run bigint;
BEGIN
    IF NOT judge_held(shard, lease) THEN RETURN; END IF;
    SELECT st.id, st.run_id INTO of_stage, of_run
    FROM runs_shard s JOIN runs_stage st ON st.id = s.stage_id WHERE s.id = shard;
    UPDATE runs_run SET state = 'running', started_at = coalesce(started_at, statement_timestamp())
    WHERE id = of_run AND state = 'queued';
    UPDATE runs_stage SET state = 'running', started_at = coalesce(started_at, statement_timestamp())
    WHERE id = of_stage AND state = 'queued';
END $$;

CREATE OR REPLACE FUNCTION judge_renew(shard bigint, lease uuid, lease_seconds float8) RETURNS bool
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
BEGIN
    IF NOT judge_held(shard, lease) THEN RETURN false; END IF;
    UPDATE runs_shard SET updated_at = statement_timestamp(),
        lease_expires_at = statement_timestamp() + make_interval(secs => least(lease_seconds, 600))
    WHERE id = shard AND lease_token = lease AND state = 'running';
    RETURN FOUND;
END $$;

-- What the ledger will say of the lease: nobody can have used more than 1024 CPUs all the time.
CREATE OR REPLACE FUNCTION judge_usage(
    shard bigint, lease uuid, cpu_seconds float8, cause text
) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
BEGIN
    IF NOT judge_held(shard, lease) THEN RETURN; END IF;
    UPDATE runs_shard SET usage = jsonb_build_object('cpu_seconds', greatest(0, least(
            nullif(judge_usage.cpu_seconds, 'NaN'),
            1024 * extract(epoch FROM statement_timestamp() - leased_at))))
        || CASE WHEN judge_usage.cause IN ('out_of_memory', 'limits')
                THEN jsonb_build_object('cause', judge_usage.cause) ELSE '{}' END
    WHERE id = shard AND lease_token = lease AND state = 'running';
END $$;

CREATE OR REPLACE FUNCTION judge_release(shard bigint, lease uuid) RETURNS bool
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
BEGIN
    IF NOT judge_held(shard, lease) THEN RETURN false; END IF;
    UPDATE runs_shard SET state = 'queued', lease_token = NULL, lease_expires_at = NULL,
        attempts = attempts - 1, updated_at = statement_timestamp()
    WHERE id = shard AND lease_token = lease AND state = 'running';
    RETURN FOUND;
END $$;

CREATE OR REPLACE FUNCTION judge_progress(
    shard bigint, lease uuid, units_done bigint, units_total bigint
) RETURNS bool
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
BEGIN
    IF NOT judge_held(shard, lease) THEN RETURN false; END IF;
    UPDATE runs_shard SET done = units_done, total = units_total, updated_at = statement_timestamp()
    WHERE id = shard AND lease_token = lease AND state = 'running';
    UPDATE runs_stage st SET unit = 'verdicts', done = sums.done, total = sums.total
    FROM (SELECT s.stage_id, sum(s.done) AS done, sum(s.total) AS total FROM runs_shard s
          WHERE s.stage_id = (SELECT o.stage_id FROM runs_shard o WHERE o.id = shard)
          GROUP BY s.stage_id) AS sums
    WHERE st.id = sums.stage_id;
    RETURN true;
END $$;

CREATE OR REPLACE FUNCTION judge_accept(
    shard bigint, lease uuid, segment text, digest text, lines int, size bigint
) RETURNS bool
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
BEGIN
    PERFORM FROM runs_shard WHERE id = shard AND lease_token = lease FOR NO KEY UPDATE;
    IF NOT judge_held(shard, lease)
       OR segment !~ ('^' || lpad(shard::text, 8, '0') || '-' || replace(lease::text, '-', '')
                      || '-[0-9]+\.jsonl\.zst$') THEN
        RETURN false;
    END IF;
    INSERT INTO runs_segment (shard_id, name, lease_token, sha256, row_count, size_bytes, accepted_at)
    VALUES (shard, segment, lease, digest, lines, size, statement_timestamp())
    ON CONFLICT DO NOTHING;
    RETURN true;
END $$;

CREATE OR REPLACE FUNCTION judge_finish(shard bigint, lease uuid, outcome jsonb) RETURNS bool
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
BEGIN
    IF NOT judge_held(shard, lease) THEN RETURN false; END IF;
    UPDATE runs_shard SET state = 'finished', result = outcome, done = total, error = '',
        lease_token = NULL, lease_expires_at = NULL, updated_at = statement_timestamp()
    WHERE id = shard AND lease_token = lease AND state = 'running';
    RETURN FOUND;
END $$;

CREATE OR REPLACE FUNCTION judge_fail(
    shard bigint, lease uuid, sentence text, again bool, wait_seconds float8, tail text
) RETURNS bool
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
BEGIN
    IF NOT judge_held(shard, lease) THEN RETURN false; END IF;
    UPDATE runs_shard SET error = sentence, lease_token = NULL, lease_expires_at = NULL,
        updated_at = statement_timestamp(), failures = failures + 1,
        state = CASE WHEN again THEN 'queued' ELSE 'failed' END,
        not_before = CASE WHEN again
            THEN statement_timestamp() + make_interval(secs => wait_seconds * 2 ^ least(failures, 16)) END
    WHERE id = shard AND lease_token = lease AND state = 'running';
    UPDATE runs_stage SET log_tail = tail
    WHERE id = (SELECT stage_id FROM runs_shard WHERE id = shard);
    RETURN true;
END $$;

CREATE OR REPLACE FUNCTION judge_beat(worker text, on_host text, busy text) RETURNS void
LANGUAGE sql SECURITY DEFINER SET search_path = public, pg_temp AS $$
    INSERT INTO runs_workerheartbeat (name, host, queues, doing, draining, started_at, seen_at)
    VALUES (left('judge:' || worker, 200), left(on_host, 200), 'judge', left(coalesce(busy, ''), 300),
            false, statement_timestamp(), statement_timestamp())
    ON CONFLICT (name) DO UPDATE
    SET seen_at = statement_timestamp(), doing = coalesce(left(busy, 300), runs_workerheartbeat.doing)
$$;

CREATE OR REPLACE FUNCTION judge_forget(worker text) RETURNS void
LANGUAGE sql SECURITY DEFINER SET search_path = public, pg_temp AS $$
    DELETE FROM runs_workerheartbeat WHERE name = 'judge:' || worker
$$;
