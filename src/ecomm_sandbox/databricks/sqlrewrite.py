"""Databricks' SQL where Spark and Delta speak another: statements are recognised by their tokens and answered.

Most statements pass untouched (the catalog's name is Spark's own business, see `spark.alias_catalog`). What is
recognised here becomes one or more Spark statements, or is answered from the catalog: tags and key constraints,
`information_schema`, `DESCRIBE … AS JSON`, `COMMENT ON COLUMN`, `SET NOT NULL`, `USE CATALOG`, grants.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ecomm_sandbox.databricks import deltalog, infoschema, sqltext
from ecomm_sandbox.databricks.catalog import BACKING_PREFIX, Key
from ecomm_sandbox.databricks.errors import SandboxError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from pyspark.sql import SparkSession

    from ecomm_sandbox.databricks.catalog import Catalog
    from ecomm_sandbox.databricks.sqltext import Token


@dataclass(frozen=True, slots=True)
class Answer:
    """A result that needs no Spark job: column names (all strings) and rows."""

    columns: tuple[str, ...] = ()
    rows: tuple[tuple[str | None, ...], ...] = ()


@dataclass(frozen=True, slots=True)
class Run:
    """Statements to run in order; the last one's result is the statement's."""

    statements: tuple[str, ...]
    views_change: bool = False
    then: Callable[[], None] | None = None


class Cursor:
    """Reads a statement's tokens from left to right."""

    def __init__(self, parts: Sequence[Token]) -> None:
        """Start before the first token."""
        self.parts, self.at = parts, 0

    def peek(self, ahead: int = 0) -> Token | None:
        """The token to come, or None at the end."""
        return self.parts[self.at + ahead] if self.at + ahead < len(self.parts) else None

    def take(self, *words: str) -> bool:
        """Step over the words if they come next, in this order; case does not matter."""
        ahead = self.parts[self.at : self.at + len(words)]
        if [token.upper or token.text for token in ahead] != list(words):
            return False
        self.at += len(words)
        return True

    def name(self) -> list[str]:
        """A dotted name's parts without quotes; empty when none comes next."""
        found: list[str] = []
        while (token := self.peek()) and token.name:
            found.append(token.name)
            self.at += 1
            if not (self.peek() and self.peek().text == "."):  # type: ignore[union-attr]
                break
            self.at += 1
        return found

    def string(self) -> str:
        """The value of a string literal, stepped over; empty when none comes next."""
        token = self.peek()
        if token is None or token.kind != "string":
            return ""
        self.at += 1
        return sqltext.string_value(token.text)

    def group(self) -> list[Token]:
        """The tokens between a parenthesis that comes next and its partner; empty when none comes."""
        if not self.take("("):
            return []
        depth, start = 1, self.at
        while (token := self.peek()) and depth:
            depth += {"(": 1, ")": -1}.get(token.text, 0)
            self.at += 1
        return list(self.parts[start : self.at - 1])

    def rest(self) -> list[Token]:
        """All tokens to come."""
        return list(self.parts[self.at :])


