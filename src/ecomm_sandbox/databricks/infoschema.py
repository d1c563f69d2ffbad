"""`information_schema` and the catalog's other self-descriptions, made from the catalog on demand."""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING, Any

from ecomm_sandbox.databricks import sqltext

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pyspark.sql import SparkSession

    from ecomm_sandbox.databricks.catalog import Catalog, Relation

PREFIX = "__information_schema_"
OWNER = "sandbox"

# https://docs.databricks.com/sql/language-manual/sql-ref-information-schema (the columns that clients read)
VIEWS: dict[str, str] = {
    "schemata": "catalog_name string, schema_name string, schema_owner string, comment string",
    "tables": "table_catalog string, table_schema string, table_name string, table_type string, table_owner string,"
    " comment string, data_source_format string, created timestamp, last_altered timestamp, storage_path string",
    "columns": "table_catalog string, table_schema string, table_name string, column_name string,"
    " ordinal_position int, is_nullable string, full_data_type string, data_type string, comment string",
    "views": "table_catalog string, table_schema string, table_name string, view_definition string",
    "table_tags": "catalog_name string, schema_name string, table_name string, tag_name string, tag_value string",
    "column_tags": "catalog_name string, schema_name string, table_name string, column_name string, tag_name string,"
    " tag_value string",
    "schema_tags": "catalog_name string, schema_name string, tag_name string, tag_value string",
    "table_constraints": "constraint_catalog string, constraint_schema string, constraint_name string,"
    " table_catalog string, table_schema string, table_name string, constraint_type string, enforced string",
    "key_column_usage": "constraint_catalog string, constraint_schema string, constraint_name string,"
    " table_catalog string, table_schema string, table_name string, column_name string, ordinal_position int,"
    " position_in_unique_constraint int",
    "referential_constraints": "constraint_catalog string, constraint_schema string, constraint_name string,"
    " unique_constraint_catalog string, unique_constraint_schema string, unique_constraint_name string",
    "column_masks": "table_catalog string, table_schema string, table_name string, column_name string,"
    " mask_name string, using_columns string",
    "row_filters": "table_catalog string, table_schema string, table_name string, filter_name string,"
    " target_columns string",
}


def create_view(catalog: Catalog, session: SparkSession, view: str) -> None:
    """Make the temporary view `PREFIX + view` in `session` from the catalog as it is now."""
    fields = [field.split(" ") for field in VIEWS[view].replace(", ", ",").split(",")]
    casts = ", ".join(f"CAST({name} AS {kind}) AS {name}" for name, kind in fields)
    rows = list(_rows(catalog, view))
    values = ", ".join("(" + ", ".join(map(_literal, row)) + ")" for row in rows or [(None,) * len(fields)])
    names = ", ".join(name for name, _ in fields)
    where = "" if rows else " WHERE false"
    session.sql(
        f"CREATE OR REPLACE TEMPORARY VIEW {PREFIX}{view} AS SELECT {casts} FROM VALUES {values} AS t({names}){where}"
    )


def _literal(value: Any) -> str:  # noqa: ANN401 - text, number, instant or None
    if value is None:
        return "NULL"
    if isinstance(value, dt.datetime):
        return f"'{value.isoformat(sep=' ', timespec='milliseconds')}'"
    return str(value) if isinstance(value, int) else sqltext.quote_string(str(value))


def _rows(catalog: Catalog, view: str) -> Iterator[tuple[Any, ...]]:
    name = catalog.name
    match view:
        case "schemata":
            yield from ((name, schema, OWNER, None) for schema in catalog.schemas())
        case "tables":
            yield from (_table_row(name, relation) for relation in catalog.relations())
        case "views":
            yield from ((name, r.schema, r.name, r.view_text) for r in catalog.relations() if r.view_text is not None)
        case "columns":
            yield from (row for relation in catalog.relations() for row in _column_rows(name, relation))
        case "table_tags" | "column_tags":
            yield from _tag_rows(catalog, 2 if view == "table_tags" else 3)
        case "table_constraints":
            yield from ((name, k.schema, k.name, name, k.schema, k.table, k.kind, "NO") for k in catalog.keys)
        case "key_column_usage":
            yield from _key_columns(catalog)
        case "referential_constraints":
            yield from _references(catalog)
        case _:
            return


def _table_row(catalog: str, relation: Relation) -> tuple[Any, ...]:
    state = relation.state
    return (
        catalog,
        relation.schema,
        relation.name,
        relation.kind,
        OWNER,
        state.comment,
        None if relation.kind == "VIEW" else "DELTA",
        _time(state.created_ms),
        _time(state.modified_ms),
        relation.location,
    )


def _time(milliseconds: int) -> dt.datetime:
    return dt.datetime.fromtimestamp(milliseconds / 1000, tz=dt.UTC)


def _column_rows(catalog: str, relation: Relation) -> Iterator[tuple[Any, ...]]:
    for at, column in enumerate(relation.state.columns):
        full = type_text(column.json_type)
        base = full.split("(")[0].split("<")[0].upper()
        nullable = "YES" if column.nullable else "NO"
        yield catalog, relation.schema, relation.name, column.name, at, nullable, full, base, column.comment


def _tag_rows(catalog: Catalog, parts: int) -> Iterator[tuple[Any, ...]]:
    for owner, tags in catalog.tags.items():
        names = owner.split(".", 2)
        if len(names) == parts:
            yield from ((catalog.name, *names, tag, value) for tag, value in tags.items())


