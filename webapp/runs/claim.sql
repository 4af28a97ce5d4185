-- Lease the shard that is next by the claim order, in one round trip.
--
-- Next is: of the run with the highest priority; of the stage whose model is loaded already
-- (sticky); of the person with the fewest shards being done; of the oldest run; the first by index.
-- People who have as many shards being done as they may are passed over. A shard whose row somebody
-- else is just changing is skipped, never waited for. tests/webapp/test_claim_order.py compares the
-- order with a model of it. Times are those of the statement, as Django's Now() is.
--
-- The rows of stage and run are only read: whoever cancels locks run, stages and shards in that
-- order, and would deadlock with a claim that came from the other end.
CREATE OR REPLACE FUNCTION runs_claim(
    queues text[],          -- of the worker
    worker_name text,
    lease_seconds float8,
    sticky bigint,          -- the stage that the worker's child is loaded for, or null
    only_stage bigint,      -- nothing but this stage, or null
    max_devices int,        -- devices that the child may be given; null: no matter
    default_limit int       -- for people who have no limit of their own; 0: none
) RETURNS TABLE (
    shard_id bigint, stage_id bigint, run_id bigint, token uuid, work jsonb,
    starts bool,            -- stage and run are to be shown as running
    accepted text[]         -- segments of earlier leases; of all of the stage's shards to merge
)
LANGUAGE plpgsql VOLATILE AS $function$
DECLARE
    chosen record;
    busy int;
    passed_over bigint[] := ARRAY[]::bigint[];
BEGIN
    IF EXISTS (SELECT FROM runs_workerheartbeat h WHERE h.name = worker_name AND h.draining) THEN
        RETURN;
    END IF;
    LOOP
        WITH active AS (
            SELECT r.owner_id, count(*) AS shards
            FROM runs_shard s JOIN runs_stage st ON st.id = s.stage_id
                 JOIN runs_run r ON r.id = st.run_id
            WHERE s.state = 'running' AND s.lease_expires_at >= statement_timestamp()
            GROUP BY r.owner_id
        ), ranked AS (
            SELECT st.id, st.run_id, r.owner_id, r.priority, st.position,
                   coalesce(a.shards, 0) AS active,
                   coalesce(u.max_running_shards, nullif(default_limit, 0)) AS owner_limit,
                   NOT (st.state = 'running' AND r.state = 'running'
                        AND st.started_at IS NOT NULL AND r.started_at IS NOT NULL) AS starts
            FROM runs_stage st JOIN runs_run r ON r.id = st.run_id
                 JOIN core_user u ON u.id = r.owner_id
                 LEFT JOIN active a ON a.owner_id = r.owner_id
            WHERE st.state IN ('queued', 'running') AND r.state IN ('queued', 'running')
              AND st.queue = ANY (queues)
              AND (only_stage IS NULL OR st.id = only_stage)
              AND (max_devices IS NULL OR st.devices <= max_devices)
              AND r.owner_id <> ALL (passed_over)
        )
        SELECT s.id, ranked.id AS of_stage, ranked.run_id, ranked.owner_id, ranked.owner_limit,
               s.work, ranked.starts
        INTO chosen
        FROM ranked
             -- More than a stage's first one, because others may be claiming at this moment.
             JOIN LATERAL (
                 SELECT o.id FROM runs_shard o
                 WHERE o.stage_id = ranked.id AND o.state IN ('queued', 'running')
                   AND ((o.state = 'queued' AND (o.not_before IS NULL OR o.not_before <= statement_timestamp()))
                        OR (o.state = 'running' AND o.lease_expires_at < statement_timestamp()))
                 ORDER BY o.index LIMIT 32
             ) AS open ON true
             JOIN runs_shard s ON s.id = open.id
        WHERE (ranked.owner_limit IS NULL OR ranked.active < ranked.owner_limit)
          AND ((s.state = 'queued' AND (s.not_before IS NULL OR s.not_before <= statement_timestamp()))
               OR (s.state = 'running' AND s.lease_expires_at < statement_timestamp()))
        ORDER BY ranked.priority DESC, (ranked.id IS NOT DISTINCT FROM sticky) DESC,
                 ranked.active, ranked.run_id, ranked.position, s.index
        LIMIT 1
        FOR UPDATE OF s SKIP LOCKED;
        IF NOT FOUND THEN
            RETURN;
        END IF;
        IF chosen.owner_limit IS NOT NULL THEN
            -- Claims of limited people follow one another, so that two cannot both be the last.
            PERFORM pg_advisory_xact_lock(hashtext('runs_claim'));
            SELECT count(*) INTO busy
            FROM runs_shard s JOIN runs_stage st ON st.id = s.stage_id
                 JOIN runs_run r ON r.id = st.run_id
            WHERE r.owner_id = chosen.owner_id AND s.state = 'running'
              AND s.lease_expires_at >= statement_timestamp();
            IF busy >= chosen.owner_limit THEN
                passed_over := passed_over || chosen.owner_id;
                CONTINUE;
            END IF;
        END IF;
        UPDATE runs_shard s
        SET state = 'running', lease_token = gen_random_uuid(), not_before = NULL,
            lease_expires_at = statement_timestamp() + make_interval(secs => lease_seconds),
            worker = worker_name, attempts = s.attempts + 1, updated_at = statement_timestamp()
        WHERE s.id = chosen.id
        RETURNING s.lease_token INTO token;
        shard_id := chosen.id; stage_id := chosen.of_stage; run_id := chosen.run_id;
        work := chosen.work; starts := chosen.starts;
        -- Only now, with the shard's row ours, can no earlier lease have another one accepted.
        IF work ? 'merge' THEN
            SELECT coalesce(array_agg(g.name ORDER BY s.index, g.id), '{}') INTO accepted
            FROM runs_shard s JOIN runs_segment g ON g.shard_id = s.id
            WHERE s.stage_id = chosen.of_stage;
        ELSE
            SELECT coalesce(array_agg(g.name ORDER BY g.id), '{}') INTO accepted
            FROM runs_segment g WHERE g.shard_id = chosen.id;
        END IF;
        -- Nobody waits for the disk: a claim that a crash of the server loses was never made, its
        -- token holds nothing, and the shard is open.
        PERFORM set_config('synchronous_commit', 'off', true);
        RETURN NEXT;
        RETURN;
    END LOOP;
END
$function$;
