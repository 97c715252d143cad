-- Reconcile: complete sweeps over both sides, how far they are, what they found, and the brake on what comes from Zoho.

insert into sluice.job_kind (name, built_in, args) values
  ('reconcile', true, '{"sync": {"type": "sync", "required": true}, "run_id": {"type": "number", "required": false}}');

alter table sluice.link
  add column seen_at timestamptz,                             -- the beginning of the last sweep whose list showed the record
  add column verified_at timestamptz;                         -- when a sweep last found Zoho's side to be what the link says

-- A sync's sweeps. One that is under way keeps its place in `place`, so that a worker that dies costs one page.
create table sluice.reconcile_cursor (
  sync         text        not null,
  place        jsonb,                                         -- null: none is under way
  asked_at     timestamptz,                                   -- when the producer last asked for one by itself
  began_at     timestamptz,                                   -- of the last complete one
  completed_at timestamptz,                                   -- when that came to its end
  ended_at     timestamptz,                                   -- when any came to its end, complete or not
  drift        bigint,                                        -- records that the last one to end found to differ
  calls        integer     not null default 0,                -- pages asked for on `calls_on`
  calls_on     date,
  constraint reconcile_cursor_pkey primary key (sync)
) with (fillfactor = 50);

-- Rows that a sweep found to differ from what was agreed on, until it has seen all of them: then they are pushed, or held by the brake.
create table sluice.drift (
  sync   text        not null,
  key    text        not null,
  run_id bigint      not null,
  sample jsonb       not null,
  constraint drift_pkey primary key (sync, key)
);

-- One sweep of a sync at a time, whoever asks.
create unique index run_reconcile_key on sluice.run (sync) where kind = 'reconcile' and state = 'running';

-- Asks for a sweep, or hurries the one that is under way. Answers its run.
create function sluice.reconcile(sync text, lane text default null) returns bigint
language plpgsql security definer set search_path = pg_catalog, sluice, pg_temp as $$
#variable_conflict use_column
declare
  run bigint;
begin
  perform pg_advisory_xact_lock(hashtextextended('sluice.reconcile ' || $1, 0));
  select r.id into run from sluice.run r where r.kind = 'reconcile' and r.sync = $1 and r.state = 'running';
  if run is null then
    insert into sluice.run (kind, sync) values ('reconcile', $1) returning id into run;
  end if;
  insert into sluice.job (kind, args, lane) values ('reconcile', jsonb_build_object('sync', $1, 'run_id', run), $2);
  return run;
end $$;

-- The producer asks when the last complete sweep, and the time that it took, is longer ago than `p_within`; again after a day (or `p_within`, if
-- that is shorter) where none came to its end. Whoever moves `asked_at` is the one that asks.
create function sluice.reconcile_if_due(p_sync text, p_hash text, p_within interval) returns bigint
language plpgsql set search_path = pg_catalog, sluice, pg_temp as $$
begin
  -- a producer whose file differs from what is published asks for nothing
  if not exists (select from sluice.sync y where y.name = p_sync and y.hash = p_hash and y.retired_at is null) then
    return null;
  end if;
  perform pg_advisory_xact_lock(hashtextextended('sluice.reconcile ' || p_sync, 0));
  insert into sluice.reconcile_cursor (sync) values (p_sync) on conflict do nothing;
  update sluice.reconcile_cursor s set asked_at = clock_timestamp()
  where s.sync = p_sync and s.place is null
    and coalesce(s.began_at + p_within - least(s.completed_at - s.began_at, p_within / 2), '-infinity') <= clock_timestamp()
    and coalesce(s.asked_at + least(p_within, interval '1 day'), '-infinity') <= clock_timestamp();
  return case when found then sluice.reconcile(p_sync) end;
end $$;

