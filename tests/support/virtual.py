"""Time, a bucket and a run of a stage that exist in memory only."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from typing import ClassVar
from zoneinfo import ZoneInfo

from ecomm_pipeline.dates import BusinessDate, DateRange
from ecomm_pipeline.layout import Layout
from ecomm_pipeline.ledger import Ledger
from ecomm_pipeline.stage import run_stage

BEGAN = datetime(2026, 1, 2, 18, tzinfo=UTC)
RUN = "20260102T180000Z-1f3a"
DATES = DateRange(BusinessDate(date(2026, 1, 2)), BusinessDate(date(2026, 1, 2)))


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


class Died(BaseException):
    """kill -9: no handler runs that matters."""


def die():
    raise Died


class VirtualStage:
    """A run of a stage; it can be run again, as a new process would."""

    name: ClassVar[str]

    def __init__(self, began=BEGAN):
        self.clock = VirtualClock(began)
        self.bucket = Objects()

    def work(self, context):
        raise NotImplementedError

    def run(self, dates=DATES):
        return run_stage(
            self.work,
            stage=self.name,
            dates=dates,
            tz=ZoneInfo("UTC"),
            run_id=RUN,
            trigger="local",
            store=self.bucket,
            layout=Layout(),
            clock=self.clock,
        )

    def ledger(self):
        return Ledger(self.bucket, Layout()).read(self.name, DATES.first, RUN)
