-- Captured row changes: written in the caller's transaction, consumed by the producer.

-- No index: what every business transaction writes should cost it as little as can be, and who takes changes takes whatever lies there.
-- An update in its short form, which is the usual one, says only which row (`key`, or `after`) and which columns by number (`touched`).
create table sluice.change (
  id          bigint      generated always as identity,
  relation    text        not null,                           -- schema.name of the configured table, also for a change on one of its partitions
  operation   text        not null,
  before      jsonb,                                          -- key columns, and the columns that a watch names; never the whole row
  after       jsonb,                                          -- of an update without `before`: none of these columns changed
  changed     text[],                                         -- of an update: the columns that differ. Or, in the short form:
  kept        text,                                           -- the only column to keep; its value, before and after, is `key`
  key         text,
  touched     bigint,                                         -- bit n - 1: column number n (pg_attribute.attnum) of `relid` differs
  relid       oid,
  origin      text,                                           -- a label only: 'sluice' for our own writes. Never a reason to drop
  captured_at timestamptz not null default clock_timestamp()
) with (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 5000, autovacuum_analyze_scale_factor = 0, autovacuum_analyze_threshold = 10000);

create table sluice.change_history (
  id          bigint      not null,
  relation    text        not null,
  operation   text        not null,
  before      jsonb,
  after       jsonb,
  changed     text[],
  kept        text,
  key         text,
  touched     bigint,
  relid       oid,
  origin      text,
  captured_at timestamptz not null,
  consumed_at timestamptz not null default clock_timestamp()
) partition by range (consumed_at);
-- A B-tree here took a third of what consuming a change costs. History is read by time, and for that a range of blocks is near enough.
create index change_history_consumed_idx on sluice.change_history using brin (consumed_at) with (pages_per_range = 16);

-- The columns to keep of a row. Not `strict`, so that the planner can put it in place of the call, as it does with sluice.changed.
create function sluice.kept(p_columns text[], p_row jsonb) returns jsonb
language sql immutable as $$ select jsonb_object_agg(k, p_row -> k) from unnest(p_columns) k $$;

create function sluice.changed(p_before jsonb, p_after jsonb) returns text[]
language sql immutable as $$ select array(select e.key from jsonb_each(p_after) e where e.value is distinct from p_before -> e.key) $$;

-- The general form of capture, once a statement. Runs no SQL of the user's and names no column: whatever happens to the table's definition,
-- the business statement goes through. Arguments: what to call the table (schema.name of the configured one), then the columns to keep.
-- Updates of a table without partitions and children have a form of their own, below, that costs half.
create function sluice.capture() returns trigger
language plpgsql security definer set search_path = pg_catalog, sluice as $$
declare
  kept text[] := tg_argv[1:];
begin
  if tg_op = 'UPDATE' then
    -- Rows of both transition tables stand in the order in which they were changed, so their numbers pair them; the key may have
    -- changed. A full join, though every row has its twin: the plan is kept for the session, and one made for two rows must not
    -- become a nested loop over a hundred thousand. Full joins are never nested loops.
    insert into sluice.change (relation, operation, before, after, changed, origin)
    select tg_argv[0], 'update', sluice.kept(kept, p.record), sluice.kept(kept, q.record), sluice.changed(p.record, q.record),
           current_setting('sluice.origin', true)
    from (select row_number() over () as number, to_jsonb(r) as record from old_rows r) p
    full join (select row_number() over () as number, to_jsonb(r) as record from new_rows r) q using (number)
    where p.record is distinct from q.record
    order by number;
  elsif tg_op = 'INSERT' then
    insert into sluice.change (relation, operation, after, origin)
    select tg_argv[0], 'insert', sluice.kept(kept, q.record), current_setting('sluice.origin', true)
    from (select to_jsonb(r) as record from new_rows r) q;
  elsif tg_op = 'DELETE' then
    insert into sluice.change (relation, operation, before, origin)
    select tg_argv[0], 'delete', sluice.kept(kept, p.record), current_setting('sluice.origin', true)
    from (select to_jsonb(r) as record from old_rows r) p;
  else
    insert into sluice.change (relation, operation, origin) values (tg_argv[0], 'truncate', current_setting('sluice.origin', true));
  end if;
  -- as wake_sleeper does; a call less in every business statement
  if pg_sequence_last_value('sluice.change_sleeper'::regclass) > date_part('epoch', clock_timestamp()) then
    perform pg_notify('sluice_change', '');
  end if;
  return null;
