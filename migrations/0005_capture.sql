-- Captured row changes: written in the caller's transaction, consumed by the producer.

create table sluice.change (
  id          bigint      generated always as identity,
  relation    text        not null,                           -- schema.name of the configured table, also for a change on one of its partitions
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
-- Arguments: what to call the table (schema.name of the configured one), then the columns to keep.
create function sluice.capture() returns trigger
language plpgsql security definer set search_path = pg_catalog, sluice as $$
declare
  kept text[] := tg_argv[1:];
  sleeper boolean;
begin
  if tg_op = 'UPDATE' then
    perform from new_rows offset 1;
    if not found then
      -- One row, as in most statements: one statement, without the general form's numbering and join. `offset 0` keeps the images from being
      -- computed once for each use.
      insert into sluice.change (relation, operation, before, after, changed, origin)
      select tg_argv[0], 'update',
             case when cardinality(kept) = 1 then jsonb_build_object(kept[1], o -> kept[1]) else (select jsonb_object_agg(k, o -> k) from unnest(kept) k) end,
             case when cardinality(kept) = 1 then jsonb_build_object(kept[1], n -> kept[1]) else (select jsonb_object_agg(k, n -> k) from unnest(kept) k) end,
             array(select e.key from jsonb_each(n) e where e.value is distinct from o -> e.key),
             nullif(current_setting('sluice.origin', true), '')
      from (select to_jsonb(r) as o from old_rows r offset 0) p, (select to_jsonb(r) as n from new_rows r offset 0) q
      where o is distinct from n
      returning (select w.asleep from sluice.wake w where w.channel = 'change') into sleeper;
      if sleeper then
        perform pg_notify('sluice_change', '');
      end if;
      return null;
    else
      -- Rows of both transition tables stand in the order in which they were changed, so their numbers pair them; the key may have
      -- changed. A full join, though every row has its twin: the plan is kept for the session, and one made for two rows must not
      -- become a nested loop over a hundred thousand. Full joins are never nested loops.
      insert into sluice.change (relation, operation, before, after, changed, origin)
      select tg_argv[0], 'update',
             (select jsonb_object_agg(k, p.record -> k) from unnest(kept) k),
             (select jsonb_object_agg(k, q.record -> k) from unnest(kept) k),
             array(select e.key from jsonb_each(q.record) e where e.value is distinct from p.record -> e.key),
             nullif(current_setting('sluice.origin', true), '')
      from (select row_number() over () as number, to_jsonb(r) as record from old_rows r) p
      full join (select row_number() over () as number, to_jsonb(r) as record from new_rows r) q using (number)
      where p.record is distinct from q.record
      order by number;
    end if;
  elsif tg_op = 'INSERT' then
    insert into sluice.change (relation, operation, after, origin)
    select tg_argv[0], 'insert', (select jsonb_object_agg(k, q.record -> k) from unnest(kept) k), nullif(current_setting('sluice.origin', true), '')
    from (select to_jsonb(r) as record from new_rows r) q;
  elsif tg_op = 'DELETE' then
    insert into sluice.change (relation, operation, before, origin)
    select tg_argv[0], 'delete', (select jsonb_object_agg(k, p.record -> k) from unnest(kept) k), nullif(current_setting('sluice.origin', true), '')
    from (select to_jsonb(r) as record from old_rows r) p;
  else
    insert into sluice.change (relation, operation, origin) values (tg_argv[0], 'truncate', nullif(current_setting('sluice.origin', true), ''));
  end if;
  -- as wake_sleeper does; a call less in every business statement
  if exists (select from sluice.wake where channel = 'change' and asleep) then
    perform pg_notify('sluice_change', '');
  end if;
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

-- Takes changes out of the table and into their history: only rows that are seen, never up to an id, since an older id may become
-- visible later. Names and hashes are the replica's own definitions. Changes of tables that concern a published sync whose
-- definition differs are left for replicas that agree. Both are judged in one snapshot: whoever sees a change made after a publish sees
-- that publish as well, so no change is ever weighed by a mapping that was already replaced.
create function sluice.take_changes(p_names text[], p_hashes text[], p_limit integer) returns setof sluice.change
language plpgsql set search_path = pg_catalog, sluice set enable_seqscan = off set enable_hashjoin = off set enable_mergejoin = off set jit = off as $$
declare
  ids bigint[];
begin
  ids := array(
    select c.id from sluice.change c
    where c.relation <> all (array(
      select unnest(y.relation || y.watched) from sluice.sync y
      where y.retired_at is null and not exists (select from unnest(p_names, p_hashes) as own (name, hash) where own.name = y.name and own.hash = y.hash)))
    order by c.id limit p_limit for update of c skip locked);
  if cardinality(ids) = 0 then
    return;
  end if;
  -- A missing partition costs history, never a change.
  if to_regclass('sluice.change_history_' || to_char(clock_timestamp() at time zone 'UTC', 'YYYYMMDD')) is null then
    raise warning 'sluice.change_history has no partition for today';
    return query with taken as (delete from sluice.change c where c.id = any (ids) returning c.*) select * from taken t order by t.id;
  else
    return query
      with taken as (
        delete from sluice.change c where c.id = any (ids) returning c.*
      ), kept as (
        insert into sluice.change_history (id, relation, operation, before, after, changed, origin, captured_at)
        select t.id, t.relation, t.operation, t.before, t.after, t.changed, t.origin, t.captured_at from taken t
      )
      select * from taken t order by t.id;
  end if;
end $$;
