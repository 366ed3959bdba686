"""Jobs: one module per job kind, and the controller that moves jobs to their end."""
