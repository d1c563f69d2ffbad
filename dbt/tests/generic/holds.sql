{#- `expression` is true in every row (NULL counts as true: say `is not null` where that matters). -#}
{% test holds(model, expression) %}
select *
from {{ model }}
where not ({{ expression }})
{% endtest %}