class Dialect:
    """Translates statements for one catalog."""

    def __init__(self, catalog: Catalog) -> None:
        """`catalog` holds what Spark's own does not."""
        self.catalog = catalog

    def translate(self, sql: str, session: SparkSession) -> Run | Answer:
        """What to do for `sql` in `session`."""
        parts = sqltext.code(sql)
        head = parts[0].upper if parts else ""
        handler = getattr(self, f"_{head.lower()}", None) if head in _HEADS else None
        translated: Run | Answer | None = handler(Cursor(parts), sql, session) if handler else None
        if translated is not None:
            return translated
        return Run((self._names(sql, session),), views_change="VIEW" in {part.upper for part in parts[:6]})

    # -- statements by their first word

    def _use(self, cursor: Cursor, _sql: str, _session: SparkSession) -> Run | Answer | None:
        if cursor.take("USE", "CATALOG"):
            name = cursor.name()
            return Run((f"USE {sqltext.quote_name(name[0])}",)) if name else None
        return None

    def _set(self, cursor: Cursor, _sql: str, _session: SparkSession) -> Run | Answer | None:
        if not cursor.take("SET"):
            return None
        setting = cursor.peek()
        name = SESSION_SETTINGS.get(setting.upper) if setting else None
        cursor.at += 1
        if name is None or not (cursor.take("=") and cursor.peek()):
            return None
        value = cursor.rest()[0]
        plain = sqltext.string_value(value.text) if value.kind == "string" else value.text
        return Run((f"SET {name} = {plain}",))

    def _comment(self, cursor: Cursor, _sql: str, session: SparkSession) -> Run | Answer | None:
        if not cursor.take("COMMENT", "ON"):
            return None
        if cursor.take("COLUMN"):
            *table, column = cursor.name()
            return self._comment_columns(table, {column: cursor.string()}, session) if cursor.take("IS") else None
        return None

    def _comment_columns(self, table: list[str], comments: dict[str, str], session: SparkSession) -> Run | Answer:
        schema, name = self._resolve(table, session)
        folder = self.catalog.folder(schema, name)
        if deltalog.read(folder) is None:  # a view, or nothing: Spark says what is wrong
            changes = ", ".join(
                f"{sqltext.quote_name(column)} COMMENT {sqltext.quote_string(comment)}"
                for column, comment in comments.items()
            )
            return Run((f"ALTER TABLE {_render(table)} ALTER COLUMN {changes}",))
        try:
            deltalog.change_columns(folder, comments=comments)
        except KeyError:
            columns = ", ".join(map(sqltext.quote_name, comments))
            return Run((f"SELECT {columns} FROM {_render(table)} LIMIT 0",))
        return Answer()

    def _alter(self, cursor: Cursor, _sql: str, session: SparkSession) -> Run | Answer | None:
        cursor.take("ALTER")
        if not any(cursor.take(*words) for words in _RELATION_KINDS):
            return None
        table = cursor.name()
        if cursor.take("RENAME", "TO"):
            return Run((f"ALTER TABLE {_render(table)} RENAME TO {_render(cursor.name()[-2:])}",), views_change=True)
        if cursor.take("ADD"):
            return self._add_constraint(cursor, table)
        if cursor.take("DROP"):
            return self._drop_constraint(cursor, table)
        return self._alter_properties(cursor, table, session)

    def _alter_properties(self, cursor: Cursor, table: list[str], session: SparkSession) -> Run | Answer | None:
        if cursor.take("CLUSTER", "BY"):
            return Answer() if cursor.take("AUTO") else None
        column = self._altered_column(cursor)
        for verb in ("SET", "UNSET"):
            if cursor.take(verb, "TAGS"):
                return self._tags(verb, ".".join([*table[-2:], *([column] if column else [])]), cursor.group())
        if column and cursor.take("SET", "NOT", "NULL"):
            return self._set_not_null(table, column, session)
        if column and cursor.take("COMMENT"):
            comments = {column: cursor.string()}
            while cursor.take(","):
                column = cursor.name()[-1]
                cursor.take("COMMENT")
                comments[column] = cursor.string()
            return self._comment_columns(table, comments, session)
        return None

    @staticmethod
    def _altered_column(cursor: Cursor) -> str | None:
        if cursor.take("ALTER") or cursor.take("CHANGE"):
            cursor.take("COLUMN")
            found = cursor.name()
            return found[-1] if found else None
        return None

    def _tags(self, verb: str, owner: str, group: list[Token]) -> Answer:
        words = [sqltext.string_value(token.text) for token in group if token.kind == "string"]
        tags = self.catalog.tags.setdefault(owner.lower(), {})
        if verb == "SET":
            tags.update(zip(words[::2], words[1::2], strict=True))
        else:
            for word in words:
                tags.pop(word, None)
        self.catalog.save()
        return Answer()

    def _add_constraint(self, cursor: Cursor, table: list[str]) -> Run | Answer | None:
        key = _key(cursor, table)
        if key is None:
            return None
        self._keep([key])
        return Answer()

    def _keep(self, keys: list[Key]) -> None:
        names = {(key.schema, key.table, key.name) for key in keys}
        others = [key for key in self.catalog.keys if (key.schema, key.table, key.name) not in names]
        self.catalog.keys = others + keys
        self.catalog.save()

    def _drop_constraint(self, cursor: Cursor, table: list[str]) -> Run | Answer | None:
        schema, name = _schema_and_table(table)
        mine = [key for key in self.catalog.keys if (key.schema, key.table) == (schema, name)]
        if cursor.take("PRIMARY", "KEY"):
            gone = [key for key in mine if key.kind == "PRIMARY KEY"]
        elif cursor.take("CONSTRAINT"):
            cursor.take("IF", "EXISTS")
            wanted = cursor.name()
            gone = [key for key in mine if wanted and key.name == wanted[-1].lower()]
            if not gone:
                return None
        else:
            return None
        self.catalog.keys = [key for key in self.catalog.keys if key not in gone]
        self.catalog.save()
        return Answer()

    def _set_not_null(self, table: list[str], column: str, session: SparkSession) -> Run | Answer | None:
        target, quoted = _render(table), sqltext.quote_name(column)
        none = f"assert_true(count(*) = 0, {sqltext.quote_string(f'column {column} has NULL values')})"
        check = f"SELECT {none} FROM {target} WHERE {quoted} IS NULL"
        schema, name = self._resolve(table, session)
        folder = self.catalog.folder(schema, name)
        return Run((check,), then=lambda: deltalog.change_columns(folder, required=(column,)))

    def _create(self, cursor: Cursor, sql: str, session: SparkSession) -> Run | Answer | None:
        cursor.take("CREATE")
        cursor.take("OR", "REPLACE")
        if cursor.take("SCHEMA") or cursor.take("DATABASE"):
            cursor.take("IF", "NOT", "EXISTS")
            name = cursor.name()
            return Run((sql,), then=lambda: self.catalog.ensure_schema(name[-1])) if name else None
        if not cursor.take("TABLE"):
            return None
        cursor.take("IF", "NOT", "EXISTS")
        table = cursor.name()
        stripped, keys = _without_keys(sql, table)
        schema, name_only = self._resolve(table, session)
        for key in keys:
            key.schema, key.table = schema, name_only
        statement = self._names(_without_auto_clustering(stripped), session)
        return Run((statement,), then=lambda: self._created(schema, name_only, keys))

    def _created(self, schema: str, table: str, keys: list[Key]) -> None:
        others = [key for key in self.catalog.keys if (key.schema, key.table) != (schema, table)]
        if others != self.catalog.keys or keys:
            self.catalog.keys = others
            self._keep(keys)

    def _drop(self, cursor: Cursor, _sql: str, session: SparkSession) -> Run | Answer | None:
        cursor.take("DROP")
        kind = next((words for words in _RELATION_KINDS if cursor.take(*words)), None)
        if kind is None:
            return None
        exists = cursor.take("IF", "EXISTS")
        table = cursor.name()
        schema, name = self._resolve(table, session)
        backing = self.catalog.folder(schema, BACKING_PREFIX + name).is_dir()
        word = "VIEW" if backing or kind[-1] == "VIEW" else "TABLE"
        drops = [f"DROP {word} {'IF EXISTS ' if exists else ''}{_render(table)}"]
        if backing:
            drops.append(f"DROP TABLE IF EXISTS {_render([schema, BACKING_PREFIX + name])}")
        return Run(tuple(drops), views_change=word == "VIEW", then=lambda: self._dropped(schema, name))

    def _dropped(self, schema: str, name: str) -> None:
        owner = f"{schema}.{name}"
        gone = self.catalog.kinds.pop(owner, None), self.catalog.tags.pop(owner, None)
        if any(gone):
            self.catalog.save()
        self._created(schema, name, [])

    def _show(self, cursor: Cursor, _sql: str, session: SparkSession) -> Run | Answer | None:
        cursor.take("SHOW")
        if cursor.take("SCHEMAS") or cursor.take("DATABASES"):
            return self._show_schemas(cursor)
        if cursor.take("TABLE", "EXTENDED"):
            return self._show_extended(cursor)
        if cursor.take("CATALOGS"):
            return Answer(("catalog",), ((self.catalog.name,),))
        if cursor.take("GRANTS") or cursor.take("GRANT"):
            return Answer(("Principal", "ActionType", "ObjectType", "ObjectKey"))
        if cursor.take("TABLES"):
            return self._show_tables(cursor, session)
        return None

    def _show_schemas(self, cursor: Cursor) -> Answer:
        if cursor.take("IN") or cursor.take("FROM"):
            asked = cursor.name()
            if asked and asked[-1].lower() != self.catalog.name.lower():
                message = f"[NO_SUCH_CATALOG_EXCEPTION] Catalog '{asked[-1]}' was not found. SQLSTATE: 42704"
                raise SandboxError(message)
        matches = _like(_pattern(cursor))
        names = sorted(name for name in self.catalog.schemas() if matches(name))
        return Answer(("databaseName",), tuple((name,) for name in names))

    def _show_tables(self, cursor: Cursor, session: SparkSession) -> Answer:
        schema = cursor.name()[-1] if cursor.take("IN") or cursor.take("FROM") else session.catalog.currentDatabase()
        matches = _like(_pattern(cursor))
        names = sorted(relation.name for relation in self.catalog.relations(schema) if matches(relation.name))
        return Answer(("database", "tableName", "isTemporary"), tuple((schema, name, "false") for name in names))

    def _show_extended(self, cursor: Cursor) -> Answer:
        schema = cursor.name()[-1] if cursor.take("IN") or cursor.take("FROM") else "default"
        matches = _like(_pattern(cursor))
        rows = tuple(
            (relation.schema, relation.name, "false", infoschema.information(self.catalog, relation))
            for relation in self.catalog.relations(schema)
            if matches(relation.name)
        )
        return Answer(("database", "tableName", "isTemporary", "information"), rows)

    def _describe(self, cursor: Cursor, _sql: str, session: SparkSession) -> Run | Answer | None:
        _ = cursor.take("DESCRIBE") or cursor.take("DESC")
        if cursor.take("HISTORY") or cursor.take("DETAIL"):
            verb = cursor.parts[cursor.at - 1].upper
            table = cursor.name()
            schema, name = self._resolve(table, session)
            if not self.catalog.folder(schema, BACKING_PREFIX + name).is_dir():
                return None
            tail = " ".join(token.text for token in cursor.rest())
            return Run((f"DESCRIBE {verb} {_render([schema, BACKING_PREFIX + name])} {tail}",))
        cursor.take("TABLE")
        if not cursor.take("EXTENDED"):
            return None
        table = cursor.name()
        if not cursor.take("AS", "JSON"):
            return None
        schema, name = self._resolve(table, session)
        found = self.catalog.relations(schema, name)
        if not found:
            return None  # a temporary view, or Spark's own error: [TABLE_OR_VIEW_NOT_FOUND]
        return Answer(("json_metadata",), ((json.dumps(infoschema.as_json(self.catalog, found[0])),),))

    _desc = _describe

    def _analyze(self, _cursor: Cursor, _sql: str, _session: SparkSession) -> Answer:
        return Answer()  # Delta keeps its own statistics

    _grant = _revoke = _analyze  # one user, who may do everything

    # -- names

    def _resolve(self, table: list[str], session: SparkSession) -> tuple[str, str]:
        schema = table[-2] if len(table) > 1 else session.catalog.currentDatabase()
        return schema.lower(), (table[-1] if table else "").lower()

    def _names(self, sql: str, session: SparkSession) -> str:
        """Replace `current_catalog()` and names of `information_schema`, making its views in this session."""
        lowered = sql.lower()
        if "information_schema" not in lowered and "current_catalog" not in lowered:
            return sql
        parts = sqltext.tokens(sql)
        out, at = [], 0
        while at < len(parts):
            view, length = _information_schema(parts, at)
            if view:
                infoschema.create_view(self.catalog, session, view)
                out.append(infoschema.PREFIX + view)
            elif parts[at].upper == "CURRENT_CATALOG" and [part.text for part in parts[at + 1 : at + 3]] == ["(", ")"]:
                out.append(sqltext.quote_string(self.catalog.name) + " AS `current_catalog()`" * _is_item(parts, at))
                length = 3
            else:
                out.append(parts[at].text)
            at += length
        return "".join(out)


