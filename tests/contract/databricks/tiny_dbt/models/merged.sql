{{ config(materialized="incremental", incremental_strategy="merge", unique_key="id") }}
select id, amount, {{ var("rows", 3) }} as seen from {{ ref("items_view") }}
