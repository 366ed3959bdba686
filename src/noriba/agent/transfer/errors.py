"""What can go wrong with data, in the words a job's owner reads.

::

    TransferError                code, message, user_error
      NotFound                   the thing is not there (a caller that knows the input's name turns it into InputNotFound)
      AccessDenied               the credential does not open it
      Unavailable                network or server trouble that retries did not cure
      DiskFull                   the node's disk
      Cancelled                  the task is to stop
"""

from __future__ import annotations


class TransferError(Exception):
    """``code`` is stable, the message is for the user; ``user_error`` = a retry elsewhere makes no sense."""

    code = "TransferFailed"
    user_error = True


class NotFound(TransferError):
    code = "InputNotFound"


class Unsupported(TransferError):
    code = "InputInvalid"


class AccessDenied(TransferError):
    code = "AccessDenied"


class Unavailable(TransferError):
    code = "StorageUnavailable"
    user_error = False


class DiskFull(TransferError):
    code = "DiskFull"


class LocalFault(Exception):
    """The node's own disk failed; the cause says how."""


class Cancelled(Exception):
    """The work was given up as the task is to stop."""
