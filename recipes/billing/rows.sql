-- Sample rows: the same ones every time. The greater part is in order; the rest is wrong in ways that happen, and each such row says
-- what is expected of it. `sluice demo` loads this before it attaches, as a backfill of existing data would find it.

insert into products (code, name, description) values
  ('fibre',        'Fibre',        'Fibre to the home'),
  ('wireless',     'Wireless',     'Fixed wireless access'),
  ('installation', 'Installation', 'A technician''s visit'),
  ('equipment',    'Equipment',    'Routers and antennas'),
  ('pro_rata',     'Pro rata',     'Part of a month'),
  ('adjustment',   'Adjustment',   'Corrections by hand');

insert into service_plans (code, product_code, name, monthly_price, setup_fee, active) values
  ('fibre-25',    'fibre',    'Fibre 25 Mbps',    399.00,    0.00, true),
  ('fibre-50',    'fibre',    'Fibre 50 Mbps',    549.00,    0.00, true),
  ('fibre-100',   'fibre',    'Fibre 100 Mbps',   749.00,    0.00, true),
  ('fibre-500',   'fibre',    'Fibre 500 Mbps',   999.00,  250.00, true),
  ('air-10',      'wireless', 'Air 10 Mbps',      329.50,  499.00, true),
  ('air-20',      'wireless', 'Air 20 Mbps',      449.50,  499.00, true),
  ('air-40',      'wireless', 'Air 40 Mbps',      649.50,  499.00, true),
  ('adsl-4',      'wireless', 'ADSL 4 Mbps',      299.00,    0.00, false);  -- withdrawn: not pushed

-- 60 customers, every fifth a company. Ten first names by six surnames, so that no two are called the same.
insert into customers (id, account_number, name, company, email, phone, street, city, status, created_at)
select 1000 + i, 'ACC-' || 1000 + i, first || ' ' || last, case when i % 5 = 0 then last || ' Trading' end,
       lower(first || '.' || replace(last, ' ', '')) || '@example.com', '+27 21 555 ' || to_char(1000 + i, 'FM0000'), i || ' Harbour Road',
       (array['Cape Town', 'Paarl', 'Stellenbosch', 'Worcester'])[1 + i % 4], case when i % 17 = 0 then 'closed' else 'active' end,
       timestamptz '2026-01-05 08:00:00Z' + i * interval '7 hours'
from generate_series(0, 59) i,
     lateral (select (array['Anna', 'Bongani', 'Chris', 'Dineo', 'Emma', 'Farouk', 'Grace', 'Hendrik', 'Imani', 'Johan'])[1 + i % 10] as first,
                     (array['Adams', 'Botha', 'Dlamini', 'Jacobs', 'Naidoo', 'van Wyk'])[1 + i / 10] as last) n;

insert into customers (id, account_number, name, email, status) values
  -- validation, field email: Zoho demands one
  (1061, 'ACC-1061', 'Kagiso Molefe', null, 'active'),
  -- validation, field email: not an address
  (1062, 'ACC-1062', 'Lindiwe Zulu', 'lindiwe at example.com', 'active'),
  -- validation, field display_name: Zoho takes fewer than 200 characters
  (1063, 'ACC-1063', 'The Trustees for the Time Being of ' || repeat('the Very Long Family ', 10) || 'Trust', 'trust@example.com', 'active'),
  -- validation or payload, field cf_account_status: a status that `values` does not know
  (1064, 'ACC-1064', 'Mpho Nkosi', 'mpho.nkosi@example.com', 'sespended'),
  -- duplicate: two customers share an e-mail address; the second to come finds the Zoho customer of the first
  (1065, 'ACC-1065', 'Nomsa Khumalo', 'khumalo@example.com', 'active'),
  (9000, 'ACC-9000', 'Sipho Khumalo', 'khumalo@example.com', 'active');

-- 66 services on seven plans; every eleventh is still pending and not pushed.
insert into services (id, customer_id, plan_code, address, status, activated_on)
select 2000 + i, 1000 + i % 60, (array['fibre-25', 'fibre-50', 'fibre-100', 'fibre-500', 'air-10', 'air-20', 'air-40'])[1 + i % 7], i || ' Harbour Road',
       case when i % 11 = 10 then 'pending' else 'active' end, case when i % 11 <> 10 then date '2026-02-01' + i end
from generate_series(0, 65) i;

insert into services (id, customer_id, plan_code, status, activated_on) values
  -- dependency: the plan exists nowhere, neither here nor in Zoho
  (2066, 1003, 'fibre-2000', 'active', '2026-03-01'),
  -- dependency: the plan is excluded by the `when` of plans
  (2067, 1004, 'adsl-4', 'active', '2026-03-01'),
  -- dependency: its customer is a dead letter (no e-mail address). Repair the customer, and this follows by itself
  (2068, 1061, 'fibre-50', 'active', '2026-03-01');

-- 70 invoices: 14 of each type, one to three lines; every seventh has none and is sent as one line over its amount.
insert into customer_invoices (id, customer_id, number, type, description, lines, amount, issued_on, due_on)
select 3000 + i, 1000 + i % 60, 'M-' || to_char(3000 + i, 'FM00000'), type, initcap(replace(type, '_', ' ')) || ' for ACC-' || 1000 + i % 60,
       case when i % 7 = 6 then '[]' else l.lines end, l.total, date '2026-03-01' + i, date '2026-03-15' + i
