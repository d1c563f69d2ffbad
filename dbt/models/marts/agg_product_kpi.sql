with lines as (
    select
        order_id,
        sales_date,
        order_status,
        quantity,
        gross_revenue,
        refund,
        -- Before the grouping, which would else tell NULL and a product of this name apart.
        coalesce(product_id, 'unknown') as product_id
    from {{ ref('stg_gold__order_lines') }}
    where order_status in ('completed', 'cancelled')
),

products as (
    select
        sales_date,
        product_id,
        cast(
            coalesce(sum(quantity) filter (where order_status = 'completed' and quantity > 0), 0) as bigint
        ) as units,
        cast(
            coalesce(sum(gross_revenue) filter (where order_status = 'completed'), 0) as decimal(18, 4)
        ) as gross_revenue,
        cast(coalesce(sum(refund) filter (where order_status = 'cancelled'), 0) as decimal(18, 4)) as refunds,
        count(distinct order_id) filter (where order_status = 'completed') as orders
    from lines
    group by sales_date, product_id
),

with_net as (
    select
        *,
        cast(gross_revenue - refunds as decimal(18, 4)) as net_revenue
    from products
)

select
    sales_date,
    product_id,
    units,
    gross_revenue,
    refunds,
    net_revenue,
    orders,
    row_number() over (
        partition by sales_date order by net_revenue desc, product_id asc
    ) as revenue_rank
from with_net
