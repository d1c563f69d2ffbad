select
    sales_date,
    orders,
    cancelled_orders,
    customers,
    units,
    gross_revenue,
    refunds,
    net_revenue,
    processed_at
from {{ source('gold', 'agg_daily_sales') }}
