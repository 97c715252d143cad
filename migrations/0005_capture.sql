-- Captured row changes: written in the caller's transaction, consumed by the producer.

create table sluice.change (
  id          bigint      generated always as identity,
  relation    text        not null,                           -- the table as configured, also for a change on one of its partitions
  operation   text        not null,
  before      jsonb,                                          -- key columns, and the columns that a watch names; never the whole row
  after       jsonb,
  changed     text[]      not null default '{}',
  origin      text,                                           -- a label only: 'sluice' for our own writes. Never a reason to drop
  captured_at timestamptz not null default clock_timestamp(),
  constraint change_pkey primary key (id)
) with (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 5000, autovacuum_analyze_scale_factor = 0, autovacuum_analyze_threshold = 10000);

create table sluice.change_history (
  id          bigint      not null,
  relation    text        not null,
  operation   text        not null,
  before      jsonb,
  after       jsonb,
  changed     text[]      not null,
  origin      text,
  captured_at timestamptz not null,
  consumed_at timestamptz not null default clock_timestamp()
) partition by range (consumed_at);
create index change_history_relation_idx on sluice.change_history (relation, captured_at);

-- Runs no SQL of the user's and names no column: whatever happens to the table's definition, the business statement goes through.
-- Arguments: the table's configured name, then the columns to keep.
create function sluice.capture() returns trigger
language plpgsql security definer set search_path = pg_catalog, sluice as $$
declare
  kept text[] := tg_argv[1:];
begin
  -- Rows of both transition tables stand in the order in which they were changed, so their numbers pair them; the key may have changed.
  if tg_op = 'UPDATE' then
    insert into sluice.change (relation, operation, before, after, changed, origin)
    select tg_argv[0], 'update',
           (select jsonb_object_agg(k, o.record -> k) from unnest(kept) k),
           (select jsonb_object_agg(k, n.record -> k) from unnest(kept) k),
           array(select e.key from jsonb_each(n.record) e where e.value is distinct from o.record -> e.key),
           nullif(current_setting('sluice.origin', true), '')
    from (select row_number() over () as number, to_jsonb(r) as record from old_rows r) o
    join (select row_number() over () as number, to_jsonb(r) as record from new_rows r) n using (number)
    where o.record is distinct from n.record;
  elsif tg_op = 'INSERT' then
    insert into sluice.change (relation, operation, after, origin)
    select tg_argv[0], 'insert', (select jsonb_object_agg(k, n.record -> k) from unnest(kept) k), nullif(current_setting('sluice.origin', true), '')
    from (select to_jsonb(r) as record from new_rows r) n;
  elsif tg_op = 'DELETE' then
    insert into sluice.change (relation, operation, before, origin)
    select tg_argv[0], 'delete', (select jsonb_object_agg(k, o.record -> k) from unnest(kept) k), nullif(current_setting('sluice.origin', true), '')
    from (select to_jsonb(r) as record from old_rows r) o;
  else
    insert into sluice.change (relation, operation, origin) values (tg_argv[0], 'truncate', nullif(current_setting('sluice.origin', true), ''));
  end if;
  perform sluice.wake_sleeper('change');
  return null;
end $$;

-- The table is the truth and polling the guarantee: this only spares a sleeper the wait.
create function sluice.wake_sleeper(p_channel text) returns void
language plpgsql set search_path = pg_catalog, sluice as $$
begin
  if exists (select from sluice.wake where channel = p_channel and asleep) then
    perform pg_notify('sluice_' || p_channel, '');
  end if;
end $$;