end $$;

-- What a generated capture function falls back on when the table no longer has the columns that it was made for.
create function sluice.capture_update(p_relation text, p_kept text[], p_before jsonb, p_after jsonb) returns void
language sql set search_path = pg_catalog, sluice as $$
  insert into sluice.change (relation, operation, before, after, changed, origin)
  select p_relation, 'update', sluice.kept(p_kept, p_before), sluice.kept(p_kept, p_after), sluice.changed(p_before, p_after), current_setting('sluice.origin', true)
  where p_before is distinct from p_after
$$;

-- The names of the columns that an update changed, whichever form it was captured in. Null: the table is gone since, so nobody knows.
create function sluice.changed_columns(changed text[], relid oid, touched bigint) returns text[]
language sql stable as $$
  select case when $3 is null then $1
              else (select array_agg(a.attname::text order by a.attnum) filter (where $3 >> (a.attnum - 1) & 1 = 1)
                    from pg_catalog.pg_attribute a where a.attrelid = $2 and a.attnum between 1 and 63 and not a.attisdropped) end
$$;

-- The body of a table's own capture of updates, once a row: it compares columns by name instead of turning rows into JSON and joining
-- transition tables. Each column is compared as exactly as its text would be, or more finely; `collate "C"`, since to a collation of the
-- user's two texts may be equal. That a column was dropped, renamed or retyped since is an error here, that one was added is seen by its
-- number; in both cases the general form is taken, so that the business statement goes through and no changed column is missed.
-- Each expression costs, since a transaction sets all of them up anew. So the changed columns are bits of one number, whose sign says
-- that one of the columns to keep is among them. A table with columns beyond the 63rd takes the general form.
create function sluice.capture_source(p_table regclass, p_relation text, p_kept text[]) returns text
language plpgsql stable set search_path = pg_catalog, sluice as $$
declare
  comparisons text;
  before text;
  after text;
  short text;
  last_column integer;
begin
  select c.relnatts into last_column from pg_class c where c.oid = p_table;
  select string_agg(format(case
           when t.typtype = 'e' or b.oid in ('bool'::regtype, 'int2'::regtype, 'int4'::regtype, 'int8'::regtype, 'oid'::regtype, 'uuid'::regtype, 'numeric'::regtype, 'date'::regtype,
                'time'::regtype, 'timestamp'::regtype, 'timestamptz'::regtype, 'float4'::regtype, 'float8'::regtype, 'bytea'::regtype, 'jsonb'::regtype)
             then 'case when old.%1$I is distinct from new.%1$I then %2$s else 0 end'
           when b.oid in ('text'::regtype, 'varchar'::regtype)
             then 'case when old.%1$I collate "C" is distinct from new.%1$I collate "C" then %2$s else 0 end'
           else 'case when old.%1$I::text collate "C" is distinct from new.%1$I::text collate "C" then %2$s else 0 end' end,
           a.attname, format('%L::bigint', (1::bigint << (a.attnum - 1)) | case when a.attname = any (p_kept) then 1::bigint << 63 else 0 end)), e'\n      | ' order by a.attnum)
    into comparisons
    from pg_attribute a
    join pg_type t on t.oid = a.atttypid
    join pg_type b on b.oid = case when t.typtype = 'd' then sluice.base_type(t.oid) else t.oid end
    where a.attrelid = p_table and a.attnum between 1 and 63 and not a.attisdropped;
  select string_agg(format('%1$L, old.%1$I', k), ', '), string_agg(format('%1$L, new.%1$I', k), ', ') into before, after from unnest(p_kept) k;
  -- Of these types, text and JSON say the same, whatever the settings of the caller's session.
  if cardinality(p_kept) = 1 and exists (
    select from pg_attribute a join pg_type t on t.oid = a.atttypid
    where a.attrelid = p_table and a.attname = p_kept[1] and not a.attisdropped
      and t.oid in ('int2'::regtype, 'int4'::regtype, 'int8'::regtype, 'uuid'::regtype, 'text'::regtype, 'varchar'::regtype, 'bool'::regtype, 'numeric'::regtype))
  then
    short := format('(relation, operation, kept, key, touched, relid, origin) values (%L, %L, %L, new.%I::text', p_relation, 'update', p_kept[1], p_kept[1]);
  else
    short := format('(relation, operation, after, touched, relid, origin) values (%L, %L, jsonb_build_object(%s)', p_relation, 'update', after);
  end if;
  return format($body$
declare
  touched bigint;
begin
  begin
    touched := case when %1$s <= 63 and has_column_privilege(tg_relid, %2$s::smallint, 'select') is null then %5$s end;
  exception when others then
    touched := null;
  end;
  if touched > 0 then
    insert into sluice.change %8$s, touched, %9$s, current_setting('sluice.origin', true));
  elsif touched = 0 then
    return null;
  elsif touched < 0 then
    insert into sluice.change (relation, operation, before, after, touched, relid, origin)
    values (%6$L, 'update', jsonb_build_object(%3$s), jsonb_build_object(%4$s), touched & 9223372036854775807, %9$s, current_setting('sluice.origin', true));
  else
    perform sluice.capture_update(%6$L, %7$L, to_jsonb(old), to_jsonb(new));
  end if;
  if pg_sequence_last_value('sluice.change_sleeper'::regclass) > date_part('epoch', clock_timestamp()) then
    perform pg_notify('sluice_change', '');
  end if;
  return null;
