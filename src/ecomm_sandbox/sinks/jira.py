"""Jira's REST API, as far as Alertmanager and people who look at tickets call it.

Version 2 takes texts (https://docs.atlassian.com/software/jira/docs/api/REST/9.17.0), version 3 documents
(https://developer.atlassian.com/cloud/jira/platform/rest/v3). One project, whose workflow lets any state follow any.
"""

from __future__ import annotations

import base64
import re
import threading
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from ecomm_sandbox.sinks.inbox import Answer, Inbox, Message, RefusedError, Secrets, json_object
from ecomm_sandbox.sinks.jql import JqlError, search

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["PROJECT", "USER", "Jira"]

PROJECT: Final = "DATA"
USER: Final = "alertmanager@example.com"
ISSUE_TYPES: Final = ("Task", "Bug", "Incident")
PRIORITIES: Final = ("Highest", "High", "Medium", "Low", "Lowest")
STATES: Final = {"To Do": ("11", "new"), "In Progress": ("21", "indeterminate"), "Done": ("31", "done")}
"""State: the id of the transition of its name, and its category."""
_SUMMARY: Final = 255
_TEXT: Final = 32_767
_EDITABLE: Final = ("summary", "description", "issuetype", "labels", "priority", "project")
_NO_JSON: Final = "Can not deserialize the request's body: it is not a JSON object."
_NO_ISSUE: Final = "Issue does not exist or you do not have permission to see it."


@dataclass(slots=True)
class Issue:
    """A ticket."""

    number: int
    fields: dict[str, Any]
    status: str = "To Do"
    resolution: str | None = None
    resolved_at: str | None = None
    comments: list[str] = field(default_factory=list)

    @property
    def key(self) -> str:
        """Its key, such as DATA-7."""
        return f"{PROJECT}-{self.number}"

    def searchable(self) -> dict[str, Any]:
        """Give its fields by the names that JQL has for them."""
        return {
            "issue": self,
            "project": PROJECT,
            "labels": self.fields.get("labels") or [],
            "status": self.status,
            "statuscategory": STATES[self.status][1].replace("new", "To Do").replace("indeterminate", "In Progress"),
            "resolution": self.resolution,
            "resolutiondate": self.resolved_at,
        }

    def as_dict(self) -> dict[str, Any]:
        """Give it as the API does."""
        category = {"key": STATES[self.status][1]}
        shown = self.fields | {
            "status": {"name": self.status, "statusCategory": category},
            "resolution": self.resolution and {"name": self.resolution},
            "resolutiondate": self.resolved_at,
            "comment": {"comments": [{"body": body} for body in self.comments], "total": len(self.comments)},
        }
        return {"id": str(10_000 + self.number), "key": self.key, "fields": shown}


