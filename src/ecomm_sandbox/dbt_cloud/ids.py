"""The ids of what the account has, the same in every sandbox."""

from __future__ import annotations

from typing import Final

__all__ = ["ACCOUNT_ID", "ENVIRONMENT_ID", "JOB_ID", "PROJECT_ID"]

ACCOUNT_ID: Final = 10
PROJECT_ID: Final = 20
ENVIRONMENT_ID: Final = 30
JOB_ID: Final = 40