end $body$, last_column, last_column + 1, before, after, coalesce(comparisons, '0'), p_relation, p_kept, short, p_table::oid);
end $$;

create function sluice.base_type(p_type oid) returns oid
language sql stable as $$
  with recursive up as (
    select t.oid, t.typtype, t.typbasetype from pg_catalog.pg_type t where t.oid = p_type
    union all select t.oid, t.typtype, t.typbasetype from up join pg_catalog.pg_type t on t.oid = up.typbasetype where up.typtype = 'd')
  select u.oid from up u where u.typtype <> 'd'
$$;

create function sluice.capture_name(p_relation text) returns name
language sql immutable as $$ select ('capture_update_' || left(md5(p_relation), 16))::name $$;

-- Makes a table's own capture function, or makes it anew. The caller holds a lock on the table.
create function sluice.make_capture(p_table regclass, p_relation text, p_kept text[]) returns void
language plpgsql set search_path = pg_catalog, sluice as $$
begin
  execute format('create or replace function sluice.%I() returns trigger language plpgsql security definer set search_path = pg_catalog, sluice as %L',
                 sluice.capture_name(p_relation), sluice.capture_source(p_table, p_relation, p_kept));
  execute format('revoke all on function sluice.%I() from public', sluice.capture_name(p_relation));
  execute format('comment on function sluice.%I() is %L', sluice.capture_name(p_relation), 'captures updates of ' || p_relation || '; made by "sluice attach"');
end $$;

-- Drops the functions whose triggers are gone, with their tables or by detach.
create function sluice.drop_unused_captures() returns void
language plpgsql set search_path = pg_catalog, sluice as $$
declare
  unused name;
begin
  for unused in
    select p.proname from pg_proc p
    where p.pronamespace = 'sluice'::regnamespace and p.proname like 'capture\_update\_%' and p.prorettype = 'trigger'::regtype
      and not exists (select from pg_trigger t where t.tgfoid = p.oid)
  loop
    execute format('drop function sluice.%I()', unused);
  end loop;
end $$;

-- The table is the truth and polling the guarantee: this only spares a sleeper the wait.
create function sluice.wake_sleeper(p_channel text) returns void
language plpgsql set search_path = pg_catalog, sluice as $$
begin
  if sluice.has_sleeper(p_channel) then
    perform pg_notify('sluice_' || p_channel, '');
  end if;
end $$;

