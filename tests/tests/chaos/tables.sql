-- The application's own tables, with the columns that Sluice writes back to.
create table products (
  code text primary key, name text not null unique, description text not null default '',
  zoho_id text, zoho_status text, zoho_synced_at timestamptz, zoho_error text
);
create table plans (
  code text primary key, product_code text not null references products (code), name text not null, price numeric(12,2) not null,
  zoho_id text, zoho_status text
);
create table customers (
  id bigint primary key, account_number text not null unique, name text not null, email text not null unique, phone text, street text, city text,
  zoho_id text, zoho_status text, zoho_synced_at timestamptz, zoho_error text
);
create table subscriptions (
  id bigint primary key, customer_id bigint not null references customers (id), plan_code text not null references plans (code), starts_on date not null,
  zoho_id text, zoho_status text
);
create table invoices (
  id bigint primary key, customer_id bigint not null references customers (id), number text not null unique, issued_on date not null, due_on date not null,
  notes text, lines jsonb not null, zoho_id text, zoho_status text
);
create table payments (
  id bigint primary key, customer_id bigint not null references customers (id), invoice_id bigint references invoices (id), amount numeric(12,2) not null,
  paid_on date not null, note text, zoho_id text, zoho_status text
);
create table contacts (
  id bigint primary key, last_name text not null, email text not null unique, phone text, note text, zoho_id text, zoho_status text
);
