-- Captured row changes: written in the caller's transaction, consumed by the producer.

-- No index: what every business transaction writes should cost it as little as can be, and who takes changes takes whatever lies there.
-- An update in its short form, which is the usual one, says only which row (`key`, or `after`) and which columns by number (`touched`).
create table sluice.change (
  relation    text        not null,                           -- schema.name of the configured table, also for a change on one of its partitions
  operation   text        not null,
  before      jsonb,                                          -- key columns, and the columns that a watch names; never the whole row
  after       jsonb,                                          -- of an update without `before`: none of these columns changed
  changed     text[],                                         -- of an update: the columns that differ. Or, in the short form:
  kept        text,                                           -- the only column to keep; its value, before and after, is `key`
  key         text,
  touched     bigint,                                         -- bit n - 1: column number n (pg_attribute.attnum) of `relid` differs
  layout      integer,                                        -- sluice.layout of `relid` as capture knew it. With another one, nobody knows what bits and names mean
  relid       oid,
  move        bigint,                                         -- of an update of `before`: which came first. All others have no order and need none
  origin      text,                                           -- a label only: 'sluice' for our own writes. Never a reason to drop
  captured_at timestamptz not null default clock_timestamp()
) with (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 5000, autovacuum_analyze_scale_factor = 0, autovacuum_analyze_threshold = 10000);

create sequence sluice.change_move;

-- What was taken, in packs: the changes that one drain took of a relation and that have the same form. A row of history for each change
-- made consuming it twice as dear. The view sluice.change_log reads them one by one.
create table sluice.change_history (
  relation    text        not null,
  operation   text        not null,
  kept        text,
  relid       oid,
  layout      integer,
  keys        text[],                                         -- null in all of these: no change of the pack has it
  before      jsonb[],
  after       jsonb[],
  changed     jsonb[],                                        -- each an array of names
  touched     bigint[],
  origins     text[],
  captured_at timestamptz[] not null,
  consumed_at timestamptz not null default clock_timestamp()
) partition by range (consumed_at);
-- Compressing them took as long as taking them.
alter table sluice.change_history alter keys set storage external, alter touched set storage external, alter captured_at set storage external;
-- History is read by time, and for that a range of blocks is near enough.
create index change_history_consumed_idx on sluice.change_history using brin (consumed_at) with (pages_per_range = 16);

create view sluice.change_log as
select h.relation, h.operation, h.kept, h.relid, h.layout, c.key, c.before, c.after, c.changed, c.touched, nullif(c.origin, '') as origin, c.captured_at, h.consumed_at
from sluice.change_history h,
     unnest(h.keys, h.before, h.after, h.changed, h.touched, h.origins, h.captured_at) as c (key, before, after, changed, touched, origin, captured_at);

-- Of one relation; packs that say by `keys` that the key is not among theirs are not unpacked. Changes in the long form come all.
create function sluice.changes_of(p_relation text, p_key text, p_since timestamptz) returns setof sluice.change_log
language sql stable set search_path = pg_catalog, sluice, pg_temp as $$
  select h.relation, h.operation, h.kept, h.relid, h.layout, c.key, c.before, c.after, c.changed, c.touched, nullif(c.origin, ''), c.captured_at, h.consumed_at
  from sluice.change_history h,
       unnest(h.keys, h.before, h.after, h.changed, h.touched, h.origins, h.captured_at) as c (key, before, after, changed, touched, origin, captured_at)
  where h.relation = p_relation and h.consumed_at >= p_since and (h.keys is null or p_key = any (h.keys)) and (c.key is null or c.key = p_key)
$$;

-- The columns to keep of a row. Not `strict`, so that the planner can put it in place of the call, as it does with sluice.changed.
create function sluice.kept(p_columns text[], p_row jsonb) returns jsonb
language sql immutable as $$ select jsonb_object_agg(k, p_row -> k) from unnest(p_columns) k $$;

create function sluice.changed(p_before jsonb, p_after jsonb) returns text[]
language sql immutable as $$ select array(select e.key from jsonb_each(p_after) e where e.value is distinct from p_before -> e.key) $$;