from generate_series(0, 69) i,
     lateral (select (array['installation', 'pro_rata', 'equipment', 'adjustment', 'recurring'])[1 + i % 5] as type) t,
     lateral (select jsonb_agg(jsonb_build_object('product', case t.type when 'recurring' then 'fibre' else t.type end, 'description', 'Position ' || n,
                                                  'price', 100.00 + 12.50 * n + i, 'quantity', n) order by n) as lines,
                     sum((100.00 + 12.50 * n + i) * n) as total
              from generate_series(1, 1 + i % 3) n) l;

insert into customer_invoices (id, customer_id, number, type, description, lines, amount, issued_on, due_on) values
  -- dependency: its customer is a dead letter (the name is too long)
  (3070, 1063, 'M-03070', 'installation', 'Installation', '[]', 950.00, '2026-05-10', '2026-05-24'),
  -- payload: a quantity that is no number, so the row cannot be read
  (3071, 1005, 'M-03071', 'equipment', 'Router', '[{"product": "equipment", "description": "Router", "price": 899.00, "quantity": "two"}]', 1798.00, '2026-05-10', '2026-05-24'),
  -- dependency: the line names a product that does not exist
  (3072, 1006, 'M-03072', 'equipment', 'Antenna', '[{"product": "antenna", "description": "Antenna", "price": 450.00, "quantity": 1}]', 450.00, '2026-05-10', '2026-05-24'),
  -- duplicate: the number is taken, by another invoice of ours
  (9000, 1007, 'M-03068', 'adjustment', 'Typed over from the old system', '[]', 75.00, '2026-05-11', '2026-05-25');

-- 76 payments. The first 48 pay their invoice in full, or half of it, or two invoices at once; then 16 without an invoice (credit on the account)
-- and 12 that are not completed yet and not pushed.
insert into payments (id, customer_id, amount, method, status, paid_on, note)
select 4000 + i, i_.customer_id, case when i % 8 = 5 then round(i_.amount / 2, 2) else i_.amount end,
       (array['eft', 'card', 'cash', 'debit_order'])[1 + i % 4], 'completed', date '2026-04-01' + i, 'Thank you'
from generate_series(0, 47) i
join lateral (select * from customer_invoices where type <> 'recurring' and id < 3070 order by id limit 1 offset i) i_ on true
union all
select 4000 + i, 1000 + i % 60, 150.00 + i, (array['eft', 'card', 'cash', 'debit_order'])[1 + i % 4], case when i < 64 then 'completed' else 'pending' end,
       date '2026-04-01' + i, null
from generate_series(48, 75) i;

insert into payment_allocations (payment_id, invoice_id, amount)
select p.id, i.id, p.amount
from payments p
join lateral (select * from customer_invoices where type <> 'recurring' and id < 3070 order by id limit 1 offset p.id - 4000) i on true
where p.id < 4048;

insert into payments (id, customer_id, amount, method, status, paid_on, note) values
  -- in order: one payment for two invoices, which are the customer's own and otherwise unpaid
  (4076, 1001, 500.00, 'eft', 'completed', '2026-06-01', 'Two invoices and the rest on account'),
  -- validation, field amount_applied: more than the invoice's balance
  (4077, 1008, 5000.00, 'eft', 'completed', '2026-06-01', 'Typed a nought too many'),
  -- dependency: pays a recurring invoice, which is excluded by the `when` of invoices
  (4078, 1009, 549.00, 'card', 'completed', '2026-06-01', null),
  -- validation or payload, field payment_mode: a method that `values` does not know
  (4079, 1010, 120.00, 'voucher', 'completed', '2026-06-01', null),
  -- validation, field invoice_id: the invoice is another customer's
  (4080, 1011, 100.00, 'cash', 'completed', '2026-06-01', 'Allocated to the wrong account'),
  -- dependency: its invoice is a dead letter (the quantity is no number)
  (4081, 1005, 1798.00, 'eft', 'completed', '2026-06-01', null);

insert into customer_invoices (id, customer_id, number, type, description, lines, amount, issued_on, due_on) values
  (3080, 1001, 'M-03080', 'equipment',    'Router',            '[]', 250.00, '2026-05-20', '2026-06-03'),
  (3081, 1001, 'M-03081', 'installation', 'Second visit',      '[]', 200.00, '2026-05-20', '2026-06-03'),
  (3082, 1008, 'M-03082', 'equipment',    'Mesh access point', '[]', 500.00, '2026-05-20', '2026-06-03'),
  (3083, 1012, 'M-03083', 'adjustment',   'Wrong plan in May', '[]', 100.00, '2026-05-20', '2026-06-03');

insert into payment_allocations (payment_id, invoice_id, amount) values
  (4076, 3080, 250.00), (4076, 3081, 200.00), (4077, 3082, 5000.00), (4078, 3009, 100.00), (4080, 3083, 100.00), (4081, 3071, 1798.00);

-- The rows above name their ids; new ones go on from here.
select setval(pg_get_serial_sequence('customers', 'id'), 10000), setval(pg_get_serial_sequence('services', 'id'), 10000),
       setval(pg_get_serial_sequence('customer_invoices', 'id'), 10000), setval(pg_get_serial_sequence('payments', 'id'), 10000);
