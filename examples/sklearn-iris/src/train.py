"""Train a classifier on the iris data and log what comes of it."""

import argparse

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import mlflow
import pandas as pd
from sklearn.linear_model import SGDClassifier
from sklearn.metrics import ConfusionMatrixDisplay, accuracy_score, log_loss
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", required=True)
    parser.add_argument("--regularization", type=float, default=1.0)
    parser.add_argument("--model", required=True)
    arguments = parser.parse_args()

    table = pd.read_csv(arguments.data)
    features, labels = table.drop(columns="species"), table["species"]
    train_x, test_x, train_y, test_y = train_test_split(
        features, labels, test_size=0.3, random_state=7, stratify=labels
    )
    mlflow.log_params({"regularization": arguments.regularization, "rows": len(table)})

    scale = StandardScaler().fit(train_x)
    classifier = SGDClassifier(loss="log_loss", alpha=arguments.regularization / len(train_x), random_state=7)
    for epoch in range(1, 11):
        classifier.partial_fit(scale.transform(train_x), train_y, classes=sorted(labels.unique()))
        model = make_pipeline(scale, classifier)
        loss = log_loss(test_y, model.predict_proba(test_x), labels=model.classes_)
        accuracy = accuracy_score(test_y, model.predict(test_x))
        mlflow.log_metrics({"log_loss": loss, "accuracy": accuracy}, step=epoch)
        print(f"epoch {epoch:2}  log_loss={loss:.4f}  accuracy={accuracy:.3f}", flush=True)

    figure, axes = plt.subplots()
    ConfusionMatrixDisplay.from_estimator(model, test_x, test_y, ax=axes)
    mlflow.log_figure(figure, "confusion_matrix.png")
    mlflow.sklearn.save_model(model, arguments.model)
    print(f"model saved to {arguments.model}")


if __name__ == "__main__":
    main()
