"""Experiment tracking and the model registry, as MLflow understands them (architecture.md, decision 9)."""
