"""What a job runs in: from an environment as Azure ML describes it to a folder with a Python in it.

``spec`` (what is asked) -> ``plan`` (pure: what has to be there, under which key) -> ``store`` (built once, kept,
shared, collected). ``build`` is the same as a child process, so that an agent stays lean. ``catalogue`` holds the
curated environments, which the server lists too; it imports nothing else of this package but ``spec``.
"""