class Jira:
    """One project of a site."""

    def __init__(self, secrets: Secrets, inbox: Inbox) -> None:
        self._credentials = f"{USER}:{secrets.jira_password}"
        self._inbox = inbox
        self._lock = threading.Lock()
        self._issues: list[Issue] = []

    def issues(self) -> list[dict[str, Any]]:
        """Give all tickets."""
        return [issue.as_dict() for issue in self._issues]

    def clear(self) -> None:
        """Forget all tickets."""
        self._issues.clear()

    def answer(self, method: str, path: str, authorization: str, body: bytes) -> Answer:
        """Do what is asked for. Raises `RefusedError` as Jira refuses it."""
        self._sign_in(authorization)
        found = re.fullmatch(r"/rest/api/([23])/(.+)", path)
        content = json_object(body) if body else {}
        if content is None:
            raise _refused(_NO_JSON)
        with self._lock:
            match method, *(found[2].split("/") if found else ()):
                case "POST", "search":
                    return self._search(content)
                case "POST", "search", "jql" if found and found[1] == "3":
                    return self._search(content)
                case "POST", "issue":
                    return self._create(content, rich=bool(found and found[1] == "3"))
                case method, "issue", key, *rest:
                    return self._on_issue(method, self._issue(key), rest, content, rich=bool(found and found[1] == "3"))
        raise RefusedError(404, {"message": f"null for uri: {path}", "status-code": 404})

    def _sign_in(self, authorization: str) -> None:
        kind, _, given = authorization.partition(" ")
        try:
            known = base64.b64decode(given).decode() == self._credentials
        except ValueError:
            known = False
        if kind.lower() != "basic" or not known:
            raise RefusedError(401, {"errorMessages": ["You do not have permission: sign in."], "errors": {}})

    def _issue(self, key: str) -> Issue:
        for issue in self._issues:
            if issue.key == key:
                return issue
        raise _refused(_NO_ISSUE, status=404)

    def _search(self, content: dict[str, Any]) -> Answer:
        try:
            found = search(str(content.get("jql", "")), [issue.searchable() for issue in self._issues])
        except JqlError as error:
            raise _refused(str(error)) from error
        issues = [row["issue"].as_dict() for row in found[: content.get("maxResults", 50)]]
        return Answer(200, {"startAt": 0, "total": len(found), "issues": issues})

    def _create(self, content: dict[str, Any], *, rich: bool) -> Answer:
        fields = content.get("fields") or {}
        problems = dict(_problems(fields, rich=rich)) | dict(_missing(fields))
        if problems:
            raise _refused(errors=problems)
        issue = Issue(len(self._issues) + 1, dict(fields))
        self._issues.append(issue)
        self._tell("create", issue, content)
        return Answer(201, {"id": str(10_000 + issue.number), "key": issue.key})

    def _on_issue(self, method: str, issue: Issue, rest: list[str], content: dict[str, Any], *, rich: bool) -> Answer:
        match method, *rest:
            case ("GET",):
                return Answer(200, issue.as_dict())
            case ("PUT",):
                return self._edit(issue, content, rich=rich)
            case "GET", "transitions":
                moves = [{"id": id_, "name": name, "to": {"name": name}} for name, (id_, _) in STATES.items()]
                return Answer(200, {"transitions": moves})
            case "POST", "transitions":
                return self._move(issue, content)
            case "POST", "comment":
                self._comment(issue, content.get("body"), content)
                return Answer(201, {"id": str(len(issue.comments)), "body": content.get("body")})
        raise RefusedError(405, {"message": "HTTP 405 Method Not Allowed", "status-code": 405})

    def _edit(self, issue: Issue, content: dict[str, Any], *, rich: bool) -> Answer:
        fields = content.get("fields") or {}
        if problems := dict(_problems(fields, rich=rich)):
            raise _refused(errors=problems)
        issue.fields |= fields
        for change in (content.get("update") or {}).get("comment") or []:
            self._comment(issue, (change.get("add") or {}).get("body"), content)
        self._tell("edit", issue, content)
        return Answer(204)

    def _comment(self, issue: Issue, body: Any, content: dict[str, Any]) -> None:  # noqa: ANN401 (JSON)
        if not body:
            raise _refused(errors={"comment": "Comment body can not be empty!"})
        issue.comments.append(body)
        self._tell("comment", issue, content)

    def _move(self, issue: Issue, content: dict[str, Any]) -> Answer:
        wanted = (content.get("transition") or {}).get("id")
        name = next((name for name, (id_, _) in STATES.items() if id_ == wanted), None)
        if name is None:
            problem = f"Transition id '{wanted}' is not valid for this issue."
            raise _refused(problem)
        done = STATES[name][1] == "done"
        issue.status, issue.resolution = name, "Done" if done else None
        issue.resolved_at = datetime.now(UTC).isoformat(timespec="milliseconds") if done else None
        self._tell(name, issue, content)
        return Answer(204)

    def _tell(self, what: str, issue: Issue, content: dict[str, Any]) -> None:
        text = f"{issue.fields.get('summary', '')}\n{issue.fields.get('description') or ''}"
        self._inbox.put(Message("jira", what, issue.key, text, content))


def _refused(*messages: str, errors: dict[str, str] | None = None, status: int = 400) -> RefusedError:
    return RefusedError(status, {"errorMessages": list(messages), "errors": errors or {}})


def _missing(fields: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Tell what a new ticket lacks."""
    if not fields.get("project"):
        yield "project", "project is required"
    if not fields.get("issuetype"):
        yield "issuetype", "issue type is required"
    if not str(fields.get("summary") or "").strip():
        yield "summary", "You must specify a summary of the issue."


def _problems(fields: dict[str, Any], *, rich: bool) -> Iterator[tuple[str, str]]:
    """Tell what is wrong with the fields that are given."""
    for name in fields:
        if name not in _EDITABLE:
            yield name, f"Field '{name}' cannot be set. It is not on the appropriate screen, or unknown."
    named = (("project", "key", (PROJECT,), "project is required"),
             ("issuetype", "name", ISSUE_TYPES, "The issue type selected is invalid."),
             ("priority", "name", PRIORITIES, "The priority selected is invalid."))  # fmt: skip
    for name, attribute, known, problem in named:
        if fields.get(name) is not None and fields[name].get(attribute) not in known:
            yield name, problem
    summary = str(fields.get("summary") or "")
    if "\n" in summary:
        yield "summary", "The summary is invalid because it contains newline characters."
    if len(summary) > _SUMMARY:
        yield "summary", f"Summary can't exceed {_SUMMARY} characters."
    yield from _problems_of_labels(fields.get("labels") or [])
    yield from _problems_of_description(fields.get("description"), rich=rich)


def _problems_of_labels(labels: list[str]) -> Iterator[tuple[str, str]]:
    for label in labels:
        if re.search(r"\s", label):
            yield "labels", f"The label '{label}' contains spaces which is invalid."
        if len(label) > _SUMMARY:
            yield "labels", f"The label '{label}' exceeds {_SUMMARY} characters."


def _problems_of_description(description: Any, *, rich: bool) -> Iterator[tuple[str, str]]:  # noqa: ANN401 (JSON)
    if description is None:
        return
    if rich and not (isinstance(description, dict) and description.get("type") == "doc"):
        yield "description", "Operation value must be an Atlassian Document (see the Atlassian Document Format)"
    elif not rich and not isinstance(description, str):
        yield "description", "Operation value must be a string"
    elif isinstance(description, str) and len(description) > _TEXT:
        yield "description", "The entered text is too long. It exceeds the allowed limit of 32,767 characters."
