-- Sample rows: the same ones every time. The greater part is in order; the rest is wrong in ways that happen, and each such row says
-- what is expected of it.

-- 24 customers: four places by six trades, so that no two names are alike.
insert into customers (id, name, phone, website, industry)
select 100 + i, place || ' ' || trade, '+27 21 555 ' || to_char(2000 + i, 'FM0000'), 'https://' || lower(place || '-' || trade) || '.example', trade
from generate_series(0, 23) i,
     lateral (select (array['Cape', 'Karoo', 'Boland', 'Overberg'])[1 + i % 4] as place,
                     (array['Bakery', 'Dental', 'Freight', 'Nursery', 'Optics', 'Vineyards'])[1 + i / 4] as trade) n;

insert into customers (id, name, industry) values
  (130, 'ABC Corp', 'Freight'),
  -- duplicate: ABC Corp by another name, or somebody else? A person decides
  (131, 'ABC Corporation', 'Freight');

-- Two people at each of the first 20 customers.
insert into people (id, customer_id, first_name, last_name, email, phone, id_number)
select 1000 + i, 100 + i % 20, first, last, lower(first || '.' || last || i) || '@example.com', '+27 82 555 ' || to_char(3000 + i, 'FM0000'),
       '8001015' || to_char(100000 + i, 'FM000000')
from generate_series(0, 39) i,
     lateral (select (array['Anna', 'Bongani', 'Chris', 'Dineo', 'Emma', 'Farouk', 'Grace', 'Hendrik'])[1 + i % 8] as first,
                     (array['Adams', 'Botha', 'Dlamini', 'Jacobs', 'Naidoo'])[1 + i % 5] as last) n;

insert into people (id, customer_id, first_name, last_name, email, id_number) values
  -- validation, field Email: not an address
  (1040, 102, 'Lindiwe', 'Zulu', 'lindiwe at example.com', '8001015200001'),
  -- dependency: the customer waits for a person
  (1041, 131, 'Mpho', 'Nkosi', 'mpho.nkosi@example.com', '8001015200002');

insert into packages (code, name, price) values
  ('fibre-50',  'Fibre 50 Mbps',       549.00),
  ('fibre-200', 'Fibre 200 Mbps',      899.00),
  ('lte-40',    'LTE 40 GB',           299.50),
  ('router',    'Router',              899.00),
  ('install',   'Installation',        950.00);

insert into quotes (id, number, customer_id, person_id, title, status, valid_until)
select 500 + i, 'Q-' || to_char(500 + i, 'FM00000'), 100 + i, 1000 + i, 'Fibre for the office', (array['draft', 'sent', 'accepted', 'declined'])[1 + i % 4],
       date '2026-06-30' + i
from generate_series(0, 15) i;

insert into quote_lines (quote_id, position, package_code, quantity, price)
select q.id, l.position, l.package_code, 1 + (q.id % 3)::integer, p.price
from quotes q cross join (values (1, 'fibre-50'), (2, 'router'), (3, 'install')) l (position, package_code) join packages p on p.code = l.package_code;

insert into quotes (id, number, customer_id, title) values
  -- validation, field Quoted_Items: a quote has at least one line
  (516, 'Q-00516', 103, 'Nothing yet');

insert into contracts (id, number, customer_id, person_id, status, amount, signed_on, starts_on)
select 700 + i, 'C-' || to_char(700 + i, 'FM00000'), 100 + i, 1000 + i, status, 549.00 + 25 * i, case when status <> 'draft' then date '2026-02-01' + i end, date '2026-03-01' + i
from generate_series(0, 19) i, lateral (select (array['draft', 'active', 'active', 'terminated'])[1 + i % 4] as status) s;

insert into kyc_sessions (customer_id, contract_id, status, risk, id_number, verified_on)
select customer_id, id, case when i % 5 = 0 then 'in_progress' else 'completed' end, (array['low', 'low', 'medium', 'high'])[1 + i % 4],
       '8001015' || to_char(100000 + i, 'FM000000'), case when i % 5 <> 0 then date '2026-01-20' + i end
from contracts, lateral (select (id - 700)::integer as i) n where id % 3 <> 0;

-- Begun before there is a contract, which is fine: it concerns no deal yet.
insert into kyc_sessions (customer_id, status, id_number) values (122, 'in_progress', '8001015300001');

insert into rica_submissions (contract_id, status, id_number)
select id, (array['pending', 'submitted', 'approved', 'rejected'])[1 + (id % 4)::integer], '8001015' || to_char(100000 + id - 700, 'FM000000')
from contracts where status <> 'draft';

-- The other company's resellers, in its own Zoho organisation.
insert into resellers (id, name, phone) values
  (1, 'Signal Partners', '+27 11 555 4001'), (2, 'Northern Networks', '+27 11 555 4002'), (3, 'Two Oceans Telecom', '+27 21 555 4003');

-- The rows above name their ids; new ones go on from here.
select setval(pg_get_serial_sequence('customers', 'id'), 10000), setval(pg_get_serial_sequence('people', 'id'), 10000),
       setval(pg_get_serial_sequence('quotes', 'id'), 10000), setval(pg_get_serial_sequence('contracts', 'id'), 10000),
       setval(pg_get_serial_sequence('resellers', 'id'), 10000);
