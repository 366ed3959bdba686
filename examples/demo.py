"""Submit a training job through Microsoft's own SDK, follow its log, show what it logged.

Nothing here is Noriba's: the same lines submit the same job to Azure Machine Learning. Run it with
``noriba run -- python examples/demo.py``, or after ``eval "$(noriba env)"``.
"""

import os
from pathlib import Path

import mlflow
from azure.ai.ml import MLClient, load_job
from azure.identity import DefaultAzureCredential

client = MLClient(
    DefaultAzureCredential(),
    subscription_id=os.environ["AZURE_SUBSCRIPTION_ID"],
    resource_group_name=os.environ["AZURE_RESOURCE_GROUP"],
    workspace_name=os.environ["AZUREML_WORKSPACE_NAME"],
)
job = load_job(Path(__file__).parent / "sklearn-iris" / "job.yml")
job = client.jobs.create_or_update(job)
print(f"submitted {job.name}")
client.jobs.stream(job.name)

job = client.jobs.get(job.name)
run = mlflow.get_run(job.name)
print(f"\nstatus        {getattr(job.status, 'value', job.status)}")
print(f"ran on        {job.properties['noriba.instance_type']} (chosen, as the job names none)")
print(f"parameters    {run.data.params}")
print(f"metrics       {run.data.metrics}")
print(f"model         {job.outputs['model'].path}")
print(f"in the Studio {job.studio_url}")
