"""Turn candidates into verdicts."""
