"""The judge of untrusted programs: bubblewrap, limits that do not depend on load, verdicts.

Start reading at ``judge.py`` (verdicts) and ``box.py`` (isolation); docs/security.md says what is
promised.
"""
