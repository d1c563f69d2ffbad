{#-
    None of `columns` is NULL anywhere. One scan for all of them, where a `not_null` test each would be a statement each.
    The rows it gives name the column and how many rows it is NULL in.
-#}
{% test columns_not_null(model, columns) %}
with counts as (
    select
        {%- for column in columns %}
        count_if({{ column }} is null) as {{ column }}{{ ',' if not loop.last }}
        {%- endfor %}
    from {{ model }}
)

select column_name, null_rows
from counts
lateral view stack(
    {{ columns | length }},
    {%- for column in columns %}
    '{{ column }}', {{ column }}{{ ',' if not loop.last }}
    {%- endfor %}
) nulls as column_name, null_rows
where null_rows > 0
{% endtest %}
