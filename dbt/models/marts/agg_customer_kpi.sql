with lines as (
    select * from {{ ref('stg_gold__order_lines') }}
),

-- From the data, not from the date of the run: running an old date again must not move it.
last_processed as (
    select max(sales_date) as sales_date from lines
),

customers as (
    select
        customer_id,
        min(sales_date) filter (where order_status = 'completed') as first_order_date,
        max(sales_date) filter (where order_status = 'completed') as last_order_date,
        count(distinct order_id) filter (where order_status = 'completed') as orders,
        cast(
            coalesce(sum(gross_revenue) filter (where order_status = 'completed'), 0) as decimal(18, 4)
        ) as gross_revenue,
        cast(coalesce(sum(refund) filter (where order_status = 'cancelled'), 0) as decimal(18, 4)) as refunds
    from lines
    where
        customer_id is not null
        and order_status in ('completed', 'cancelled')
    group by customer_id
),

measures as (
    select
        customers.*,
        cast(customers.gross_revenue - customers.refunds as decimal(18, 4)) as net_revenue,
        {{ ratio('customers.gross_revenue', 'customers.orders') }} as average_order_value,
        datediff(last_processed.sales_date, customers.last_order_date) as recency_days
    from customers
    cross join last_processed
)

select
    customer_id,
    first_order_date,
    last_order_date,
    orders,
    gross_revenue,
    refunds,
    net_revenue,
    average_order_value,
    recency_days,
    case
        when orders = 0 then 'returns_only'
        when recency_days > {{ var('rfm_lost_days') }} then 'lost'
        when
            recency_days > {{ var('rfm_lapsing_days') }}
            and (orders >= {{ var('rfm_frequent_orders') }} or net_revenue >= {{ var('rfm_high_net_revenue') }})
            then 'at_risk'
        when recency_days > {{ var('rfm_lapsing_days') }} then 'lapsing'
        when
            recency_days <= {{ var('rfm_recent_days') }}
            and orders >= {{ var('rfm_frequent_orders') }}
            and net_revenue >= {{ var('rfm_high_net_revenue') }}
            then 'champion'
        when orders >= {{ var('rfm_frequent_orders') }} then 'loyal'
        when net_revenue >= {{ var('rfm_high_net_revenue') }} then 'big_spender'
        when orders = 1 and recency_days <= {{ var('rfm_recent_days') }} then 'new'
        else 'active'
    end as rfm_segment
from measures