def _key_columns(catalog: Catalog) -> Iterator[tuple[Any, ...]]:
    name = catalog.name
    for key in catalog.keys:
        for at, column in enumerate(key.columns, 1):
            parent = at if key.parent else None
            yield name, key.schema, key.name, name, key.schema, key.table, column, at, parent


def _references(catalog: Catalog) -> Iterator[tuple[Any, ...]]:
    for key in catalog.keys:
        if key.parent is None:
            continue
        schema, _, table = key.parent.lower().rpartition(".")
        parents = [k for k in catalog.keys if k.kind == "PRIMARY KEY" and (k.schema, k.table) == (schema, table)]
        for parent in parents:
            yield catalog.name, key.schema, key.name, catalog.name, parent.schema, parent.name


def type_text(json_type: Any) -> str:  # noqa: ANN401 - Spark's JSON form of a type is a string or an object
    """A type as SQL writes it: `decimal(18,4)`, `array<string>`."""
    if isinstance(json_type, str):
        return {"integer": "int", "long": "bigint", "short": "smallint", "byte": "tinyint"}.get(json_type, json_type)
    match json_type.get("type"):
        case "struct":
            return "struct<" + ",".join(f"{f['name']}:{type_text(f['type'])}" for f in json_type["fields"]) + ">"
        case "array":
            return f"array<{type_text(json_type['elementType'])}>"
        case "map":
            return f"map<{type_text(json_type['keyType'])},{type_text(json_type['valueType'])}>"
        case _:
            return str(json_type.get("type"))


def information(catalog: Catalog, relation: Relation) -> str:
    """The `information` column of SHOW TABLE EXTENDED, which dbt-databricks takes apart by lines."""
    state = relation.state
    view = relation.kind == "VIEW"
    lines = [
        f"Catalog: {catalog.name}",
        f"Database: {relation.schema}",
        f"Table: {relation.name}",
        f"Owner: {OWNER}",
        f"Created Time: {_time(state.created_ms):%a %b %d %H:%M:%S UTC %Y}",
        f"Type: {relation.kind}",
        *([] if view else ["Provider: delta"]),
        *([f"Location: {relation.location}"] if relation.location else []),
        *([f"View Text: {relation.view_text}"] if relation.view_text else []),
        *([f"Comment: {state.comment}"] if state.comment else []),  # last: dbt takes all up to the schema for it
        "Schema: root",
        *(
            f" |-- {column.name}: {type_text(column.json_type)} (nullable = {str(column.nullable).lower()})"
            for column in state.columns
        ),
    ]
    return "\n".join(lines) + "\n\n"


def as_json(catalog: Catalog, relation: Relation) -> dict[str, Any]:
    """DESCRIBE TABLE EXTENDED … AS JSON.

    https://docs.databricks.com/sql/language-manual/sql-ref-syntax-aux-describe-table
    """
    state = relation.state
    columns = []
    for column in state.columns:
        entry = {"name": column.name, "type": _json_type(column.json_type), "nullable": column.nullable}
        columns.append(entry | ({"comment": column.comment} if column.comment is not None else {}))
    document = {
        "table_name": relation.name,
        "catalog_name": catalog.name,
        "namespace": [relation.schema],
        "schema_name": relation.schema,
        "columns": columns,
        "partition_columns": list(state.partition_columns) or None,
        "type": relation.kind,
        "provider": None if relation.kind == "VIEW" else "delta",
        "owner": OWNER,
        "comment": state.comment,
        "location": relation.location,
        "view_text": relation.view_text,
        "table_properties": state.properties or None,
        "created_time": f"{_time(state.created_ms):%Y-%m-%dT%H:%M:%SZ}",
        "is_managed_location": relation.kind == "MANAGED",
        "table_constraints": _constraints(catalog, relation),
    }
    return {key: value for key, value in document.items() if value is not None}


def _constraints(catalog: Catalog, relation: Relation) -> str | None:
    mine = [k for k in catalog.keys if (k.schema, k.table) == (relation.schema.lower(), relation.name.lower())]
    shown = []
    for key in mine:
        columns = ",".join(f"`{column}`" for column in key.columns)
        shown.append(f"({key.name}, {key.kind} ({columns}))")
    return "[" + ", ".join(shown) + "]" if shown else None


def _json_type(json_type: Any) -> dict[str, Any]:  # noqa: ANN401 - see type_text
    if isinstance(json_type, str):
        if json_type.startswith("decimal("):
            precision, scale = json_type[len("decimal(") : -1].split(",")
            return {"name": "decimal", "precision": int(precision), "scale": int(scale)}
        return {"name": {"timestamp": "timestamp_ltz"}.get(json_type, type_text(json_type))}
    match json_type.get("type"):
        case "struct":
            fields = json_type["fields"]
            items = [{"name": f["name"], "type": _json_type(f["type"]), "nullable": f["nullable"]} for f in fields]
            return {"name": "struct", "fields": items}
        case "array":
            element = _json_type(json_type["elementType"])
            return {"name": "array", "element_type": element, "element_nullable": json_type["containsNull"]}
        case _:
            return {
                "name": "map",
                "key_type": _json_type(json_type["keyType"]),
                "value_type": _json_type(json_type["valueType"]),
                "value_nullable": json_type["valueContainsNull"],
            }
