{#- Models land in exactly the schema of the profile (`kpi`), not in dbt's `<target>_<custom>`: Tableau names it. -#}
{% macro generate_schema_name(custom_schema_name, node) -%}
    {{ (custom_schema_name or target.schema) | trim }}
{%- endmacro %}
