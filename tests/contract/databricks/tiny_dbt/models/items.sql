{{ config(materialized="table", contract={"enforced": true}) }}
select cast(id as bigint) as id, cast(id * 1.25 as decimal(18, 4)) as amount, 'it''s; -- "odd" /* text */' as note
from range({{ var("rows", 3) }})
