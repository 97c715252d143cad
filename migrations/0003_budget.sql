-- The ledger: every call is a row that was taken before the call and comes free a window after its answer.

-- One budget per organisation and what it meters together: Books, Inventory and Billing share 'finance' unless told otherwise.
-- Two connections to one organisation draw from one budget.
create table sluice.budget (
  id              bigint      generated always as identity,
  data_center     text        not null,
  organization_id text        not null,
  scope           text        not null,                       -- finance, crm, fsm, or a product's own
  cap             integer     not null,                       -- calls in any window
  call_window     interval    not null,
  in_flight       integer     not null,
  grid_at         timestamptz not null default '-infinity',   -- while bulk work waits, no grant before this point
  blocked_until   timestamptz not null default '-infinity',   -- Zoho said so: a 429
  blocked_reason  text,
  constraint budget_pkey primary key (id),
  constraint budget_key unique (data_center, organization_id, scope),
  constraint budget_cap_check check (cap > 0 and in_flight > 0 and call_window > interval '0')
) with (fillfactor = 50);

-- `cap` rows of kind 'window' and `in_flight` rows of kind 'in_flight' per budget: one per call that may be in it. Rows, not a
-- count: one statement that locks a row and counts others counts as of before its wait.
create table sluice.place (
  id         bigint      generated always as identity,
  budget_id  bigint      not null,
  kind       text        not null,
  free_at    timestamptz not null default '-infinity',
  batch      bigint,
  lane       smallint,
  granted_at timestamptz,
  answer     interval,                                        -- how long the answer took, of those that came
  constraint place_pkey primary key (id),
  constraint place_budget_id_fkey foreign key (budget_id) references sluice.budget (id) on delete cascade,
  constraint place_kind_check check (kind in ('window', 'in_flight'))
) with (fillfactor = 50);
create index place_free_idx on sluice.place (budget_id, kind, free_at);

-- A product of a connection: which budget it draws from, and its circuit.
create table sluice.product (
  connection  text        not null,
  product     text        not null,
  budget_id   bigint      not null,
  unanswered  integer     not null default 0,                 -- calls in a row without an answer below 500
  opened_at   timestamptz,                                    -- the circuit is open since then: one probe at a time
  probe_at    timestamptz,
  answered_at timestamptz not null default '-infinity',       -- the last answer below 500 to anybody
  outage_ended_at timestamptz,                                -- when the circuit last closed: what failed until then is nobody's failure
  constraint product_pkey primary key (connection, product),
  constraint product_budget_id_fkey foreign key (budget_id) references sluice.budget (id)
) with (fillfactor = 50);

-- One encrypted row per refresh token, refreshed once for all replicas.
create table sluice.credential (
  fingerprint   text        not null,                         -- sha256 of the refresh token
  refresh_token bytea       not null,
  access_token  bytea,
  expires_at    timestamptz,
  api_domain    text,
  refresh_until timestamptz not null default '-infinity',     -- the lease of whoever is refreshing it
  refreshed_by  text,
  failure       text,                                         -- why the last refresh failed; null when it did not
  retry_at      timestamptz not null default '-infinity',
  updated_at    timestamptz not null default clock_timestamp(),
  constraint credential_pkey primary key (fingerprint)
) with (fillfactor = 50);

-- Ten rows per refresh token: Zoho mints ten access tokens per ten minutes and then refuses. Failed mints count as well.
create table sluice.mint (
  fingerprint text        not null,
  place       smallint    not null,
  free_at     timestamptz not null default '-infinity',
  minted_at   timestamptz,
  constraint mint_pkey primary key (fingerprint, place)
) with (fillfactor = 50);
