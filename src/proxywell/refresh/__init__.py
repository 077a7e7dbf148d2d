"""One refresh job from plan to finalisation; the ledger is the truth."""
