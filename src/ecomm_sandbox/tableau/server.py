"""The REST API, as tableauserverclient sends and reads it.

https://help.tableau.com/current/api/rest_api/en-us/REST/rest_api_ref.htm and, for the time of an extract, the one query
of the Metadata API that tells it (https://help.tableau.com/current/api/metadata_api/en-us/index.html).
"""

from __future__ import annotations

import json
import re
from contextlib import suppress
from datetime import datetime
from http.server import ThreadingHTTPServer
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import parse_qs, urlsplit
from xml.etree import ElementTree as ET  # what is parsed comes from our own clients, on this machine

from ecomm_sandbox.serving import Handler
from ecomm_sandbox.state import LOOPBACK
from ecomm_sandbox.tableau import site as site_
from ecomm_sandbox.tableau.extracts import stamp
from ecomm_sandbox.tableau.site import PUBLISHED, SITE_ID, Item, Job, Site, TableauError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ecomm_sandbox.faults import FaultBox

__all__ = ["make_server"]

_NAMESPACE: Final = "http://tableau.com/api"
_VERSION: Final = "3.24"
_OPERATORS: Final[dict[str, Callable[[Any, Any], bool]]] = {
    "eq": lambda found, wanted: found == wanted,
    "gt": lambda found, wanted: found > wanted,
    "gte": lambda found, wanted: found >= wanted,
    "lt": lambda found, wanted: found < wanted,
    "lte": lambda found, wanted: found <= wanted,
}

Fields = dict[str, str]