-- A table's columns, by number, name and type, as one number. Null: it is gone.
create function sluice.layout(p_table oid) returns integer
language sql stable set search_path = pg_catalog, pg_temp as $$
  select hashtext(string_agg(a.attnum || ' ' || a.attname || ' ' || a.atttypid, ',' order by a.attnum)) from pg_attribute a where a.attrelid = p_table and a.attnum >= 1 and not a.attisdropped
$$;

-- Whether the table's columns are still those. Immutable, which it is not: so that it is asked when a statement is planned and costs nothing
-- when it runs. A plan that names the table as a constant of type regclass is made anew whenever the table's definition changes. Privileges
-- are looked up by today's names: the rest of the catalogue is seen as of the transaction's snapshot, which may be older than the table.
create function sluice.same_layout(p_table regclass, p_layout integer) returns boolean
language plpgsql immutable set search_path = pg_catalog, sluice, pg_temp as $$
begin
  perform has_column_privilege(p_table, a.attname, 'select') from pg_attribute a where a.attrelid = p_table and a.attnum >= 1 and not a.attisdropped;
  return sluice.layout(p_table) = p_layout;
exception when undefined_column or undefined_table then
  return false;
end $$;

-- The general form of capture, once a statement. Runs no SQL of the user's and names no column: whatever happens to the table's definition,
-- the business statement goes through. Arguments: what to call the table (schema.name of the configured one), then the columns to keep.
-- Updates of a table without partitions and children have a form of their own, below, that costs half.
create function sluice.capture() returns trigger
language plpgsql security definer set search_path = pg_catalog, sluice, pg_temp as $$
declare
  kept text[] := tg_argv[1:];
begin
  if tg_op = 'UPDATE' then
    -- Rows of both transition tables stand in the order in which they were changed, so their numbers pair them; the key may have
    -- changed. A full join, though every row has its twin: the plan is kept for the session, and one made for two rows must not
    -- become a nested loop over a hundred thousand. Full joins are never nested loops.
    insert into sluice.change (relation, operation, before, after, changed, layout, relid, move, origin)
    select tg_argv[0], 'update', c.before, c.after, c.changed, sluice.layout(tg_relid), tg_relid, case when c.before <> c.after then nextval('sluice.change_move') end, current_setting('sluice.origin', true)
    from (select sluice.kept(kept, p.record) as before, sluice.kept(kept, q.record) as after, sluice.changed(p.record, q.record) as changed
          from (select row_number() over () as number, to_jsonb(r) as record from old_rows r) p
          full join (select row_number() over () as number, to_jsonb(r) as record from new_rows r) q using (number)
          where p.record is distinct from q.record
          order by number) c;
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
create function sluice.capture_update(p_table oid, p_relation text, p_kept text[], p_before jsonb, p_after jsonb) returns void
language sql set search_path = pg_catalog, sluice, pg_temp as $$
  insert into sluice.change (relation, operation, before, after, changed, layout, relid, move, origin)
  select p_relation, 'update', c.before, c.after, sluice.changed(p_before, p_after), sluice.layout(p_table), p_table, case when c.before <> c.after then nextval('sluice.change_move') end,
         current_setting('sluice.origin', true)
  from (select sluice.kept(p_kept, p_before) as before, sluice.kept(p_kept, p_after) as after) c
  where p_before is distinct from p_after
$$;

-- The names of the columns that an update changed, whichever form it was captured in. Null: nobody knows, since columns were added, renamed
-- or dropped after it was captured, or since capture was made for them.
create function sluice.changed_columns(changed text[], relid oid, touched bigint, layout integer) returns text[]
language sql stable as $$
  select case when $3 is null then $1                        -- names, as they were then
              when sluice.layout($2) = $4 then
                (select array_agg(a.attname::text order by a.attnum) filter (where $3 >> (a.attnum - 1) & 1 = 1)
                 from pg_catalog.pg_attribute a where a.attrelid = $2 and a.attnum between 1 and 63 and not a.attisdropped) end
