"""Tables of MLflow tracking: experiments, runs, metrics, models."""