class Api:
    """Answers requests; knows nothing of sockets."""

    def __init__(self, site: Site) -> None:
        self._site = site

    def answer(self, method: str, url: str, session: str, body: bytes) -> tuple[int, ET.Element | None]:
        """Give status and content of a request below `/api/{version}/`. Raises `TableauError`."""
        parts = urlsplit(url)
        path = re.sub(r"^/api/[\d.]+/", "", parts.path).strip("/").split("/")
        options = {name: values[0] for name, values in parse_qs(parts.query).items()}
        match method, *path:
            case "GET", ("serverinfo" | "serverInfo"):
                return 200, _server_info()
            case "POST", "auth", "signin":
                return 200, self._sign_in(body)
            case _:
                self._site.require(session)
        match method, *path:
            case "POST", "auth", "signout":
                self._site.sign_out()
                return 204, None
            case method, "sites", site_id, *rest if site_id == SITE_ID:
                return self._on_site(method, rest, options)
        raise TableauError(site_.NOT_FOUND, f"{method} {parts.path} is not part of this sandbox.")

    def _on_site(self, method: str, path: list[str], options: dict[str, str]) -> tuple[int, ET.Element | None]:
        match method, *path:
            case "GET", ("datasources" | "workbooks") as plural:
                items = [item for item in PUBLISHED if f"{item.kind}s" == plural]
                return 200, _page(plural, [self._item(item) for item in items], options)
            case "GET", ("datasources" | "workbooks") as plural, item_id:
                return 200, _response(self._item(self._site.item(plural[:-1], item_id)))
            case "POST", ("datasources" | "workbooks") as plural, item_id, "refresh":
                item = self._site.item(plural[:-1], item_id)
                return 202, _response(_job(self._site.refresh(item), item))
            case "GET", "jobs":
                return 200, _page("backgroundJobs", [_listed(job) for job in self._site.jobs()], options)
            case "GET", "jobs", job_id:
                job = self._site.job(job_id)
                return 200, _response(_job(job, _item_of(job)))
            case "PUT", "jobs", job_id:
                self._site.cancel(job_id)
                return 200, _response()
        raise TableauError(site_.NOT_FOUND, f"{method} {'/'.join(path)} is not part of this sandbox.")

    def _sign_in(self, body: bytes) -> ET.Element:
        try:
            credentials = ET.fromstring(body).find("credentials")
        except ET.ParseError as error:
            raise TableauError(site_.BAD_REQUEST, f"The request is not XML: {error}") from error
        given = credentials.attrib if credentials is not None else {}
        site = credentials.find("site") if credentials is not None else None
        content_url = site.get("contentUrl", "") if site is not None else ""
        name, secret = given.get("personalAccessTokenName", ""), given.get("personalAccessTokenSecret", "")
        element = ET.Element("credentials", token=self._site.sign_in(name, secret, content_url))
        ET.SubElement(element, "site", id=SITE_ID, contentUrl="")
        ET.SubElement(element, "user", id=site_.USER_ID)
        return _response(element)

    def _item(self, item: Item) -> ET.Element:
        extract = self._site.extract(item)
        changed = stamp(extract.refreshed_at if extract else site_.CREATED)
        fields = {"id": item.id, "name": item.name, "contentUrl": item.name.replace(" ", ""), "hasExtracts": "true"}
        fields |= {"createdAt": stamp(site_.CREATED), "updatedAt": changed, "size": str(extract.rows if extract else 0)}
        fields |= {"type": "databricks"} if item.kind == "datasource" else {"showTabs": "false"}
        element = ET.Element(item.kind, fields)
        ET.SubElement(element, "project", id=site_.PROJECT_ID, name=site_.PROJECT)
        ET.SubElement(element, "owner", id=site_.USER_ID)
        ET.SubElement(element, "tags")
        return element

    def metadata(self, body: bytes) -> dict[str, Any]:
        """Answer a GraphQL query for data sources or workbooks by id: when their extracts were last updated."""
        asked = json.loads(body)
        query, variables = str(asked.get("query", "")), asked.get("variables") or {}
        root = re.search(r"\b(publishedDatasources|workbooks)\b", query)
        if root is None:
            return {"errors": [{"message": "only publishedDatasources and workbooks are part of this sandbox"}]}
        kind = "datasource" if root[1] == "publishedDatasources" else "workbook"
        wanted = set(map(str, variables.values())) | set(re.findall(r'"([0-9a-f-]{36})"', query))
        found = [
            self._metadata_of(item) for item in PUBLISHED if item.kind == kind and (not wanted or item.id in wanted)
        ]
        return {"data": {root[1]: found}}

    def _metadata_of(self, item: Item) -> dict[str, Any]:
        extract = self._site.extract(item)
        updated = stamp(extract.refreshed_at) if extract else None
        times = {"name": item.name, "hasExtracts": True, "extractLastUpdateTime": updated}
        return {"luid": item.id, **times, **({} if item.kind == "datasource" else {"embeddedDatasources": [times]})}

    def extracts(self) -> dict[str, Any]:
        """Tell about every extract, by kind and name: what `GET /sandbox/extracts` shows."""
        found = {f"{item.kind}/{item.name}": self._site.extract(item) for item in PUBLISHED}
        return {name: extract.as_dict() if extract else None for name, extract in found.items()}


def _server_info() -> ET.Element:
    info = ET.Element("serverInfo")
    ET.SubElement(info, "productVersion", build="20243.24.1010.1014").text = "2024.3.0"
    ET.SubElement(info, "restApiVersion").text = _VERSION
    return _response(info)


def _response(*content: ET.Element) -> ET.Element:
    element = ET.Element("tsResponse", xmlns=_NAMESPACE)
    element.extend(content)
    return element


def _item_of(job: Job) -> Item:
    return next(item for item in PUBLISHED if item.id == job.item_id)


def _job(job: Job, item: Item) -> ET.Element:
    """Write a job as the requests for one job do."""
    fields: dict[str, Any] = {"id": job.id, "mode": "Asynchronous", "type": "RefreshExtract", "progress": job.progress}
    fields |= {"createdAt": job.created_at, "startedAt": job.started_at, "completedAt": job.ended_at}
    fields["finishCode"] = job.finish_code
    element = ET.Element("job", _given(fields))
    details = ET.SubElement(element, "extractRefreshJob")
    if job.notes:
        ET.SubElement(details, "notes").text = job.notes
    ET.SubElement(details, item.kind, id=item.id, name=item.name)
    return element


