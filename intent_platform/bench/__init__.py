"""`intent bench …`: what the models are worth on public logs and on a shop of known truth, beside simple peers."""