_HEADS = frozenset({
    "USE", "SET", "COMMENT", "ALTER", "CREATE", "DROP", "SHOW", "DESCRIBE", "DESC", "ANALYZE", "GRANT", "REVOKE",
})  # fmt: skip
_RELATION_KINDS = (("TABLE",), ("VIEW",), ("MATERIALIZED", "VIEW"), ("STREAMING", "TABLE"))

# https://docs.databricks.com/sql/language-manual/sql-ref-parameters
SESSION_SETTINGS = {
    "ANSI_MODE": "spark.sql.ansi.enabled",
    "TIMEZONE": "spark.sql.session.timeZone",
}


def _is_item(parts: Sequence[Token], at: int) -> bool:
    """Whether the call is a whole item of a select list, which then needs its column's name."""
    before = next((part for part in reversed(parts[:at]) if part.is_code), None)
    after = next((part for part in parts[at + 3 :] if part.is_code), None)
    return bool(before and (before.upper == "SELECT" or before.text == ",")) and (
        after is None or after.text in (",", ";") or after.upper == "FROM"
    )


def _information_schema(parts: Sequence[Token], at: int) -> tuple[str | None, int]:
    """The view that a `[catalog.]information_schema.view` at `at` names, and how many tokens it takes."""
    if at and parts[at - 1].text == ".":
        return None, 1
    names = [parts[at].name.lower()]
    end = at + 1
    while end + 1 < len(parts) and parts[end].text == "." and parts[end + 1].name and len(names) <= 2:  # noqa: PLR2004
        names.append(parts[end + 1].name.lower())
        end += 2
    for skip in (0, 1):
        if names[skip : skip + 1] == ["information_schema"] and len(names) > skip + 1:
            view = names[skip + 1]
            return (view, 2 * (skip + 2) - 1) if view in infoschema.VIEWS else (None, 1)
    return None, 1


