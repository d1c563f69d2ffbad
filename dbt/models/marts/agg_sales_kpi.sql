with daily as (
    select * from {{ ref('stg_gold__daily_sales') }}
),

-- The frames are ranges of calendar days, not of rows: a day without orders has no row, and counts as 0.
windows as (
    select
        *,
        cast(
            sum(net_revenue) over (
                order by unix_date(sales_date) range between 6 preceding and current row
            ) as decimal(18, 4)
        ) as net_revenue_7d,
        cast(
            sum(net_revenue) over (
                order by unix_date(sales_date) range between 13 preceding and 7 preceding
            ) as decimal(18, 4)
        ) as net_revenue_7d_before
    from daily
)

select
    sales_date,
    orders,
    cancelled_orders,
    customers,
    units,
    gross_revenue,
    refunds,
    net_revenue,
    {{ ratio('gross_revenue', 'orders') }} as average_order_value,
    {{ ratio('cancelled_orders', 'orders + cancelled_orders', 9, 6) }} as cancellation_rate,
    {{ ratio('units', 'orders') }} as units_per_order,
    net_revenue_7d,
    {{ ratio('net_revenue_7d - net_revenue_7d_before', 'net_revenue_7d_before', 25, 6) }} as net_revenue_change_7d,
    processed_at
from windows
