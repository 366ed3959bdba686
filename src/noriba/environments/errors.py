"""What can go wrong when an environment is planned or built. Codes are stable; messages say what to change.

EnvironmentBuildError
  EnvironmentInvalid            the definition itself cannot be understood
  EnvironmentImageUnavailable   the image is unknown here, or could not be pulled
  EnvironmentPythonUnavailable  no interpreter fits (``python_preference = "exact"``, or none at all)
  EnvironmentPackageNotFound    packages that no index in reach holds
  EnvironmentConflict           the packages exist but exclude each other
  CondaChannelUnreachable       conda packages asked, no channel in reach, and no sound mapping
  EnvironmentIndexUnreachable   the package index did not answer and the cache does not hold all
  EnvironmentBuildFailed        anything else a builder reported
  EnvironmentBuildCanceled      the caller's cancel event was set
"""

from __future__ import annotations

INVALID = "EnvironmentInvalid"
IMAGE_UNAVAILABLE = "EnvironmentImageUnavailable"
PYTHON_UNAVAILABLE = "EnvironmentPythonUnavailable"
PACKAGE_NOT_FOUND = "EnvironmentPackageNotFound"
CONFLICT = "EnvironmentConflict"
CHANNEL_UNREACHABLE = "CondaChannelUnreachable"
INDEX_UNREACHABLE = "EnvironmentIndexUnreachable"
BUILD_FAILED = "EnvironmentBuildFailed"
CANCELED = "EnvironmentBuildCanceled"


class EnvironmentBuildError(Exception):
    """An environment cannot be had. ``code`` is one of this module's constants; ``message`` is for the user."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code
        self.message = message
