{#- The columns together are unique (dbt's own `unique` takes one). A row it gives is a key and how often it is there. -#}
{% test unique_key(model, columns) %}
select
    {{ columns | join(', ') }},
    count(*) as copies
from {{ model }}
group by {{ columns | join(', ') }}
having count(*) > 1
{% endtest %}
