"""A light client of a Noriba server, for the command line: nothing here imports Microsoft's SDK or httpx."""
