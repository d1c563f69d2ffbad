"""The page itself: well-formed, self-contained, and legible in a real browser on a phone and on a desk."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from html.parser import HTMLParser
from zoneinfo import ZoneInfo

import pytest

from ecomm_pipeline.dates import BusinessDate, DateRange
from ecomm_pipeline.errors import ConfigurationError
from ecomm_pipeline.ledger import Finding, Record
from ecomm_pipeline.report import balance, plan, run
from ecomm_pipeline.report.page import Kpi

TABLES = ("orders", "products", "customers", "order_items")
RANGE = DateRange(BusinessDate(date(2026, 1, 1)), BusinessDate(date(2026, 1, 31)))
BEGAN = datetime(2026, 2, 1, 18, 0, 3, tzinfo=UTC)
LONG = "a_name_without_any_place_to_break_it_" * 4
HOSTILE = '<script>alert("1")</script>&<b>'
VOID = {"meta", "link", "br"}
WIDTHS = (360, 390, 1280)


def record(stage, at, seconds, *, dates=RANGE, **more):
    started = BEGAN + timedelta(seconds=at)
    return Record(
        stage=stage,
        first_date=dates.first.day,
        last_date=dates.last.day,
        run_id="20260201T180000Z-1f3a",
        started_at=started,
        ended_at=started + timedelta(seconds=seconds),
        **{"outcome": "succeeded", **more},
    )


def sheet():
    for number, day in enumerate(RANGE):
        for table in TABLES:
            for hop in ("source", "extracted", "bronze", "kept"):
                yield {"table": table, "date": str(day), "hop": hop, "rows": 123456 + number, "money": "98765432.10"}
        for hop, _ in balance.SALES:
            yield {"table": "sales", "date": str(day), "hop": hop, "rows": 1000, "money": "1234567.89"}
    yield {
        "table": "orders",
        "date": "2026-01-05",
        "hop": "quarantined",
        "rows": 2,
        "reasons": {f"{HOSTILE}: missing": 2},
    }


def month(*, outcome="succeeded"):
    extracts = [
        record("extractor", 3 * n, 2, dates=DateRange(day, day), table=table, figures={"manifest": f"{LONG}/{table}"})
        for n, day in enumerate(RANGE)
        for table in TABLES
    ]
    nodes = {f"not_null_{LONG}": {"kind": "test", "status": "fail", "message": HOSTILE}}
    findings = [Finding(priority="P2", kind="rows_quarantined", message=f"{HOSTILE} {LONG}")]
    error = {
        "error": f"{HOSTILE} {LONG}",
        "next_step": "ecomm dlt-trigger --date 2026-01-31",
        "failure_class": "bad_data",
    }
    return [
        *extracts,
        record("dlt-trigger", 100, 40, remote={"update_id": LONG}, findings=findings),
        record("dbt-runner", 141, 20, figures={"nodes": nodes}),
        record("reconciler", 162, 5, outcome=outcome, figures={"through": "kpi", "sheet": list(sheet())},
               **(error if outcome == "failed" else {})),
    ]  # fmt: skip


def kpis(days=31):
    names = [name.replace(" ", "_") for name, _ in run.KPI_COLUMNS]
    for n in range(days):
        value = Decimal(1000 + (n * 7919) % 977)
        yield Kpi(str(RANGE.first.plus(n)), {**dict.fromkeys(names, value), "cancellation_rate": None})


def build(records, dates=RANGE, **more):
    now = BEGAN + timedelta(minutes=10)
    return run.render(plan.build(records, dates, tz=ZoneInfo("Asia/Ho_Chi_Minh"), now=now, **more))


PAGES = {
    "balanced": lambda: build(month(), kpis=list(kpis())),
    "failed": lambda: build(month(outcome="failed"), kpis_missing=f"{HOSTILE} {LONG}"),
    "empty": lambda: build([], None),
    "one day": lambda: build(month()[:2], DateRange(RANGE.first, RANGE.first), kpis=list(kpis(1))),
}


class WellFormed(HTMLParser):
    """Fails on a tag that is closed out of turn, and keeps the text and what elements refer to."""

    def __init__(self):
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.references: list[str] = []
        self.tags: set[str] = set()

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        names = [name for name, _ in attrs]
        assert len(names) == len(set(names)), f"<{tag}> has an attribute twice: {names}"
        self.ids += [value for name, value in attrs if name == "id"]
        self.references += [value for name, value in attrs if name in ("src", "href", "data", "action")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        assert self.open.pop() == tag, f"</{tag}> at {self.getpos()}"


@pytest.mark.parametrize("name", PAGES)
def test_the_page_is_well_formed_and_self_contained(name):
    html = PAGES[name]()
    parser = WellFormed()
    parser.feed(html)
    parser.close()
    assert parser.open == []
    assert len(parser.ids) == len(set(parser.ids))
    assert set(parser.references) == {"data:,"}
    assert "script" not in parser.tags
    assert not re.search(r"https?://|@import|url\(", html)


def test_what_the_ledger_holds_is_text_and_never_markup():
    html = PAGES["failed"]()
    assert HOSTILE not in html
    assert html.count("&lt;script&gt;") >= 5


def test_the_file_is_replaced_whole_and_nothing_else_is_left(tmp_path):
    page = tmp_path / "new folder" / "report.html"
    for text in ("first", "second"):
        run._write(page, text)
    assert page.read_text() == "second"
    assert [entry.name for entry in page.parent.iterdir()] == ["report.html"]


def test_a_page_that_cannot_be_written_is_an_error_with_a_next_step(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigurationError) as raised:
        run._write(tmp_path / "file" / "report.html", "x")
    assert "-o" in raised.value.next_step


# --- in a browser ---

MEASURE = """
<!DOCTYPE html><meta charset="utf-8"><body style="margin:0">FRAMES<pre id="out"></pre>
<script>
function measure(frame) {
  const doc = frame.contentDocument, root = doc.documentElement;
  for (const one of doc.querySelectorAll('details')) one.open = true;
  const texts = [];
  const walk = doc.createTreeWalker(doc.body, NodeFilter.SHOW_TEXT);
  while (walk.nextNode()) {
    const node = walk.currentNode, range = doc.createRange();
    if (!node.data.trim() || node.parentElement.closest('svg, style, .scroll')) continue;
    range.selectNodeContents(node);
    for (const box of range.getClientRects()) if (box.width > 1) texts.push([node.data.trim(), box]);
  }
  const overlaps = [], outside = [];
  texts.forEach(([text, a], i) => {
    if (a.right > root.clientWidth + 1 || a.left < -1) outside.push(text);
    for (const [other, b] of texts.slice(i + 1, i + 200)) {
      const x = Math.min(a.right, b.right) - Math.max(a.left, b.left);
      const y = Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top);
      if (x > 1 && y > Math.min(a.height, b.height) * 0.4) overlaps.push([text, other]);
    }
  });
  return {scroll: root.scrollWidth, client: root.clientWidth, overlaps: overlaps.slice(0, 5),
    outside: outside.slice(0, 5), text: doc.body.innerText.slice(0, 3000)};
}
onload = () => {
  const seen = Array.from(document.querySelectorAll('iframe'), measure);
  document.getElementById('out').textContent = JSON.stringify(seen);
};
</script>
"""
FRAME = '<iframe src="page.html" style="width:{}px;height:900px;border:0"></iframe>'


def chromium():
    """The browser on the PATH; absent, the test is skipped, but not in CI."""
    found = next(
        (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None
    )
    if found is None and os.environ.get("CI") != "true":
        pytest.skip("no chromium on PATH: apt-get install chromium")
    assert found, "no chromium on PATH: apt-get install chromium"
    return found


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    program, folder = chromium(), tmp_path_factory.mktemp("browser")

    def measure(html):
        """What is seen of the page at each of WIDTHS, and what the console said."""
        frames = "".join(FRAME.format(width) for width in WIDTHS)
        (folder / "page.html").write_text(html, encoding="utf-8")
        (folder / "frame.html").write_text(MEASURE.replace("FRAMES", frames), encoding="utf-8")
        done = subprocess.run(
            [
                program, "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
                "--disable-background-networking", "--disable-component-update", "--disable-sync",
                "--disable-dev-shm-usage", "--allow-file-access-from-files", "--enable-logging=stderr",
                f"--user-data-dir={folder / 'profile'}", "--window-size=1300,900",
                "--virtual-time-budget=5000", "--dump-dom", f"file://{folder}/frame.html",
            ],
            capture_output=True, text=True, timeout=60, check=True,
        )  # fmt: skip
        found = re.search(r'<pre id="out">(.+?)</pre>', done.stdout, re.DOTALL)
        assert found, done.stderr[-2000:]
        text = found[1].replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&")
        return json.loads(text), re.findall(r".*CONSOLE.*", done.stderr)

    return measure


@pytest.mark.parametrize("name", ["balanced", "failed", "empty"])
def test_in_a_browser_nothing_overflows_overlaps_or_complains(browser, name):
    seen, console = browser(PAGES[name]())
    assert console == []
    assert [one["client"] for one in seen] == pytest.approx(WIDTHS, abs=20)  # a scroll bar may take some
    headline = {"balanced": "Everything adds up", "failed": "reconciler failed", "empty": "Nothing ran yet"}[name]
    for one in seen:
        assert one["scroll"] <= one["client"]
        assert one["outside"] == []
        assert one["overlaps"] == []
        assert headline.lower() in one["text"].lower()


def test_the_browser_test_sees_overflow_overlap_and_complaints(browser):
    html = (
        '<!DOCTYPE html><div style="width:2000px">wide</div><p style="position:absolute;top:0;left:0">over</p>'
        "<script>nothing()</script>"
    )
    seen, console = browser(html)
    assert console
    assert seen[0]["scroll"] > seen[0]["client"]
    assert seen[0]["overlaps"] == [["wide", "over"]]