def _listed(job: Job) -> ET.Element:
    """Write a job as the list of jobs does."""
    item = _item_of(job)
    fields: dict[str, Any] = {"id": job.id, "status": job.status, "createdAt": job.created_at, "priority": 50}
    fields |= {"startedAt": job.started_at, "endedAt": job.ended_at, "jobType": "refresh_extracts"}
    fields |= {"title": item.name, "subtitle": item.kind.capitalize()}
    return ET.Element("backgroundJob", _given(fields))


def _given(fields: dict[str, Any]) -> Fields:
    return {name: str(value) for name, value in fields.items() if value is not None}


def _page(name: str, elements: Sequence[ET.Element], options: dict[str, str]) -> ET.Element:
    """Give one page of a list: `filter=name:eq:x,createdAt:gte:2026-01-01T00:00:00Z`, `pageSize`, `pageNumber`."""
    matching = [element for element in elements if _matches(element.attrib, options.get("filter", ""))]
    try:
        number, size = int(options.get("pageNumber", "1")), int(options.get("pageSize", "100"))
    except ValueError as error:
        raise TableauError(site_.BAD_PAGE, str(error)) from error
    listed = ET.Element(name)
    listed.extend(matching[(number - 1) * size : number * size])
    numbers = {"pageNumber": number, "pageSize": size, "totalAvailable": len(matching)}
    return _response(ET.Element("pagination", _given(numbers)), listed)


def _matches(fields: Fields, filters: str) -> bool:
    return all(_holds(fields, clause) for clause in re.split(r",(?![^\[]*\])", filters) if clause)


def _holds(fields: Fields, clause: str) -> bool:
    name, operator, wanted = ([*clause.split(":", 2), "", ""])[:3]
    found = fields.get(name, "")
    if operator == "in":
        return found in re.split(r"[,|]", wanted.strip("[]"))
    if operator == "eq" and "*" in wanted:
        return re.fullmatch(".*".join(map(re.escape, wanted.split("*"))), found) is not None
    if operator not in _OPERATORS:
        raise TableauError(site_.BAD_FILTER, f"The filter operator '{operator}' is not known.")
    if not found:
        return False
    return _OPERATORS[operator](_comparable(found), _comparable(wanted))


def _comparable(text: str) -> str | datetime:
    with suppress(ValueError):
        moment = datetime.fromisoformat(text)
        return moment if moment.tzinfo else text
    return text


class _Handler(Handler):
    """One connection of a client."""

    service = "tableau"
    server: _Server

    @property
    def faults(self) -> FaultBox:
        """Those of the site."""
        return self.server.site.faults

    def shown(self, what: str) -> dict[str, Any] | None:
        """Show the extracts, too."""
        return self.server.api.extracts() if what == "extracts" else super().shown(what)

    def serve(self, body: bytes) -> None:
        """Answer as the REST API and the Metadata API do."""
        session, api = self.headers.get("X-Tableau-Auth", ""), self.server.api
        try:
            if urlsplit(self.path).path == "/api/metadata/graphql":
                self.server.site.require(session)
                self.reply_json(200, api.metadata(body))
                return
            status, content = api.answer(self.command, self.path, session, body)
        except TableauError as error:
            status, content = int(error.code[:3]), _error(error)
        self.reply(status, b"" if content is None else _xml(content), "application/xml;charset=UTF-8")


class _Server(ThreadingHTTPServer):
    """The server, with the site that it serves."""

    daemon_threads = True

    def __init__(self, site: Site, address: tuple[str, int]) -> None:
        super().__init__(address, _Handler)
        self.site, self.api = site, Api(site)


def _error(error: TableauError) -> ET.Element:
    element = ET.Element("error", code=error.code)
    ET.SubElement(element, "summary").text = error.summary
    ET.SubElement(element, "detail").text = error.detail
    return _response(element)


def _xml(element: ET.Element) -> bytes:
    return b'<?xml version="1.0" encoding="UTF-8"?>' + ET.tostring(element)


def make_server(site: Site, port: int, bind: str = LOOPBACK) -> ThreadingHTTPServer:
    """Make the server, not yet running."""
    return _Server(site, (bind, port))