$$;

-- The body of a table's own capture of updates, once a row: it compares columns by name instead of turning rows into JSON and joining
-- transition tables. Each column is compared as exactly as its text would be, or more finely; `collate "C"`, since to a collation of the
-- user's two texts may be equal. With other columns than those that it was made for, by number, name or type, the general form is taken, so
-- that the business statement goes through; so it is when nothing seems to differ and yet the rows do. A type of the user's may fail at
-- becoming text: only then is the error caught, since a subtransaction costs as much as a fifth of all of this.
-- Each expression costs, since a transaction sets all of them up anew. So the changed columns are bits of one number, whose sign says
-- that one of the columns to keep is among them. A table with columns beyond the 63rd takes the general form.
-- It runs with its owner's rights under the caller's search_path, since setting that took a sixth of a small transaction. So every name in
-- it, operators included, is qualified: nothing that a caller has put into a schema of his own is ever called.
create function sluice.capture_source(p_table regclass, p_relation text, p_kept text[]) returns text
language plpgsql stable set search_path = pg_catalog, sluice, pg_temp as $$
declare
  comparisons text;
  before text;
  after text;
  short text;
  may_fail boolean;
  last_column integer;
begin
  select c.relnatts into last_column from pg_class c where c.oid = p_table;
  select bool_or(b.oid >= 16384 and t.typtype <> 'e'), string_agg(format('case when %s then %L::bigint else 0 end',
           sluice.differs(a.attname, case
             when t.typtype = 'e' then null
             when exists (select from pg_proc p where p.pronamespace = 'sluice'::regnamespace and p.proname = 'differ' and p.proargtypes[0] = b.oid) then b.oid
             else 'text'::regtype end),
           (1::bigint << (a.attnum - 1)) | case when a.attname = any (p_kept) then 1::bigint << 63 else 0 end), e'\n      operator(pg_catalog.|) ' order by a.attnum)
    into may_fail, comparisons
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
    short := format('(relation, operation, kept, key, touched, layout, relid, origin) values (%L, %L, %L, new.%I::pg_catalog.text', p_relation, 'update', p_kept[1], p_kept[1]);
  else
    short := format('(relation, operation, after, touched, layout, relid, origin) values (%L, %L, pg_catalog.jsonb_build_object(%s)', p_relation, 'update', after);
  end if;
  return format($body$
declare
  touched bigint;
  nothing boolean;                                            -- `return null` would set up an expression
begin
  if sluice.same_layout('%7$s'::pg_catalog.regclass, %1$s) then
    %8$s;
  end if;
  if touched operator(pg_catalog.>) 0 then
    insert into sluice.change %6$s, touched, %1$s, %7$s, pg_catalog.current_setting('sluice.origin', true));
  elsif touched operator(pg_catalog.<) 0 then
    insert into sluice.change (relation, operation, before, after, touched, layout, relid, move, origin)
    values (%4$L, 'update', pg_catalog.jsonb_build_object(%2$s), pg_catalog.jsonb_build_object(%3$s), touched operator(pg_catalog.&) 9223372036854775807, %1$s, %7$s,
            pg_catalog.nextval('sluice.change_move'), pg_catalog.current_setting('sluice.origin', true));
  elsif pg_catalog.record_image_ne(old, new) then
    perform sluice.capture_update(tg_relid, %4$L, %5$L, pg_catalog.to_jsonb(old), pg_catalog.to_jsonb(new));
  else
    return nothing;
  end if;
  if pg_catalog.pg_sequence_last_value('sluice.change_sleeper') operator(pg_catalog.>) pg_catalog.date_part('epoch', pg_catalog.clock_timestamp()) then
    perform pg_catalog.pg_notify('sluice_change', '');
  end if;
  return nothing;
end $body$, sluice.layout(p_table), before, after, p_relation, p_kept, short, p_table::oid,
    format(case when may_fail then 'begin touched := %s; exception when others then touched := null; end' else 'touched := %s' end, case when last_column <= 63 then comparisons else '0' end));
end $$;