-- How much of each sync is known to be equal on both sides. Where a sync pulls, a run that has both sides before it verifies as well. `drift`: what the
-- last sweep found to differ (and has since been put right, or waits for a person).
create view sluice.coverage as
  select y.name as sync, coalesce(l.linked, 0) as linked, coalesce(l.verified, 0) as verified_within, l.oldest as oldest_verified_at,
         s.completed_at as last_sweep_at, s.drift
  from sluice.sync y
  left join sluice.reconcile_cursor s on s.sync = y.name
  cross join lateral (select coalesce((y.definition #>> '{reconcile,within}')::interval, interval '7 days') as span) w
  left join lateral (
    select count(*) as linked, count(*) filter (where t.at > clock_timestamp() - w.span) as verified,
           case when count(t.at) = count(*) then min(t.at) end as oldest          -- null: some never were
    from (select greatest(k.verified_at, case when y.direction <> 'push' then k.synced_at end) as at
          from sluice.link k where k.sync = y.name and k.zoho_id is not null and k.gone_at is null) t) l on true
  where y.retired_at is null;

-- The brake on what comes from Zoho. `pull` of a held record: what would have been done to the row.
-- `weight`: how many rows it deletes, where it deletes rows of child tables; else each record counts once.
alter table sluice.held_record add column pull jsonb, add column passed_at timestamptz, add column weight bigint not null default 1;
alter table sluice.brake_record add column weight bigint not null default 1;
alter table sluice.held_record drop constraint held_record_operation_check;
alter table sluice.held_record add constraint held_record_operation_check
  check (operation in ('create', 'update', 'delete', 'truncate', 'pull_create', 'pull_update', 'pull_delete', 'missing'));
alter table sluice.brake_record drop constraint brake_record_operation_check;
alter table sluice.brake_record add constraint brake_record_operation_check check (operation in ('change', 'delete', 'pull', 'pull_delete'));

-- Which of these pulls (`[{"key", "operation", "weight", "pull"}]`, all of one limit) may be applied; the others are held, or were rejected before. What was approved
-- passes once. One settle at a time decides for a sync; it is the last thing that it does.
create function sluice.brake_pulls(p_sync text, p_class text, p_allowed bigint, p_limit text, p_per interval, p_pulls jsonb) returns setof text
language plpgsql set search_path = pg_catalog, sluice, pg_temp as $$
declare
  now_ timestamptz;
  fresh text[];
  held text[];
  approved bigint[];
  others bigint;
  weight_ bigint;
  id_ bigint;
  reason_ text;
begin
  perform pg_advisory_xact_lock(hashtextextended('sluice.brake_pulls ' || p_sync, 0));
  now_ := clock_timestamp();
  with given as (
    select g.key, g.pull, last.id, last.resolution, last.passed_at, last.operation, last.pull as was
    from jsonb_to_recordset(p_pulls) as g (key text, pull jsonb)
    left join lateral (
      select r.* from sluice.held_record r
      where r.sync = p_sync and r.key = g.key and (r.operation like 'pull\_%' or r.operation = 'missing' and p_class = 'pull_delete')
      order by r.id desc limit 1) last on true
  )
  select array_agg(g.key) filter (where g.resolution is null and g.id is not null and g.operation <> 'missing'),
         array_agg(g.id) filter (where g.resolution = 'approved' and g.passed_at is null),
         -- a rejected one is not asked about again until it is another
         array_agg(g.key) filter (where not (g.resolution is null and g.id is not null and g.operation <> 'missing')
           and (g.resolution = 'approved' and g.passed_at is null) is not true
           and (g.resolution = 'rejected' and g.was -> 'act' = g.pull -> 'act' and g.was -> 'columns' = g.pull -> 'columns'
                and g.was -> 'rows' is not distinct from g.pull -> 'rows') is not true)
  into held, approved, fresh from given g;

  -- what is held is shown as it is now; nobody is waited for who decides in an open transaction
  update sluice.held_record r set pull = g.pull, operation = g.operation, weight = g.weight
  from jsonb_to_recordset(p_pulls) as g (key text, operation text, weight bigint, pull jsonb)
  where r.sync = p_sync and r.key = g.key and r.id = any (array(
    select h.id from sluice.held_record h
    where h.sync = p_sync and h.key = any (held) and h.resolution is null and h.operation like 'pull\_%' order by h.id for update skip locked));
  return query update sluice.held_record r set passed_at = now_ where r.id = any (approved) returning r.key;
  if fresh is null then
    return;
  end if;

  -- what went through lately, and what was held
  select coalesce(sum(o.weight), 0) into others from (
    select b.key, b.weight from sluice.brake_record b where b.sync = p_sync and b.operation = p_class and b.passed_at > now_ - p_per
    union all
    select r.key, r.weight from sluice.held_record r join sluice.held_change c on c.id = r.held_id
    where r.sync = p_sync and c.operation = p_class and r.resolution is null and r.held_at > now_ - p_per) o
  where o.key <> all (fresh);
  select sum(g.weight) into weight_ from jsonb_to_recordset(p_pulls) as g (key text, weight bigint) where g.key = any (fresh);
  if others + weight_ <= p_allowed then
    delete from sluice.brake_record b where b.sync = p_sync and b.operation = p_class and b.passed_at <= now_ - p_per;
    insert into sluice.brake_record as b (sync, operation, key, passed_at, weight)
    select p_sync, p_class, g.key, now_, g.weight from jsonb_to_recordset(p_pulls) as g (key text, weight bigint) where g.key = any (fresh) order by g.key
    on conflict on constraint brake_record_pkey do update set passed_at = excluded.passed_at, weight = excluded.weight;
    return query select unnest(fresh);
    return;
  end if;

  select c.id into id_ from sluice.held_change c
  where c.sync = p_sync and c.operation = p_class and c.resolution is null order by c.id limit 1 for no key update skip locked;
  if id_ is null then
    reason_ := format('Zoho would %s %s here%s; within %s the brake allows %s', case p_class when 'pull_delete' then 'delete' else 'change' end,
                      case when weight_ > cardinality(fresh) then format('%s rows of %s records', weight_, cardinality(fresh)) else format('%s records', weight_) end,
                      case when others > 0 then format(' after %s others', others) else '' end, p_per, p_limit);
    insert into sluice.held_change (sync, reason, operation, records) values (p_sync, reason_, p_class, 0) returning id into id_;
    insert into sluice.alert (occasion, subject, message)
    values ('brake', p_sync, format('%s: %s. Nothing of it is applied before somebody decides: sluice held show %s', p_sync, reason_, id_));
  end if;
  insert into sluice.held_record (held_id, sync, key, operation, weight, pull)
  select id_, p_sync, g.key, g.operation, g.weight, g.pull from jsonb_to_recordset(p_pulls) as g (key text, operation text, weight bigint, pull jsonb) where g.key = any (fresh) order by g.key;
  update sluice.held_change c set records = c.records + cardinality(fresh),
    sample = jsonb_path_query_array(c.sample || (
      select coalesce(jsonb_agg(jsonb_build_object('key', g.key, 'operation', g.operation, 'changed',
               (select coalesce(jsonb_object_agg(f.key, jsonb_build_object('old', coalesce(g.pull -> 'expected' -> f.key, 'null'), 'new', f.value)), '{}')
                from (select * from jsonb_each(g.pull -> 'pulled') limit 8) f)) order by g.key), '[]')
      from (select * from jsonb_to_recordset(p_pulls) as t (key text, operation text, pull jsonb) where t.key = any (fresh) order by t.key limit 10) g), '$[0 to 9]')
  where c.id = id_;
end $$;

-- As before; and what Zoho changed, or has no more, is read anew and applied as it is then.
create or replace function sluice.approve(held_id bigint, keys text[] default null, max_records integer default null) returns bigint
language plpgsql security definer set search_path = pg_catalog, sluice, pg_temp as $$
#variable_conflict use_column
declare
  h sluice.held_change := sluice.open_held($1, false);
  pulls constant boolean := h.operation in ('pull', 'pull_delete', 'missing');
  chosen bigint[];
  wanted text[];
  missing text;
  jobs bigint;
begin
  if h.operation not in ('change', 'delete', 'truncate') and not pulls then
    raise exception using errcode = '22023', message = format('held change %s names no record, so there is nothing to push: %s', h.id, h.reason),
      hint = format('mend what it names, run "sluice trigger %1$s" for rows that were never sent and "sluice reconcile %1$s" for what else was missed, then reject it', h.sync);
  elsif $3 < 1 then
    raise exception using errcode = '22023', message = 'at least one record must be approved';
  end if;
  if h.operation = 'truncate' and not exists (select from sluice.held_record r where r.held_id = h.id) then
    insert into sluice.held_record (held_id, sync, key, operation)
    select h.id, l.sync, l.key, 'truncate' from sluice.link l where l.sync = h.sync and l.zoho_id is not null order by l.key;
  end if;
  wanted := array(select case when pulls and k like 'zoho:%' then k else sluice.canonical_key(h.sync, to_jsonb(k)) end from unnest($2) k);
  select k into missing from unnest(wanted) k where not exists (select from sluice.held_record r where r.held_id = h.id and r.key = k and r.resolution is null) limit 1;
  if missing is not null then
    raise exception using errcode = '22023', message = format('held change %s does not hold %s %s', h.id, h.sync, missing);
  end if;
  chosen := array(select r.id from sluice.held_record r where r.held_id = h.id and r.resolution is null and ($2 is null or r.key = any (wanted)) order by r.id limit $3);
  with taken as (
    update sluice.held_record r set resolution = 'approved', resolved_at = clock_timestamp() where r.id = any (chosen) and r.resolution is null returning r.key
  )
  insert into sluice.job (kind, args)
  select case when pulls then 'pull' else 'push' end,
         jsonb_build_object('sync', h.sync) || case when pulls and t.key like 'zoho:%' then jsonb_build_object('zoho_id', substr(t.key, 6)) else jsonb_build_object('key', t.key) end
  from (select distinct key from taken) t;
  get diagnostics jobs = row_count;
  perform sluice.recount_held(h.id, 'approved', session_user);
  return jobs;
end $$;

revoke all on sluice.reconcile_cursor, sluice.drift, sluice.coverage from public;
revoke all on function sluice.reconcile(text, text), sluice.reconcile_if_due(text, text, interval), sluice.brake_pulls(text, text, bigint, text, interval, jsonb) from public;
do $$
declare role_name text;
begin
  foreach role_name in array array['sluice_read', 'sluice_admin'] loop
    if exists (select from pg_roles where rolname = role_name) then
      execute format('grant select on sluice.reconcile_cursor, sluice.drift, sluice.coverage to %I', role_name);
    end if;
  end loop;
  if exists (select from pg_roles where rolname = 'sluice_admin') then
    grant execute on function sluice.reconcile(text, text) to sluice_admin;
  end if;
end $$;