-- Takes changes out of the table and into their history: only rows that are seen, never up to an id, since an older id may become
-- visible later. Names and hashes are the replica's own definitions. Changes of tables that concern a published sync whose
-- definition differs are left for replicas that agree. Both are judged in one snapshot: whoever sees a change made after a publish sees
-- that publish as well, so no change is ever weighed by a mapping that was already replaced.
-- An update that touches no column of `p_mapped` (relation → the columns that any sync reads of it; a relation that is absent has none to
-- spare) concerns nobody: such updates come as one row for all of a relation, operation 'untouched', with their number.
-- `changed` is null where nobody can tell any more what it was.
create function sluice.take_changes(p_names text[], p_hashes text[], p_mapped jsonb, p_limit integer)
returns table (id bigint, relation text, operation text, before jsonb, after jsonb, changed text[], changes bigint)
language plpgsql set search_path = pg_catalog, sluice set enable_hashjoin = off set enable_mergejoin = off set jit = off as $$
#variable_conflict use_column
declare
  strangers text[] := array(
    select unnest(y.relation || y.watched) from sluice.sync y
    where y.retired_at is null and not exists (select from unnest(p_names, p_hashes) as own (name, hash) where own.name = y.name and own.hash = y.hash));
  places tid[];
  newest_move bigint;
  keeps_history constant boolean := to_regclass('sluice.change_history_' || to_char(clock_timestamp() at time zone 'UTC', 'YYYYMMDD')) is not null;
begin
  places := array(select c.ctid from sluice.change c where c.relation <> all (strangers) limit p_limit for update of c skip locked);
  if cardinality(places) = 0 then
    return;
  end if;
  -- The rows lie roughly in the order in which they were written. Of keys that moved the order matters, so all earlier moves come along.
  newest_move := (select max(c.id) from sluice.change c where c.ctid = any (places) and c.operation = 'update' and c.before <> c.after);
  if newest_move is not null then
    places := array(
      select c.ctid from sluice.change c
      where c.ctid = any (places) or (c.operation = 'update' and c.before <> c.after and c.id < newest_move and c.relation <> all (strangers))
      for update of c skip locked);
  end if;
  if not keeps_history then
    raise warning 'sluice.change_history has no partition for today'; -- that costs history, never a change
  end if;
  return query
    with taken as (
      delete from sluice.change c where c.ctid = any (places) returning c.*
    ), remembered as (
      insert into sluice.change_history (id, relation, operation, before, after, changed, kept, key, touched, relid, origin, captured_at)
      select t.id, t.relation, t.operation, t.before, t.after, t.changed, t.kept, t.key, t.touched, t.relid, nullif(t.origin, ''), t.captured_at
      from taken t where keeps_history
    ), numbered as materialized (
      -- all bits, when a column of that name is not there (any more): then whatever changed may be it
      select r.relid, r.relation,
             case when count(m.name) = count(a.attname) then coalesce(bit_or(1::bigint << (a.attnum - 1)), 0) else -1 end as mask
      from (select distinct t.relid, t.relation from taken t where t.touched is not null) r
      left join jsonb_array_elements_text(p_mapped -> r.relation) m (name) on true
      left join pg_attribute a on a.attrelid = r.relid and a.attname = m.name and a.attnum between 1 and 63 and not a.attisdropped
      group by r.relid, r.relation
    ), judged as (
      select t.*, t.operation = 'update' and p_mapped ? t.relation
               and case when t.touched is null then not (p_mapped -> t.relation) ?| t.changed
                        else t.touched & (select n.mask from numbered n where n.relid = t.relid and n.relation = t.relation) = 0 end as untouched
      from taken t
    ), concerning as (
      select j.id, j.relation, j.operation, j.before, case when j.kept is null then j.after else jsonb_build_object(j.kept, j.key) end,
             sluice.changed_columns(j.changed, j.relid, j.touched), 1::bigint
      from judged j where not j.untouched order by j.id
    )
    select * from concerning
    union all
    select max(j.id), j.relation, 'untouched', null::jsonb, null::jsonb, '{}'::text[], count(*) from judged j where j.untouched group by j.relation;
end $$;
