-- The published configuration: what inserts are checked against, and what tells replicas whether they agree. No secrets here.

create table sluice.connection (
  name            text        not null,
  data_center     text        not null,
  organization_id text,                                       -- null until it is named or found; the budget is then the connection's own
  asked_until     timestamptz,                                -- somebody asks Zoho which organisation it is: until then nobody else does
  hash            text        not null,
  credential      text,                                       -- fingerprint of the refresh token in use: sluice.credential
  seeded_with     text,                                       -- fingerprint of the one the file first gave
  paused_at       timestamptz,
  paused_by       text,
  pause_reason    text,
  pause_cause     text,                                       -- why Sluice itself paused it: what mends that resumes it. Null: a person did
  published_at    timestamptz not null default clock_timestamp(),
  published_by    text        not null default '',
  retired_at      timestamptz,
  constraint connection_pkey primary key (name),
  constraint connection_pause_cause_check check (pause_cause in ('organization', 'token'))
);

create table sluice.sync (
  name         text        not null,
  connection   text        not null,
  product      text        not null,
  module       text        not null,
  relation     text        not null,                          -- schema.name: what sluice.change calls it
  watched      text[]      not null default '{}',             -- other tables whose changes concern it, likewise
  key_columns  text[]      not null,
  key_types    text[]      not null,                          -- what an insert's key is cast to and back: `042` becomes `42`
  direction    text        not null,
  lane         text        not null,
  min_interval interval    not null default '2 s',
  fresh_within interval,                                      -- what waits longer goes one lane up
  batch_max    smallint    not null,                          -- records that one call may carry
  definition   jsonb       not null,
  hash         text        not null,                          -- replicas work only for syncs whose hash equals their own
  total        bigint,                                        -- rows at the last sweep
  counted_at   timestamptz,
  paused_at    timestamptz,
  paused_by    text,
  pause_reason text,
  pause_cause  text,                                         -- as of a connection
  published_at timestamptz not null default clock_timestamp(),
  published_by text        not null default '',
  retired_at   timestamptz,
  constraint sync_pkey primary key (name),
  constraint sync_pause_cause_check check (pause_cause in ('authorization', 'module')),
  constraint sync_direction_check check (direction in ('push', 'pull', 'both')),
  constraint sync_lane_check check (lane in ('interactive', 'realtime', 'normal', 'reconcile', 'backfill')),
  constraint sync_batch_max_check check (batch_max between 1 and 100),
  constraint sync_key_check check (cardinality(key_columns) = cardinality(key_types) and cardinality(key_columns) > 0)
);

-- One row per kind of job. Built-in kinds stand here from the start; a worker registers its own Rust kinds.
create table sluice.job_kind (
  name          text        not null,
  args          jsonb,                                        -- {"<arg>": {"type": …, "required": bool}}; null: anything goes
  product       text,                                         -- own kinds: whose budget their calls draw from
  built_in      boolean     not null default false,
  registered_at timestamptz not null default clock_timestamp(),
  constraint job_kind_pkey primary key (name)
);

insert into sluice.job_kind (name, built_in, args) values
  ('push', true, '{"sync": {"type": "sync", "required": true}, "key": {"type": "key", "required": true}}'),
  ('call', true, '{"connection": {"type": "connection", "required": true}, "product": {"type": "product", "required": true},
                   "method": {"type": "method", "required": true}, "path": {"type": "path", "required": true},
                   "query": {"type": "object", "required": false}, "body": {"type": "any", "required": false}}');

-- A row per schedule. The tick that moves next_at is the one that enqueues: one of any number of producers.
create table sluice.schedule (
  name         text        not null,
  cron         text        not null,
  job          jsonb       not null,
  missed       text        not null default 'once',
  next_at      timestamptz not null,
  last_at      timestamptz,
  last_error   text,                                          -- why the last tick's job was refused; null when it was not
  hash         text        not null,
  retired_at   timestamptz,
  constraint schedule_pkey primary key (name),
  constraint schedule_missed_check check (missed in ('once', 'skip', 'all'))
);
