-- Brakes: a mass change is not sent before a person has seen it. What a brake holds stands in sluice.held_change, its records here.

-- Many changes are taken in several gulps. While there may be more of them, what came is gathered: nothing is sent of it, and whether it is a mass
-- change is decided when all of it was seen.
alter table sluice.held_change add column gathering boolean not null default false;
alter table sluice.held_change drop constraint held_change_resolution_check;
-- undone: the rows came back to what Zoho has before anybody decided
alter table sluice.held_change add constraint held_change_resolution_check check (resolution in ('approved', 'rejected', 'undone'));

-- No unique index but the id: whoever approves in an open transaction changes rows here, and the producer, which adds others, must not wait for him.
-- Decided ones stay as long as their held change does: the timeline of a record tells of them.
create table sluice.held_record (
  id        bigint      generated always as identity,
  held_id   bigint      not null,
  sync      text        not null,
  key       text        not null,
  operation text        not null,                             -- what a push would do, when it was last looked at
  held_at   timestamptz not null default clock_timestamp(),
  resolution  text,                                           -- as of a held change; undone: it came back, or is weighed anew
  resolved_at timestamptz,
  constraint held_record_pkey primary key (id),
  constraint held_record_operation_check check (operation in ('create', 'update', 'delete', 'truncate')),
  constraint held_record_resolution_check check (resolution in ('approved', 'rejected', 'undone'))
);
-- A later edit of a held record joins it.
create index held_record_record_idx on sluice.held_record (sync, key, id);
create index held_record_open_idx on sluice.held_record (held_id, id) where resolution is null;
create index held_record_held_id_idx on sluice.held_record (held_id);

-- The records that went through a brake lately, so that it can count them. Only what no longer counts is deleted; one producer at a time.
create table sluice.brake_record (
  sync      text        not null,
  operation text        not null,                             -- change or delete: each has a limit of its own
  key       text        not null,
  passed_at timestamptz not null default clock_timestamp(),
  constraint brake_record_pkey primary key (sync, operation, key),
  constraint brake_record_operation_check check (operation in ('change', 'delete'))
) with (fillfactor = 80, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 2000);
create index brake_record_passed_at_idx on sluice.brake_record (sync, operation, passed_at);

-- Sends what was held: all of it, the records named, or the first so many; the rest stays held. A record is pushed as it is when its job runs, so what
-- happened to it since is sent as well, and a row that is gone is treated by `on_delete`. Answers how many jobs it enqueued.
create function sluice.approve(held_id bigint, keys text[] default null, max_records integer default null) returns bigint
language plpgsql security definer set search_path = pg_catalog, sluice, pg_temp as $$
#variable_conflict use_column
declare
  h sluice.held_change := sluice.open_held($1, false);
  chosen bigint[];
  wanted text[];
  missing text;
  jobs bigint;
begin
  if h.operation not in ('change', 'delete', 'truncate') then
    raise exception using errcode = '22023', message = format('held change %s names no record, so there is nothing to push: %s', h.id, h.reason),
      hint = format('mend what it names, run "sluice trigger %1$s" for rows that were never sent and "sluice reconcile %1$s" for what else was missed, then reject it', h.sync);
  elsif $3 < 1 then
    raise exception using errcode = '22023', message = 'at least one record must be approved';
  end if;
  if h.operation = 'truncate' and not exists (select from sluice.held_record r where r.held_id = h.id) then
    insert into sluice.held_record (held_id, sync, key, operation)
    select h.id, l.sync, l.key, 'truncate' from sluice.link l where l.sync = h.sync and l.zoho_id is not null order by l.key;
  end if;
  wanted := array(select sluice.canonical_key(h.sync, to_jsonb(k)) from unnest($2) k);
  select k into missing from unnest(wanted) k where not exists (select from sluice.held_record r where r.held_id = h.id and r.key = k and r.resolution is null) limit 1;
  if missing is not null then
    raise exception using errcode = '22023', message = format('held change %s does not hold %s %s', h.id, h.sync, missing);
  end if;
  chosen := array(select r.id from sluice.held_record r where r.held_id = h.id and r.resolution is null and ($2 is null or r.key = any (wanted)) order by r.id limit $3);
  with taken as (
    update sluice.held_record r set resolution = 'approved', resolved_at = clock_timestamp() where r.id = any (chosen) and r.resolution is null returning r.key
  )
  insert into sluice.job (kind, args) select 'push', jsonb_build_object('sync', h.sync, 'key', t.key) from (select distinct key from taken) t;
  get diagnostics jobs = row_count;
  perform sluice.recount_held(h.id, 'approved', session_user);
  return jobs;
end $$;