-- `is distinct from`, with the operator that is meant and none that the caller's search_path chooses: it is looked up here and now. The planner
-- puts it in place of the call, where it is one step instead of nine, all of which a transaction would set up anew.
create function sluice.differ(boolean, boolean) returns boolean language sql immutable return $1 is distinct from $2;
create function sluice.differ(smallint, smallint) returns boolean language sql immutable return $1 is distinct from $2;
create function sluice.differ(integer, integer) returns boolean language sql immutable return $1 is distinct from $2;
create function sluice.differ(bigint, bigint) returns boolean language sql immutable return $1 is distinct from $2;
create function sluice.differ(oid, oid) returns boolean language sql immutable return $1 is distinct from $2;
create function sluice.differ(uuid, uuid) returns boolean language sql immutable return $1 is distinct from $2;
create function sluice.differ(numeric, numeric) returns boolean language sql immutable return $1 is distinct from $2;
create function sluice.differ(date, date) returns boolean language sql immutable return $1 is distinct from $2;
create function sluice.differ(time, time) returns boolean language sql immutable return $1 is distinct from $2;
create function sluice.differ(timestamp, timestamp) returns boolean language sql immutable return $1 is distinct from $2;
create function sluice.differ(timestamptz, timestamptz) returns boolean language sql immutable return $1 is distinct from $2;
create function sluice.differ(real, real) returns boolean language sql immutable return $1 is distinct from $2;
create function sluice.differ(double precision, double precision) returns boolean language sql immutable return $1 is distinct from $2;
create function sluice.differ(bytea, bytea) returns boolean language sql immutable return $1 is distinct from $2;
create function sluice.differ(jsonb, jsonb) returns boolean language sql immutable return $1 is distinct from $2;
create function sluice.differ(text, text) returns boolean language sql immutable return $1 collate "C" is distinct from $2 collate "C";
-- As texts they would be equal as well where only blanks at the end differ; making texts of them took a sixth of the capture of a small row.
create function sluice.differ(character, character) returns boolean language sql immutable return $1 collate "C" is distinct from $2 collate "C";

-- Whether a column differs, compared as values of the type; without one, by an operator for any (that it may not be null today says nothing of tomorrow).
create function sluice.differs(p_column name, p_type regtype) returns text
language sql stable set search_path = pg_catalog, pg_temp as $$
  select case when p_type is null then format('(old.%1$I operator(pg_catalog.<>) new.%1$I) is not false and (old.%1$I is not null or new.%1$I is not null)', p_column)
              else format('sluice.differ(old.%1$I::pg_catalog.%2$I, new.%1$I::pg_catalog.%2$I)', p_column, (select t.typname from pg_type t where t.oid = p_type)) end
$$;

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
language plpgsql set search_path = pg_catalog, sluice, pg_temp as $$
begin
  execute format('create or replace function sluice.%I() returns trigger language plpgsql security definer as %L',
                 sluice.capture_name(p_relation), sluice.capture_source(p_table, p_relation, p_kept));
  execute format('revoke all on function sluice.%I() from public', sluice.capture_name(p_relation));
  execute format('comment on function sluice.%I() is %L', sluice.capture_name(p_relation), 'captures updates of ' || p_relation || '; made by "sluice attach"');
end $$;

-- Drops the functions whose triggers are gone, with their tables or by detach.
create function sluice.drop_unused_captures() returns void
language plpgsql set search_path = pg_catalog, sluice, pg_temp as $$
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
language plpgsql set search_path = pg_catalog, sluice, pg_temp as $$
begin
  if sluice.has_sleeper(p_channel) then
    perform pg_notify('sluice_' || p_channel, '');
  end if;
end $$;

