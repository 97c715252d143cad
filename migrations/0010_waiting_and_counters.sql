-- Children that waited for these records, and letters that died for want of them. Its own transaction, after the settle: it touches
-- slots of other records, and must wait for none of them.
create function sluice.wake_waiting(p_sync text, p_keys text[], p_linked boolean) returns integer
language plpgsql set search_path = pg_catalog, sluice set enable_seqscan = off set enable_hashjoin = off set enable_mergejoin = off set jit = off as $$
declare
  woken integer;
begin
  update sluice.slot set due_at = greatest(clock_timestamp(), not_before), waiting_sync = null, waiting_key = null
  where id in (select s.id from sluice.slot s where s.waiting_sync = p_sync and s.waiting_key = any (p_keys) and s.state = 'available'
               order by s.sync, s.key for update skip locked);
  get diagnostics woken = row_count;
  if p_linked then
    with freed as (
      update sluice.dead_letter set resolution = 'requeued', resolved_by = 'sluice', resolved_at = clock_timestamp()
      where id in (select d.id from sluice.dead_letter d where d.depends_sync = p_sync and d.depends_key = any (p_keys) and d.resolution is null for update skip locked)
      returning kind, args, lane
    )
    insert into sluice.job (kind, args, lane) select kind, args, lane from freed;
  end if;
  return woken;
end $$;

-- The guarantee behind wake_waiting: whoever waits for a parent that is linked, dead, or no longer asked for looks again, and so does
-- whoever waits, over any number of others, for itself.
create function sluice.sweep_waiting() returns integer
language plpgsql set search_path = pg_catalog, sluice set enable_hashjoin = off set enable_mergejoin = off set jit = off as $$
declare
  woken integer;
begin
  update sluice.slot set due_at = greatest(clock_timestamp(), not_before), waiting_sync = null, waiting_key = null
  where id in (
    select s.id from sluice.slot s
    where s.waiting_sync is not null and s.state = 'available'
      and (exists (select from sluice.link l where l.sync = s.waiting_sync and l.key = s.waiting_key and l.zoho_id is not null)
        or exists (select from sluice.dead_letter d where d.sync = s.waiting_sync and d.key = s.waiting_key and d.resolution is null)
        or not exists (select from sluice.slot p where p.sync = s.waiting_sync and p.key = s.waiting_key)
           and not exists (select from sluice.job j where j.sync = s.waiting_sync and j.key = s.waiting_key)
        or sluice.waits_on(s.waiting_sync, s.waiting_key, s.sync, s.key))
    limit 1000 for update skip locked);
  get diagnostics woken = row_count;
  return woken;
end $$;

-- Whether the first record waits, directly or over others, for the second.
create function sluice.waits_on(p_sync text, p_key text, p_target_sync text, p_target_key text) returns boolean
language sql stable set search_path = pg_catalog, sluice as $$
  with recursive chain (sync, key, depth) as (
    select p_sync, p_key, 0
    union all
    select s.waiting_sync, s.waiting_key, c.depth + 1 from chain c join sluice.slot s on s.sync = c.sync and s.key = c.key
    where s.waiting_sync is not null and c.depth < 50 and not (c.sync = p_target_sync and c.key = p_target_key)
  )
  select exists (select from chain where sync = p_target_sync and key = p_target_key)
$$;

-- Counters, kept where the rows change. One row per sync, touched after the slots and in order, so nobody waits in a circle.
create function sluice.slot_standing(s sluice.slot) returns text
language sql immutable set search_path = pg_catalog as $$
  select case when s.state = 'running' then 'running' when s.waiting_sync is not null then 'waiting' when s.tries > 0 then 'retrying' else 'pending' end
$$;