def _schema_and_table(table: Sequence[str]) -> tuple[str, str]:
    return (table[-2] if len(table) > 1 else "default").lower(), table[-1].lower()


def _render(table: Sequence[str]) -> str:
    return ".".join(sqltext.quote_name(part) for part in table)


def _pattern(cursor: Cursor) -> str:
    cursor.take("LIKE")
    token = cursor.peek()
    return sqltext.string_value(token.text) if token and token.kind == "string" else "*"


def _like(pattern: str) -> Callable[[str], bool]:
    """`SHOW … LIKE`: `*` is anything, `|` separates alternatives."""
    expression = "|".join(re.escape(part).replace(r"\*", ".*") for part in pattern.split("|"))
    return lambda name: re.fullmatch(expression, name, re.IGNORECASE) is not None


def _key(cursor: Cursor, table: Sequence[str]) -> Key | None:
    """A key constraint that comes next, or None (a CHECK, say)."""
    schema, name = _schema_and_table(table)
    constraint = cursor.name()[-1:] if cursor.take("CONSTRAINT") else []
    for kind in ("PRIMARY", "FOREIGN"):
        if cursor.take(kind, "KEY"):
            columns = [token.name for token in cursor.group() if token.name]
            label = (constraint or [f"{name}_{'pk' if kind == 'PRIMARY' else 'fk'}"])[0].lower()
            key = Key(schema, name, label, f"{kind} KEY", columns)
            if cursor.take("REFERENCES"):
                key.parent = ".".join(cursor.name()[-2:])
                key.parent_columns = [token.name for token in cursor.group() if token.name]
            while any(cursor.take(word) for word in ("RELY", "NORELY", "DISABLE", "NOVALIDATE", "DEFERRABLE")):
                pass
            if cursor.take("NOT", "ENFORCED") or cursor.take("INITIALLY", "DEFERRED"):
                pass
            return key
    return None


