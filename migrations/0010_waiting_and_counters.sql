-- Children that waited for these records, and letters that died for want of them. Its own transaction, after the settle: it touches
-- slots of other records, and must wait for none of them.
create function sluice.wake_waiting(p_sync text, p_keys text[], p_linked boolean) returns integer
language plpgsql set search_path = pg_catalog, sluice, pg_temp set enable_seqscan = off set enable_bitmapscan = off set enable_hashjoin = off set enable_mergejoin = off set jit = off as $$
declare
  ids bigint[] := array(select s.id from sluice.slot s where s.waiting_sync = p_sync and s.waiting_key = any (p_keys) and s.state = 'available'
                        for update skip locked);
begin
  update sluice.slot set due_at = greatest(clock_timestamp(), not_before), waiting_sync = null, waiting_key = null where id = any (ids);
  if p_linked then
    with freed as (
      update sluice.dead_letter set resolution = 'requeued', resolved_by = 'sluice', resolved_at = clock_timestamp()
      where id = any (array(
        select d.id from sluice.dead_letter d join sluice.sync y on y.name = d.sync and y.retired_at is null
        where d.depends_sync = p_sync and d.depends_key = any (p_keys) and d.resolution is null for update of d skip locked))
      returning kind, args, lane
    )
    insert into sluice.job (kind, args, lane) select kind, args, lane from freed;
  end if;
  return cardinality(ids);
end $$;

-- The guarantee behind wake_waiting: whoever waits for a parent that is linked, or that nobody asks for any more (it died, or was
-- cancelled), looks again, and so does whoever waits, over any number of others, for itself. Looks at 1,000 a time, each time at the next
-- ones, and one worker at a time: at a first import a hundred thousand may wait. The same for letters. Keeps the counters short as well.
create function sluice.sweep_waiting() returns integer
language plpgsql set search_path = pg_catalog, sluice, pg_temp
set enable_seqscan = off set enable_bitmapscan = off set enable_hashjoin = off set enable_mergejoin = off set jit = off as $$
declare
  last sluice.sweep;
  seen bigint[];
  ids bigint[];
begin
  perform sluice.gather_counts();
  select * into last from sluice.sweep for update skip locked;
  if not found then
    return 0;
  end if;
  seen := array(
    select s.id from sluice.slot s where s.waiting_sync is not null and (s.waiting_sync, s.waiting_key, s.id) > (last.sync, last.key, last.id)
    order by s.waiting_sync, s.waiting_key, s.id limit 1000);
  if cardinality(seen) = 1000 then
    update sluice.sweep w set sync = s.waiting_sync, key = s.waiting_key, id = s.id from sluice.slot s where s.id = seen[1000];
  elsif last.id <> 0 then
    update sluice.sweep set sync = '', key = '', id = 0;          -- from the start again
  end if;
  ids := array(
    select s.id from sluice.slot s
    where s.id = any (seen) and s.waiting_sync is not null and s.state = 'available'
      and (exists (select from sluice.link l where l.sync = s.waiting_sync and l.key = s.waiting_key and l.zoho_id is not null)
        or not exists (select from sluice.slot p where p.sync = s.waiting_sync and p.key = s.waiting_key)
           and not exists (select from sluice.job j where j.sync = s.waiting_sync and j.key = s.waiting_key and j.sync <> '')
        or sluice.waits_on(s.waiting_sync, s.waiting_key, s.sync, s.key))
    for update skip locked);
  update sluice.slot set due_at = greatest(clock_timestamp(), not_before), waiting_sync = null, waiting_key = null where id = any (ids);
  -- Letters that were written just after their parent was linked, or whose parent's worker died before it could say so.
  with freed as (
    update sluice.dead_letter set resolution = 'requeued', resolved_by = 'sluice', resolved_at = clock_timestamp()
    where id = any (array(
      select d.id from sluice.dead_letter d join sluice.link l on l.sync = d.depends_sync and l.key = d.depends_key and l.zoho_id is not null
      join sluice.sync y on y.name = d.sync and y.retired_at is null
      where d.resolution is null and d.depends_sync is not null limit 1000 for update of d skip locked))
    returning kind, args, lane
  )
  insert into sluice.job (kind, args, lane) select kind, args, lane from freed;
  return cardinality(ids);
end $$;

-- Whether the first record waits, directly or over others, for the second.
create function sluice.waits_on(p_sync text, p_key text, p_target_sync text, p_target_key text) returns boolean
language sql stable set search_path = pg_catalog, sluice, pg_temp as $$
  with recursive chain (sync, key, depth) as (
    select p_sync, p_key, 0
    union all
    select s.waiting_sync, s.waiting_key, c.depth + 1 from chain c join sluice.slot s on s.sync = c.sync and s.key = c.key
    where s.waiting_sync is not null and c.depth < 50 and not (c.sync = p_target_sync and c.key = p_target_key)
  )
  select exists (select from chain where sync = p_target_sync and key = p_target_key)
$$;