create function sluice.count_slots() returns trigger
language plpgsql set search_path = pg_catalog, sluice as $$
begin
  if tg_op = 'INSERT' then
    insert into sluice.sync_counter as c (sync, pending, running, retrying, waiting)
    select sync, count(*) filter (where standing = 'pending'), count(*) filter (where standing = 'running'), count(*) filter (where standing = 'retrying'), count(*) filter (where standing = 'waiting')
    from (select n.sync, sluice.slot_standing(n::sluice.slot) as standing from new_rows n) t group by sync order by sync
    on conflict (sync) do update set pending = c.pending + excluded.pending, running = c.running + excluded.running, retrying = c.retrying + excluded.retrying, waiting = c.waiting + excluded.waiting;
  elsif tg_op = 'DELETE' then
    insert into sluice.sync_counter as c (sync, pending, running, retrying, waiting)
    select sync, -count(*) filter (where standing = 'pending'), -count(*) filter (where standing = 'running'), -count(*) filter (where standing = 'retrying'), -count(*) filter (where standing = 'waiting')
    from (select n.sync, sluice.slot_standing(n::sluice.slot) as standing from old_rows n) t group by sync order by sync
    on conflict (sync) do update set pending = c.pending + excluded.pending, running = c.running + excluded.running, retrying = c.retrying + excluded.retrying, waiting = c.waiting + excluded.waiting;
  else
    insert into sluice.sync_counter as c (sync, pending, running, retrying, waiting)
    select sync, coalesce(sum(n) filter (where standing = 'pending'), 0), coalesce(sum(n) filter (where standing = 'running'), 0),
           coalesce(sum(n) filter (where standing = 'retrying'), 0), coalesce(sum(n) filter (where standing = 'waiting'), 0)
    from (select r.sync, sluice.slot_standing(r::sluice.slot) as standing, 1 as n from new_rows r
          union all select r.sync, sluice.slot_standing(r::sluice.slot), -1 from old_rows r) t
    group by sync order by sync
    on conflict (sync) do update set pending = c.pending + excluded.pending, running = c.running + excluded.running, retrying = c.retrying + excluded.retrying, waiting = c.waiting + excluded.waiting;
  end if;
  return null;
end $$;
create trigger count_inserted after insert on sluice.slot referencing new table as new_rows for each statement execute function sluice.count_slots();
create trigger count_updated after update on sluice.slot referencing old table as old_rows new table as new_rows for each statement execute function sluice.count_slots();
create trigger count_deleted after delete on sluice.slot referencing old table as old_rows for each statement execute function sluice.count_slots();

create function sluice.count_failed() returns trigger
language plpgsql set search_path = pg_catalog, sluice as $$
begin
  if tg_op = 'INSERT' then
    insert into sluice.sync_counter as c (sync, failed)
    select sync, count(*) from new_rows where sync is not null and resolution is null group by sync order by sync
    on conflict (sync) do update set failed = c.failed + excluded.failed;
  else
    insert into sluice.sync_counter as c (sync, failed)
    select sync, sum(n) from (select sync, 1 as n from new_rows where resolution is null union all select sync, -1 from old_rows where resolution is null) t
    where sync is not null group by sync having sum(n) <> 0 order by sync
    on conflict (sync) do update set failed = c.failed + excluded.failed;
  end if;
  return null;
end $$;
create trigger count_inserted after insert on sluice.dead_letter referencing new table as new_rows for each statement execute function sluice.count_failed();
create trigger count_updated after update on sluice.dead_letter referencing old table as old_rows new table as new_rows for each statement execute function sluice.count_failed();

create function sluice.count_linked() returns trigger
language plpgsql set search_path = pg_catalog, sluice as $$
begin
  if tg_op = 'INSERT' then
    insert into sluice.sync_counter as c (sync, linked) select sync, count(*) from new_rows where zoho_id is not null group by sync order by sync
    on conflict (sync) do update set linked = c.linked + excluded.linked;
  elsif tg_op = 'DELETE' then
    insert into sluice.sync_counter as c (sync, linked) select sync, -count(*) from old_rows where zoho_id is not null group by sync order by sync
    on conflict (sync) do update set linked = c.linked + excluded.linked;
  else
    insert into sluice.sync_counter as c (sync, linked)
    select sync, sum(n) from (select sync, 1 as n from new_rows where zoho_id is not null union all select sync, -1 from old_rows where zoho_id is not null) t
    group by sync having sum(n) <> 0 order by sync
    on conflict (sync) do update set linked = c.linked + excluded.linked;
  end if;
  return null;
end $$;
create trigger count_inserted after insert on sluice.link referencing new table as new_rows for each statement execute function sluice.count_linked();
create trigger count_updated after update on sluice.link referencing old table as old_rows new table as new_rows for each statement execute function sluice.count_linked();
create trigger count_deleted after delete on sluice.link referencing old table as old_rows for each statement execute function sluice.count_linked();
