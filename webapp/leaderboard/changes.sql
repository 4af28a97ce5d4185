-- Whatever changes what a leaderboard says leaves a row in leaderboard_change, in its own
-- transaction: whoever keeps scores in memory (webapp/leaderboard/scores.py) learns of a change at
-- the moment from which it is seen. Where one graded evaluation is all that changed, the row says
-- which, so that no other has to be read anew.
CREATE OR REPLACE FUNCTION leaderboard_note_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO leaderboard_change DEFAULT VALUES;
    RETURN NULL;
END $$;

CREATE OR REPLACE FUNCTION leaderboard_note_evaluation() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'DELETE' THEN
        INSERT INTO leaderboard_change (evaluation) VALUES (OLD.id);
    ELSE
        INSERT INTO leaderboard_change (evaluation) VALUES (NEW.id);
    END IF;
    RETURN NULL;
END $$;

DROP TRIGGER IF EXISTS leaderboard_note_change ON runs_evaluation;

CREATE OR REPLACE TRIGGER leaderboard_note_insert AFTER INSERT ON runs_evaluation
FOR EACH ROW WHEN (NEW.metrics IS NOT NULL) EXECUTE FUNCTION leaderboard_note_evaluation();

CREATE OR REPLACE TRIGGER leaderboard_note_delete AFTER DELETE ON runs_evaluation
FOR EACH ROW WHEN (OLD.metrics IS NOT NULL) EXECUTE FUNCTION leaderboard_note_evaluation();

CREATE OR REPLACE TRIGGER leaderboard_note_update AFTER UPDATE ON runs_evaluation
FOR EACH ROW WHEN (
    (OLD.metrics IS NOT NULL OR NEW.metrics IS NOT NULL)
    AND (OLD.run_id, OLD.checkpoint_id, OLD.benchmark_id, OLD.measurement_hash, OLD.created_at,
        OLD.pass_at_1, OLD.samples, OLD.protocol, OLD.engine, OLD.summary, OLD.correct_counts)
    IS DISTINCT FROM (NEW.run_id, NEW.checkpoint_id, NEW.benchmark_id, NEW.measurement_hash,
        NEW.created_at, NEW.pass_at_1, NEW.samples, NEW.protocol, NEW.engine, NEW.summary,
        NEW.correct_counts)
) EXECUTE FUNCTION leaderboard_note_evaluation();

CREATE OR REPLACE TRIGGER leaderboard_note_change AFTER INSERT OR DELETE ON checkpoints_checkpoint
FOR EACH STATEMENT EXECUTE FUNCTION leaderboard_note_change();

CREATE OR REPLACE TRIGGER leaderboard_note_update AFTER UPDATE ON checkpoints_checkpoint
FOR EACH ROW WHEN (
    (OLD.name, OLD.architecture, OLD.parameters, OLD.dtype, OLD.tags, OLD.parent_id, OLD.owner_id,
     OLD.produced_by_id, OLD.project_id, OLD.archived_at)
    IS DISTINCT FROM (NEW.name, NEW.architecture, NEW.parameters, NEW.dtype, NEW.tags,
     NEW.parent_id, NEW.owner_id, NEW.produced_by_id, NEW.project_id, NEW.archived_at)
) EXECUTE FUNCTION leaderboard_note_change();

CREATE OR REPLACE TRIGGER leaderboard_note_update AFTER UPDATE ON runs_run
FOR EACH ROW WHEN (
    OLD.project_id <> NEW.project_id
    OR (OLD.config -> 'teacher') IS DISTINCT FROM (NEW.config -> 'teacher')
) EXECUTE FUNCTION leaderboard_note_change();

CREATE OR REPLACE TRIGGER leaderboard_note_update AFTER UPDATE ON benchmarks_benchmark
FOR EACH ROW WHEN ((OLD.name, OLD.title) IS DISTINCT FROM (NEW.name, NEW.title))
EXECUTE FUNCTION leaderboard_note_change();

CREATE OR REPLACE TRIGGER leaderboard_note_update AFTER UPDATE ON projects_project
FOR EACH ROW WHEN (OLD.name <> NEW.name) EXECUTE FUNCTION leaderboard_note_change();

CREATE OR REPLACE TRIGGER leaderboard_note_update AFTER UPDATE ON core_user
FOR EACH ROW WHEN (OLD.username <> NEW.username) EXECUTE FUNCTION leaderboard_note_change();
