-- The shop's own tables (OLTP). Run once, as their owner, in a new database.
-- `extractor` reads and does nothing else.

CREATE TABLE customers (
    customer_id bigint      NOT NULL PRIMARY KEY,
    email       text,
    country     text,
    created_at  timestamptz NOT NULL,
    updated_at  timestamptz NOT NULL
);
COMMENT ON TABLE  customers             IS 'People with an account: one row a customer.';
COMMENT ON COLUMN customers.customer_id IS 'Number that the shop gives an account.';
COMMENT ON COLUMN customers.email       IS 'Address; null where the customer gave none.';
COMMENT ON COLUMN customers.country     IS 'Country of the last order.';
COMMENT ON COLUMN customers.created_at  IS 'When the row came to be.';
COMMENT ON COLUMN customers.updated_at  IS 'When the row last changed.';

CREATE TABLE products (
    product_id  text           NOT NULL PRIMARY KEY,
    description text,
    unit_price  numeric(12, 4),
    created_at  timestamptz    NOT NULL,
    updated_at  timestamptz    NOT NULL
);
COMMENT ON TABLE  products             IS 'What is sold, and what is booked like it (postage, fees): one row a stock code.';
COMMENT ON COLUMN products.product_id  IS 'Stock code; upper and lower case differ.';
COMMENT ON COLUMN products.description IS 'Name shown to customers; the last one that was not empty.';
COMMENT ON COLUMN products.unit_price  IS 'Last price of one piece, in pounds.';
COMMENT ON COLUMN products.created_at  IS 'When the row came to be.';
COMMENT ON COLUMN products.updated_at  IS 'When the row last changed.';

CREATE TABLE orders (
    order_id    text        NOT NULL PRIMARY KEY,
    customer_id bigint      REFERENCES customers,
    status      text        NOT NULL CHECK (status IN ('completed', 'cancelled', 'adjusted')),
    ordered_at  timestamptz NOT NULL,
    created_at  timestamptz NOT NULL,
    updated_at  timestamptz NOT NULL
);
COMMENT ON TABLE  orders             IS 'Orders, cancellations and corrections: one row a document.';
COMMENT ON COLUMN orders.order_id    IS 'Number of the document; C… is a cancellation, A… a correction of the books.';
COMMENT ON COLUMN orders.customer_id IS 'Who ordered; null for guests without an account.';
COMMENT ON COLUMN orders.status      IS 'completed, cancelled or adjusted.';
COMMENT ON COLUMN orders.ordered_at  IS 'When it was placed: the earliest of its lines.';
COMMENT ON COLUMN orders.created_at  IS 'When the row came to be.';
COMMENT ON COLUMN orders.updated_at  IS 'When the row last changed: the latest of its lines, or later.';

CREATE TABLE order_items (
    order_id    text           NOT NULL REFERENCES orders,
    line_number int            NOT NULL CHECK (line_number > 0),
    product_id  text           NOT NULL REFERENCES products,
    quantity    int            NOT NULL,
    unit_price  numeric(12, 4) NOT NULL,
    created_at  timestamptz    NOT NULL,
    updated_at  timestamptz    NOT NULL,
    PRIMARY KEY (order_id, line_number)
);
COMMENT ON TABLE  order_items             IS 'Lines of orders: one row a line.';
COMMENT ON COLUMN order_items.order_id    IS 'The document that the line is on.';
COMMENT ON COLUMN order_items.line_number IS 'Position on the document, from 1.';
COMMENT ON COLUMN order_items.product_id  IS 'What was sold.';
COMMENT ON COLUMN order_items.quantity    IS 'Pieces; negative on cancellations and corrections of stock.';
COMMENT ON COLUMN order_items.unit_price  IS 'Price of one piece on this line, in pounds; 0 or negative on corrections.';
COMMENT ON COLUMN order_items.created_at  IS 'When the row came to be.';
COMMENT ON COLUMN order_items.updated_at  IS 'When the row last changed.';

CREATE INDEX ON customers   (updated_at);
CREATE INDEX ON products    (updated_at);
CREATE INDEX ON orders      (updated_at);
CREATE INDEX ON order_items (updated_at);
CREATE INDEX ON orders      (customer_id);
CREATE INDEX ON order_items (product_id);

GRANT USAGE ON SCHEMA public TO extractor;
GRANT SELECT ON ALL TABLES IN SCHEMA public TO extractor;
ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT SELECT ON TABLES TO extractor;
