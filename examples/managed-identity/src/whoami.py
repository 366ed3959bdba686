"""Get a token inside a job, as the job's managed identity, and show whose it is."""

import os

import jwt
from azure.identity import DefaultAzureCredential, ManagedIdentityCredential

for credential in (
    DefaultAzureCredential(),
    ManagedIdentityCredential(client_id=os.environ["DEFAULT_IDENTITY_CLIENT_ID"]),
):
    token = credential.get_token("https://storage.azure.com/.default").token
    claims = jwt.decode(token, options={"verify_signature": False})
    print(f"{type(credential).__name__}: {claims['name']} for {claims['aud']}")
