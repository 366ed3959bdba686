"""Noriba: serverless compute for model training, speaking Azure Machine Learning's API."""

__version__ = "0.1.0"
