{#-
    `numerator / denominator` as decimal(precision, scale), rounded half up; NULL when the denominator is 0 or NULL.
    Both are made decimals first: of two bigints Spark would make a double.
-#}
{% macro ratio(numerator, denominator, precision=18, scale=4) -%}
    cast(
        cast({{ numerator }} as decimal(19, 4))
        / nullif(cast({{ denominator }} as decimal(19, 4)), 0)
        as decimal({{ precision }}, {{ scale }})
    )
{%- endmacro %}
