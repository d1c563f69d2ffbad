"""Errors of the sandbox's Databricks.

SandboxError
└── ApiError          an answer in Databricks' JSON error form
"""

from __future__ import annotations


class SandboxError(Exception):
    """Raised when the sandbox itself cannot do what it was asked to."""


class ApiError(SandboxError):
    """Raised to answer a request with `{"error_code": …, "message": …}` and an HTTP status.

    https://docs.databricks.com/api/workspace/introduction (errors)
    """

    def __init__(self, status: int, error_code: str, message: str) -> None:
        """`status` is the HTTP status, `error_code` one that databricks-sdk maps to an exception."""
        super().__init__(message)
        self.status, self.error_code, self.message = status, error_code, message
        self.retry_after: int | None = None  # seconds, sent as a header

    def body(self) -> dict[str, str]:
        """The JSON object of the answer."""
        return {"error_code": self.error_code, "message": self.message}


def bad_request(message: str) -> ApiError:
    """400 with INVALID_PARAMETER_VALUE."""
    return ApiError(400, "INVALID_PARAMETER_VALUE", message)


def not_found(message: str) -> ApiError:
    """404 with RESOURCE_DOES_NOT_EXIST."""
    return ApiError(404, "RESOURCE_DOES_NOT_EXIST", message)