-- Counters, kept where the rows change: see sync_difference.
create function sluice.slot_standing(s sluice.slot) returns text
language sql immutable as $$                                     -- without search_path, so that it is inlined
  select case when s.state = 'running' then 'running' when s.waiting_sync is not null then 'waiting' when s.tries > 0 then 'retrying' else 'pending' end
$$;

create function sluice.count_slots() returns trigger
language plpgsql set search_path = pg_catalog, sluice, pg_temp as $$
begin
  if tg_op = 'INSERT' then
    insert into sluice.sync_difference (sync, pending)
    select sync, count(*) from new_rows group by sync;           -- a new slot is pending
  elsif tg_op = 'DELETE' then
    insert into sluice.sync_difference (sync, pending, running, retrying, waiting)
    select sync, -count(*) filter (where standing = 'pending'), -count(*) filter (where standing = 'running'),
           -count(*) filter (where standing = 'retrying'), -count(*) filter (where standing = 'waiting')
    from (select o.sync, sluice.slot_standing(o::sluice.slot) as standing from old_rows o) t group by sync;
  else
    insert into sluice.sync_difference (sync, pending, running, retrying, waiting)
    select * from (
      select sync, coalesce(sum(n) filter (where standing = 'pending'), 0) as pending, coalesce(sum(n) filter (where standing = 'running'), 0) as running,
             coalesce(sum(n) filter (where standing = 'retrying'), 0) as retrying, coalesce(sum(n) filter (where standing = 'waiting'), 0) as waiting
      from (select r.sync, sluice.slot_standing(r::sluice.slot) as standing, 1 as n from new_rows r
            union all select r.sync, sluice.slot_standing(r::sluice.slot), -1 from old_rows r) t
      group by sync) d
    where (pending, running, retrying, waiting) <> (0, 0, 0, 0);
  end if;
  return null;
end $$;
create trigger count_inserted after insert on sluice.slot referencing new table as new_rows for each statement execute function sluice.count_slots();
create trigger count_updated after update on sluice.slot referencing old table as old_rows new table as new_rows for each statement execute function sluice.count_slots();
create trigger count_deleted after delete on sluice.slot referencing old table as old_rows for each statement execute function sluice.count_slots();

create function sluice.count_failed() returns trigger
language plpgsql set search_path = pg_catalog, sluice, pg_temp as $$
begin
  if tg_op = 'INSERT' then
    insert into sluice.sync_difference (sync, failed)
    select sync, count(*) from new_rows where sync is not null and resolution is null group by sync;
  else
    insert into sluice.sync_difference (sync, failed)
    select sync, sum(n) from (select sync, 1 as n from new_rows where resolution is null union all select sync, -1 from old_rows where resolution is null) t
    where sync is not null group by sync having sum(n) <> 0;
  end if;
  return null;
end $$;
create trigger count_inserted after insert on sluice.dead_letter referencing new table as new_rows for each statement execute function sluice.count_failed();
create trigger count_updated after update on sluice.dead_letter referencing old table as old_rows new table as new_rows for each statement execute function sluice.count_failed();

create function sluice.count_linked() returns trigger
language plpgsql set search_path = pg_catalog, sluice, pg_temp as $$
begin
  if tg_op = 'INSERT' then
    insert into sluice.sync_difference (sync, linked) select sync, count(*) from new_rows where zoho_id is not null group by sync;
  elsif tg_op = 'DELETE' then
    insert into sluice.sync_difference (sync, linked) select sync, -count(*) from old_rows where zoho_id is not null group by sync;
  else
    insert into sluice.sync_difference (sync, linked)
    select sync, sum(n) from (select sync, 1 as n from new_rows where zoho_id is not null union all select sync, -1 from old_rows where zoho_id is not null) t
    group by sync having sum(n) <> 0;
  end if;
  return null;
end $$;
create trigger count_inserted after insert on sluice.link referencing new table as new_rows for each statement execute function sluice.count_linked();
create trigger count_updated after update on sluice.link referencing old table as old_rows new table as new_rows for each statement execute function sluice.count_linked();
create trigger count_deleted after delete on sluice.link referencing old table as old_rows for each statement execute function sluice.count_linked();

-- Adds up what the triggers appended: the rows that it sees, 10,000 at most. Two at once cannot meet on a row of sync_tally for long: both
-- take the syncs in order.
create function sluice.gather_counts() returns void
language sql set search_path = pg_catalog, sluice, pg_temp set enable_seqscan = off set jit = off as $$
  with taken as (
    delete from sluice.sync_difference
    where id = any (array(select id from sluice.sync_difference order by id limit 10000 for update skip locked)) returning *
  )
  insert into sluice.sync_tally as c (sync, pending, running, retrying, waiting, failed, linked, last_success_at)
  select sync, sum(pending), sum(running), sum(retrying), sum(waiting), sum(failed), sum(linked), max(success_at) from taken group by sync order by sync
  on conflict (sync) do update set pending = c.pending + excluded.pending, running = c.running + excluded.running, retrying = c.retrying + excluded.retrying,
    waiting = c.waiting + excluded.waiting, failed = c.failed + excluded.failed, linked = c.linked + excluded.linked,
    last_success_at = greatest(c.last_success_at, excluded.last_success_at)
$$;
