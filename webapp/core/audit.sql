-- The audit log only grows. What is older than it is kept is taken away by webapp/core/audit.py
-- alone, which says so in its transaction.
CREATE OR REPLACE FUNCTION core_keep_audit() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'DELETE' AND current_setting('retort.prunes_audit', true) = 'on' THEN
        RETURN OLD;
    END IF;
    RAISE EXCEPTION 'entries of the audit log are never changed';
END $$;

CREATE OR REPLACE TRIGGER core_keep_audit BEFORE DELETE OR UPDATE ON core_auditentry
FOR EACH ROW EXECUTE FUNCTION core_keep_audit();