-- Takes changes out of the table and into their history: only rows that are seen, never up to an id, since an older one may become
-- visible later. Names and hashes are the replica's own definitions. Changes of tables that concern a published sync whose
-- definition differs are left for replicas that agree. Both are judged in one snapshot: whoever sees a change made after a publish sees
-- that publish as well, so no change is ever weighed by a mapping that was already replaced.
-- They come in packs: the changes of one relation and one form, their parts as arrays of the same length, null where none of the pack has that part.
-- Which columns an update changed is `changed`, or the bits of `touched`; sluice.changed_columns names them; neither: nobody knows. Updates with a `move` are
-- remembered by the caller, who may have to put them back.
create function sluice.take_changes(p_names text[], p_hashes text[], p_limit integer)
returns table (relation text, operation text, kept text, relid oid, layout integer, keys text[], before jsonb[], after jsonb[], changed jsonb[], touched bigint[], moves bigint[], origins text[], captured_at timestamptz[])
-- By its place each change is found at once: a scan would pass by everything that waits behind. Packs are grouped by hash: what they are grouped by is long, and its order means nothing.
language plpgsql set search_path = pg_catalog, sluice, pg_temp set enable_seqscan = off set enable_hashjoin = off set enable_mergejoin = off set enable_sort = off set jit = off as $$
#variable_conflict use_column
declare
  strangers text[] := array(
    select unnest(y.relation || y.watched) from sluice.sync y
    where y.retired_at is null and not exists (select from unnest(p_names, p_hashes) as own (name, hash) where own.name = y.name and own.hash = y.hash));
  places tid[];
  newest_move bigint;
  follows_moves constant boolean := pg_try_advisory_xact_lock(hashtext('sluice.change_move'));
  keeps_history constant boolean := sluice.keeps_history();
begin
  -- Of keys that moved the order matters: one drain at a time takes them, and what another has in hand is not passed by.
  select array_agg(c.place), max(c.move) into places, newest_move
  from (select c.ctid as place, c.move from sluice.change c where c.relation <> all (strangers) and (c.move is null or follows_moves) limit p_limit for update of c skip locked) c;
  if places is null then
    return;
  end if;
  -- The rows lie roughly in the order in which they were written, so all earlier moves come along.
  if newest_move is not null then
    places := array(
      select c.ctid from sluice.change c
      where c.ctid = any (places) or (c.move < newest_move and c.relation <> all (strangers))
      for update of c skip locked);
  end if;
  return query
    with taken as (
      delete from sluice.change c where c.ctid = any (places) returning c.*
    ), packs as materialized (
      select t.relation, t.operation, t.kept, t.relid, t.layout, array_agg(t.key) filter (where t.key is not null) as keys, array_agg(t.before) filter (where t.before is not null) as before,
             array_agg(t.after) filter (where t.after is not null) as after, array_agg(to_jsonb(t.changed)) filter (where t.changed is not null) as changed,
             array_agg(t.touched) filter (where t.touched is not null) as touched, array_agg(t.move) filter (where t.move is not null) as moves,
             array_agg(t.origin) filter (where t.origin <> '') as origins, array_agg(t.captured_at) as captured_at
      from taken t
      -- of one form, so that no array has gaps
      group by t.relation, t.operation, t.kept, t.relid, t.layout, t.key is null, t.before is null, t.after is null, t.changed is null, t.touched is null, t.move is null, coalesce(t.origin, '') = ''
    ), remembered as (
      insert into sluice.change_history (relation, operation, kept, relid, layout, keys, before, after, changed, touched, origins, captured_at)
      select p.relation, p.operation, p.kept, p.relid, p.layout, p.keys, p.before, p.after, p.changed, p.touched, p.origins, p.captured_at
      from packs p where keeps_history and p.moves is null
    )
    select p.relation, p.operation, p.kept, p.relid, p.layout, p.keys, p.before, p.after, p.changed, p.touched, p.moves, p.origins, p.captured_at from packs p;
end $$;

-- Whether there is a partition to remember changes in. That there is none costs history, never a change.
create function sluice.keeps_history() returns boolean
language plpgsql stable set search_path = pg_catalog, sluice, pg_temp as $$
begin
  if to_regclass('sluice.change_history_' || to_char(clock_timestamp() at time zone 'UTC', 'YYYYMMDD')) is null then
    raise warning 'sluice.change_history has no partition for today';
    return false;
  end if;
  return true;
end $$;
