"""Time and a bucket that exist in memory only."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

BEGAN = datetime(2026, 1, 2, 18, tzinfo=UTC)


class VirtualClock:
    """Time that passes only when somebody sleeps; at an instant, it can do something."""

    def __init__(self, began=BEGAN):
        self.began = began
        self.seconds = 0.0
        self.alarms = []

    def now(self):
        return self.began + timedelta(seconds=self.seconds)

    def monotonic(self):
        return self.seconds

    def sleep(self, seconds):
        self.seconds += seconds
        due = [alarm for alarm in self.alarms if alarm[0] <= self.seconds]
        self.alarms = [alarm for alarm in self.alarms if alarm not in due]
        for _, action in due:
            action()


class Objects:
    """A bucket, with what the ledger needs of `Store`; `refusal` is raised instead of writing."""

    def __init__(self):
        self.content: dict[str, bytes] = {}
        self.refusal: Exception | None = None

    def get(self, key):
        return self.content.get(key)

    def get_all(self, keys):
        return [self.content.get(key) for key in keys]

    def put_all(self, objects):
        if self.refusal:
            raise self.refusal
        self.content.update(objects)

    def keys(self, folder):
        return sorted(key for key in self.content if key.startswith(f"{folder}/"))
