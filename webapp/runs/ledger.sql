-- What every lease took, written down in the transaction that ends it: whoever takes a shard's
-- token away (finished, failed, given back, cancelled, run out and claimed anew) passes here, so a
-- lease has exactly one entry however often messages, workers and databases die.
--
-- Wall and device time are the database's: from the claim to the end, or to when the lease ran out.
-- CPU time and tokens are what the worker last reported under the lease (Shard.usage).
--
-- What is lost: all of a lease that did not finish its shard, up to the share of its time after
-- which its last segment was accepted; another lease goes on from there.
CREATE OR REPLACE FUNCTION runs_end_lease() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    how text;
    began timestamptz;
    ended timestamptz := least(statement_timestamp(), OLD.lease_expires_at);
    seconds float8;
    kept_until timestamptz;
    said jsonb := OLD.usage;
BEGIN
    IF OLD.lease_token IS NOT DISTINCT FROM NEW.lease_token THEN
        RETURN NEW;
    END IF;
    IF OLD.lease_token IS NOT NULL THEN
        how := CASE
            WHEN NEW.state = 'finished' THEN 'finished'
            WHEN OLD.lease_expires_at < statement_timestamp()
                 AND NEW.state IN ('running', 'failed', 'cancelled') AND NEW.failures = OLD.failures
                 THEN 'lost'
            WHEN NEW.state = 'running' THEN 'lost'
            WHEN NEW.state = 'failed' THEN 'failed'
            WHEN NEW.state = 'cancelled' THEN 'cancelled'
            WHEN NEW.failures > OLD.failures THEN 'retried'
            ELSE 'released'
        END;
        -- Given back before anything was started: it took nothing.
        IF how <> 'released' OR said <> '{}' THEN
            began := least(coalesce(OLD.leased_at, ended), ended);
            seconds := extract(epoch FROM ended - began);
            -- Without any segment, since it began: greatest() passes over null.
            SELECT least(greatest(max(g.accepted_at), began), ended) INTO kept_until
            FROM runs_segment g WHERE g.shard_id = OLD.id AND g.lease_token = OLD.lease_token;
            INSERT INTO runs_ledgerentry (
                lease_token, user_id, run_id, stage_id, shard_id, kind, worker, ended, cause,
                started_at, ended_at, wall_seconds, device_seconds, cpu_seconds, prompt_tokens,
                completion_tokens, asks_endpoint, endpoint_money, lost_share
            )
            SELECT OLD.lease_token, r.owner_id, r.id, st.id, OLD.id, st.kind, OLD.worker, how,
                CASE how WHEN 'lost' THEN 'lost_lease'
                         WHEN 'retried' THEN coalesce(said->>'cause', 'transient')
                         WHEN 'failed' THEN coalesce(said->>'cause', 'permanent')
                         ELSE '' END,
                began, ended, seconds,
                seconds * coalesce((said->>'devices')::int, 0),
                coalesce((said->>'cpu_seconds')::float8, 0),
                drawn.prompt_tokens, drawn.completion_tokens,
                st.config ? 'endpoint',
                -- Blank where a price is missing, or answers came without their token counts.
                CASE WHEN coalesce((said->>'uncounted')::numeric, 0) = 0 THEN
                    (drawn.prompt_tokens * p.input_price
                     + drawn.completion_tokens * p.output_price) / 1e6
                END,
                CASE WHEN how = 'finished' THEN 0
                     WHEN seconds = 0 THEN 1
                     ELSE extract(epoch FROM ended - kept_until) / seconds END
            FROM runs_stage st JOIN runs_run r ON r.id = st.run_id
                 LEFT JOIN endpoints_endpoint p ON p.id = (st.config->>'endpoint')::bigint
                 -- Counts come from an endpoint's answers. No figure of theirs may make this fail:
                 -- then the lease could not end, and its shard would stop every further claim.
                 CROSS JOIN LATERAL (SELECT
                    least(coalesce((said->>'prompt_tokens')::numeric, 0), most)::bigint
                        AS prompt_tokens,
                    least(coalesce((said->>'completion_tokens')::numeric, 0), most)::bigint
                        AS completion_tokens
                    FROM (VALUES (9223372036854775807::numeric)) AS largest (most)) AS drawn
            WHERE st.id = OLD.stage_id
            ON CONFLICT (lease_token) DO NOTHING;
        END IF;
    END IF;
    NEW.leased_at := CASE WHEN NEW.lease_token IS NULL THEN NULL ELSE statement_timestamp() END;
    NEW.usage := '{}';
    RETURN NEW;
END $$;

CREATE OR REPLACE TRIGGER runs_end_lease BEFORE UPDATE OF lease_token ON runs_shard
FOR EACH ROW EXECUTE FUNCTION runs_end_lease();

-- The ledger only grows. What an entry was for may be deleted; what it took stays.
CREATE OR REPLACE FUNCTION runs_keep_ledger() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'entries of the ledger are never changed';
END $$;

CREATE OR REPLACE TRIGGER runs_keep_ledger BEFORE DELETE OR UPDATE OF lease_token, user_id, kind, worker,
    ended, cause, started_at, ended_at, wall_seconds, device_seconds, cpu_seconds, prompt_tokens,
    completion_tokens, asks_endpoint, endpoint_money, lost_share
ON runs_ledgerentry FOR EACH ROW EXECUTE FUNCTION runs_keep_ledger();