-- Drops what was held: nothing is sent. Rows and Zoho's records stay as they are, and differ, until the row changes again, or a backfill.
create function sluice.reject(held_id bigint) returns void
language plpgsql security definer set search_path = pg_catalog, sluice, pg_temp as $$
#variable_conflict use_column
declare
  h sluice.held_change := sluice.open_held($1, true);
begin
  update sluice.held_record r set resolution = 'rejected', resolved_at = clock_timestamp() where r.held_id = h.id and r.resolution is null;
  update sluice.held_change c set resolution = 'rejected', resolved_by = session_user, resolved_at = clock_timestamp() where c.id = h.id;
end $$;

-- The held change, locked, if it can be decided. One that is being gathered is not locked, since a producer works on it.
create function sluice.open_held(held_id bigint, or_gathering boolean) returns sluice.held_change
language plpgsql set search_path = pg_catalog, sluice, pg_temp as $$
declare
  h sluice.held_change;
begin
  select c.* into h from sluice.held_change c where c.id = $1 and (not c.gathering or $2) for update;
  if not found and exists (select from sluice.held_change c where c.id = $1) then
    raise exception using errcode = '55006', message = format('held change %s is still being gathered', $1), hint = 'look again in a moment';
  elsif not found or h.resolution is not null then
    raise exception using errcode = '02000', message = format('there is no open held change %s; the open ones: sluice held list, or sluice.held_change where resolution is null', $1);
  end if;
  return h;
end $$;

-- After records left a held change: their number, and the samples of those that are left. Without any it is resolved.
create function sluice.recount_held(held_id bigint, resolution text, resolved_by text) returns void
language plpgsql set search_path = pg_catalog, sluice, pg_temp as $$
#variable_conflict use_column
declare
  left_over constant bigint := (select count(*) from sluice.held_record r where r.held_id = $1 and r.resolution is null);
begin
  update sluice.held_change c set
    records = case when left_over > 0 then left_over else c.records end,
    sample = case when left_over = 0 then c.sample else
      (select coalesce(jsonb_agg(s.one order by s.n), '[]') from jsonb_array_elements(c.sample) with ordinality as s (one, n)
       where exists (select from sluice.held_record r where r.held_id = c.id and r.key = s.one ->> 'key' and r.resolution is null)) end,
    resolution = case when left_over = 0 then $2 end, resolved_by = case when left_over = 0 then $3 end,
    resolved_at = case when left_over = 0 then clock_timestamp() end
  where c.id = $1;
end $$;

-- As before, and what a brake holds is `held`.
create or replace view sluice.record_status as
  select r.sync, r.key, l.zoho_id,
         case when s.state = 'running' then 'syncing'
              when s.waiting_sync is not null then 'waiting'
              when s.tries > 0 then 'retrying'
              when s.id is not null then 'pending'
              when j.sync is not null then 'pending'
              when d.id is not null then 'failed'
              when l.held or h.sync is not null then 'held'
              when l.zoho_id is not null then 'synced'
              else 'pending' end as status,
         l.synced_at as last_synced_at, coalesce(s.last_error, d.message) as last_error
  from (select sync, key from sluice.link union select sync, key from sluice.slot where sync <> '' union select sync, key from sluice.job where sync <> ''
        union select sync, key from sluice.dead_letter where resolution is null and sync is not null
        union select sync, key from sluice.held_record where resolution is null) r
  left join sluice.link l on l.sync = r.sync and l.key = r.key
  left join sluice.slot s on s.sync = r.sync and s.key = r.key
  left join lateral (select x.sync from sluice.job x where x.sync = r.sync and x.key = r.key and x.sync <> '' and x.run_at <= clock_timestamp() limit 1) j on true
  left join lateral (select id, message from sluice.dead_letter x where x.sync = r.sync and x.key = r.key and x.resolution is null order by x.id desc limit 1) d on true
  left join lateral (select x.sync from sluice.held_record x where x.sync = r.sync and x.key = r.key and x.resolution is null limit 1) h on true;

revoke all on table sluice.held_record, sluice.brake_record from public;
revoke all on function sluice.approve(bigint, text[], integer), sluice.reject(bigint), sluice.open_held(bigint, boolean), sluice.recount_held(bigint, text, text) from public;

do $$
declare role_name text;
begin
  foreach role_name in array array['sluice_read', 'sluice_admin'] loop
    if exists (select from pg_roles where rolname = role_name) then
      execute format('grant select on sluice.held_record, sluice.brake_record to %I', role_name);
    end if;
  end loop;
  if exists (select from pg_roles where rolname = 'sluice_admin') then
    grant execute on function sluice.approve(bigint, text[], integer), sluice.reject(bigint) to sluice_admin;
  end if;
end $$;