def _without_keys(sql: str, table: Sequence[str]) -> tuple[str, list[Key]]:
    """A CREATE TABLE without its informational keys, which Delta refuses, and the keys."""
    parts = sqltext.tokens(sql)
    places = [at for at, part in enumerate(parts) if part.is_code]
    code = [parts[at] for at in places]
    drop: set[int] = set()
    keys: list[Key] = []
    for at, token in enumerate(code):
        if token.upper not in ("PRIMARY", "FOREIGN") or at + 1 >= len(code) or code[at + 1].upper != "KEY":
            continue
        start = at - 2 if at > 1 and code[at - 2].upper == "CONSTRAINT" else at
        cursor = Cursor(code)
        cursor.at = start
        inline = at + 2 < len(code) and code[at + 2].text != "("
        key = _inline_key(cursor, table, code, start) if inline else _key(cursor, table)
        if key is None:
            continue
        keys.append(key)
        first = start - 1 if not inline and code[start - 1].text == "," else start
        drop.update(range(places[first], places[cursor.at - 1] + 1))
    return "".join(part.text for at, part in enumerate(parts) if at not in drop), keys


def _inline_key(cursor: Cursor, table: Sequence[str], code: Sequence[Token], start: int) -> Key | None:
    """`column type PRIMARY KEY`: the column is the first word after the comma or parenthesis before."""
    at, depth = start - 1, 0
    while at > 0 and (depth or code[at].text not in (",", "(")):
        depth += {")": 1, "(": -1}.get(code[at].text, 0)
        at -= 1
    schema, name = _schema_and_table(table)
    label = cursor.name()[-1:] if cursor.take("CONSTRAINT") else []
    if not cursor.take("PRIMARY", "KEY"):
        return None
    _ = cursor.take("RELY") or cursor.take("NORELY")
    return Key(schema, name, (label or [f"{name}_pk"])[0].lower(), "PRIMARY KEY", [code[at + 1].name])


def _without_auto_clustering(sql: str) -> str:
    """`CLUSTER BY AUTO` chooses its columns by itself; here there is nothing to choose from."""
    parts = sqltext.tokens(sql)
    places = [at for at, part in enumerate(parts) if part.is_code]
    for first, second, third in zip(places, places[1:], places[2:], strict=False):
        if [parts[at].upper for at in (first, second, third)] == ["CLUSTER", "BY", "AUTO"]:
            return "".join(part.text for part in [*parts[:first], *parts[third + 1 :]])
    return sql
