"""Commands of ``python -m evaluator`` that are more than a few lines."""
