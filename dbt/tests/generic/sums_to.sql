{#-
    The sum of `column_name` equals the sum of `field` of another table: to the last decimal, and for each value of `by`
    where given (a column that both have). `where_to` narrows the rows of the other table.
    A row it gives is a difference: the value of `by`, the two sums.
-#}
{% test sums_to(model, column_name, to, field, by=none, where_to=none) %}
with ours as (
    select
        {{ by or "'all'" }} as part,
        sum({{ column_name }}) as total
    from {{ model }}
    group by 1
),

theirs as (
    select
        {{ by or "'all'" }} as part,
        sum({{ field }}) as total
    from {{ to }}
    {%- if where_to %}
    where {{ where_to }}
    {%- endif %}
    group by 1
)

select
    coalesce(ours.part, theirs.part) as part,
    ours.total as ours,
    theirs.total as theirs
from ours
full outer join theirs on ours.part = theirs.part
where coalesce(ours.total, 0) != coalesce(theirs.total, 0)
{% endtest %}
