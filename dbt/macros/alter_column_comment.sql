{#-
    All comments of a table in one statement, where the adapter sends one a column (32 for the three marts, each a
    commit). Overrides the adapter's macro of this name; several columns in one ALTER need Databricks Runtime 16.3 or a
    current SQL warehouse: https://docs.databricks.com/sql/language-manual/sql-ref-syntax-ddl-alter-table-manage-column
-#}
{% macro databricks__alter_column_comment(relation, column_dict) %}
    {%- if column_dict %}
        {%- set changes = [] -%}
        {%- for column in column_dict.values() -%}
            {%- set comment = column['description'] | replace('\\', '\\\\') | replace("'", "\\'") -%}
            {%- do changes.append(adapter.quote(column['name']) ~ " comment '" ~ comment ~ "'") -%}
        {%- endfor -%}
        {%- call statement('alter_column_comment') -%}
            alter table {{ relation.render() }} alter column {{ changes | join(', ') }}
        {%- endcall -%}
    {%- endif %}
{% endmacro %}
