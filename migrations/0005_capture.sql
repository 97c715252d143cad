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

-- A table's columns, by number, name and type, as one number. Null: it is gone.
create function sluice.layout(p_table oid) returns integer
language sql stable set search_path = pg_catalog, pg_temp as $$
  select hashtext(string_agg(a.attnum || ' ' || a.attname || ' ' || a.atttypid, ',' order by a.attnum)) from pg_attribute a where a.attrelid = p_table and a.attnum >= 1 and not a.attisdropped
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
