select
    order_id,
    line_number,
    sales_date,
    status as order_status,
    customer_id,
    product_id,
    quantity,
    gross_revenue,
    refund
from {{ source('gold', 'sales_analytics') }}
