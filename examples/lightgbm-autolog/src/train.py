"""Train a LightGBM model; MLflow logs parameters, metrics and the model by itself."""

import argparse

import lightgbm as lgb
import mlflow
from sklearn.datasets import make_classification
from sklearn.model_selection import train_test_split

parser = argparse.ArgumentParser()
parser.add_argument("--rounds", type=int, default=20)
arguments = parser.parse_args()

mlflow.lightgbm.autolog()
features, labels = make_classification(n_samples=400, n_features=8, random_state=1)
train_x, test_x, train_y, test_y = train_test_split(features, labels, random_state=1)
train, test = lgb.Dataset(train_x, train_y), lgb.Dataset(test_x, test_y)
lgb.train(
    {"objective": "binary", "metric": "binary_logloss", "verbose": -1, "num_threads": 1},
    train,
    num_boost_round=arguments.rounds,
    valid_sets=[test],
    valid_names=["test"],
)
print("trained")
