-- What others call: enqueue and the functions that people and scripts act with. See the README, "SQL".

-- Runs as the caller, so that the rights of an INSERT are its rights.
create function sluice.enqueue(kind text, args jsonb default '{}', lane text default null, run_at timestamptz default null, max_failures integer default null) returns bigint
language sql set search_path = pg_catalog, sluice, pg_temp as $$
  insert into sluice.job (kind, args, lane, run_at, max_failures) values ($1, $2, $3, $4, $5) returning id
$$;

create function sluice.zoho_id(sync text, key text) returns text
language sql stable security definer set search_path = pg_catalog, sluice, pg_temp as $$
  select l.zoho_id from sluice.link l where l.sync = $1 and l.key = sluice.canonical_key($1, to_jsonb($2))
$$;

-- waiting, running, done, dead, cancelled; null for an id that history no longer holds.
create function sluice.job_result(job_id bigint) returns text
language sql stable security definer set search_path = pg_catalog, sluice, pg_temp as $$
  select coalesce(
    (select 'waiting' from sluice.job j where j.id = $1),
    (select case when s.state = 'running' and sj.work <= s.claimed_work then 'running' else 'waiting' end
     from sluice.slot_job sj join sluice.slot s on s.id = sj.slot_id where sj.job_id = $1),
    (select h.result from sluice.job_history h where h.job_id = $1 order by h.finished_at desc limit 1))
$$;

-- Withdraws one job; the run behind it only if no other job asks for it, and not while a write that was lost may still arrive. False: it is
-- running, finished, unknown, or in somebody's hands at this moment. May stand in a transaction of any length: it never keeps hold of
-- anything that a running batch needs.
create function sluice.cancel(job_id bigint) returns boolean
language plpgsql security definer set search_path = pg_catalog, sluice, pg_temp as $$
declare
  j sluice.job;
  sj sluice.slot_job;
  s sluice.slot;
begin
  delete from sluice.job where id = $1 returning * into j;
  if found then
    insert into sluice.job_history (job_id, kind, args, sync, key, lane, run_at, created_at, created_by, result)
    values (j.id, j.kind, j.args, nullif(j.sync, ''), case when j.sync <> '' then j.key end, j.lane, j.run_at, j.created_at, j.created_by, 'cancelled');
    return true;
  end if;
  select w.* into s from sluice.slot w join sluice.slot_job x on x.slot_id = w.id where x.job_id = $1;
  if not found then
    return false;
  end if;
  if s.state = 'available' then
    begin
      select w.* into s from sluice.slot w where w.id = s.id for update skip locked;
      if not found or s.state <> 'available' then
        raise exception using errcode = 'ZX001';                  -- claimed in between: lets go of the lock
      end if;
    exception when sqlstate 'ZX001' then
      return false;
    end;
  end if;
  delete from sluice.slot_job x where x.job_id = $1 and (s.state = 'available' or x.work > s.claimed_work) returning * into sj;
  if not found then
    return false;
  end if;
  insert into sluice.job_history (job_id, kind, args, sync, key, lane, run_at, created_at, created_by, result)
  values (sj.job_id, sj.kind, sj.args, nullif(s.sync, ''), case when s.sync <> '' then s.key end, sluice.lane_name(sj.lane), sj.run_at, sj.created_at, sj.created_by, 'cancelled');
  if s.state = 'available' and s.not_before <= clock_timestamp() and not exists (select from sluice.slot_job x where x.slot_id = s.id) then
    delete from sluice.slot where id = s.id;
  end if;
  return true;
end $$;

-- Runs the dead letter's job again, now, with the row as it is now. Answers the new job's id.
create function sluice.requeue(dead_letter_id bigint) returns bigint
language plpgsql security definer set search_path = pg_catalog, sluice, pg_temp as $$
declare
  d sluice.dead_letter;
  job bigint;
begin
  update sluice.dead_letter set resolution = 'requeued', resolved_by = session_user, resolved_at = clock_timestamp()
  where id = $1 and resolution is null returning * into d;
  if not found then
    raise exception using errcode = '02000', message = format('there is no open dead letter %s; the open ones: sluice dlq list, or sluice.dead_letter where resolution is null', $1);
  end if;
  insert into sluice.job (kind, args, lane) values (d.kind, d.args, 'interactive') returning id into job;
  return job;
end $$;

create function sluice.discard(dead_letter_id bigint) returns void
language plpgsql security definer set search_path = pg_catalog, sluice, pg_temp as $$
begin
  update sluice.dead_letter set resolution = 'discarded', resolved_by = session_user, resolved_at = clock_timestamp() where id = $1 and resolution is null;
  if not found then
    raise exception using errcode = '02000', message = format('there is no open dead letter %s; the open ones: sluice dlq list, or sluice.dead_letter where resolution is null', $1);
  end if;
end $$;

-- The kill switch. Jobs keep arriving and wait. Neither named: every connection. A connection that is resumed takes along its syncs that
-- Sluice itself had paused, but not those that a person did.
create function sluice.pause(connection text default null, sync text default null, reason text default null) returns void
language plpgsql security definer set search_path = pg_catalog, sluice, pg_temp as $$
begin
  if $2 is not null then
    update sluice.sync y set paused_at = coalesce(y.paused_at, clock_timestamp()), paused_by = session_user, pause_reason = $3, pause_cause = null where y.name = $2;
  else
    update sluice.connection c set paused_at = coalesce(c.paused_at, clock_timestamp()), paused_by = session_user, pause_reason = $3, pause_cause = null
    where $1 is null or c.name = $1;
  end if;
  if not found then
    raise exception using errcode = '22023', message = format('unknown %s "%s"', case when $2 is not null then 'sync' else 'connection' end, coalesce($2, $1, 'any'));
  end if;
end $$;

create function sluice.resume(connection text default null, sync text default null) returns void
language plpgsql security definer set search_path = pg_catalog, sluice, pg_temp as $$
begin
  if $2 is not null then
    update sluice.sync y set paused_at = null, paused_by = null, pause_reason = null, pause_cause = null where y.name = $2;
  else
    update sluice.sync y set paused_at = null, paused_by = null, pause_reason = null, pause_cause = null
    where y.pause_cause is not null and ($1 is null or y.connection = $1);
    update sluice.connection c set paused_at = null, paused_by = null, pause_reason = null, pause_cause = null where $1 is null or c.name = $1;
  end if;
  if not found then
    raise exception using errcode = '22023', message = format('unknown %s "%s"', case when $2 is not null then 'sync' else 'connection' end, coalesce($2, $1, 'any'));
  end if;
  perform pg_notify('sluice_job', '');
end $$;

-- Returns when everything that was asked for about the record before the call has ended; an error if that takes longer than the timeout,
-- or if it ended in a dead letter or is held. Commits between looks, the first time before anything else, so it refuses to run inside a transaction
-- ("invalid transaction termination"): nothing that it waits for could become visible there.
create procedure sluice.wait(sync text, key text, timeout interval default '30 s')
language plpgsql as $$
declare
  canonical text := sluice.canonical_key($1, to_jsonb($2));
  deadline timestamptz := clock_timestamp() + $3;
  relations text[] := (select array[y.relation] || y.watched from sluice.sync y where y.name = $1);
  started timestamptz := clock_timestamp();
  letter sluice.dead_letter;
  held bigint;
begin
  loop
    commit;
    exit when not exists (select from sluice.change c where c.captured_at <= started and c.relation = any (relations))
      and not exists (select from sluice.job j where j.sync = $1 and j.key = canonical and j.run_at <= clock_timestamp())
      and not exists (select from sluice.slot s where s.sync = $1 and s.key = canonical)
      and not exists (select from sluice.held_record r join sluice.held_change h on h.id = r.held_id
                      where r.sync = $1 and r.key = canonical and r.resolution is null and h.gathering);
    if clock_timestamp() > deadline then
      raise exception using errcode = '57014', message = format('%s %s was not settled within %s', $1, $2, $3);
    end if;
    perform pg_catalog.pg_sleep(0.05);
  end loop;
  select r.held_id into held from sluice.held_record r where r.sync = $1 and r.key = canonical and r.resolution is null limit 1;
  if found then
    raise exception using errcode = 'P0001', message = format('%s %s is held by a brake until somebody decides', $1, $2), hint = format('sluice held show %s', held);
  end if;
  select * into letter from sluice.dead_letter d where d.sync = $1 and d.key = canonical and d.resolution is null order by d.id desc limit 1;
  -- also an older one: whoever waits may come after the run that gave up, and a success would have resolved it
  if found then
    raise exception using errcode = 'P0001', message = format('%s %s is a dead letter: %s', $1, $2, letter.message), hint = coalesce(letter.hint, '');
  end if;
end $$;

-- All unfinished work: what waits in the intake, and what stands in slots.
create view sluice.job_status as
  select j.id, j.kind, nullif(j.sync, '') as sync, case when j.sync <> '' then j.key end as key, h.connection, h.product, j.lane, 'available' as state, j.run_at,
         0 as attempt, 0 as failures, null::text as lease_owner, null::timestamptz as lease_expires_at, null::text as last_error, j.created_at
  from sluice.job j join sluice.shape h on h.id = j.shape_id
  union all
  select sj.job_id, sj.kind, nullif(s.sync, ''), case when s.sync <> '' then s.key end, h.connection, h.product, sluice.lane_name(sj.lane),
         case when s.state = 'running' and sj.work <= s.claimed_work then 'running' else 'available' end, s.due_at,
         s.tries + case when s.state = 'running' then 1 else 0 end, s.failures, b.worker, b.lease_until, s.last_error, sj.created_at
  from sluice.slot_job sj
  join sluice.slot s on s.id = sj.slot_id
  join sluice.shape h on h.id = s.shape_id
  left join sluice.batch b on b.token = s.batch;

create view sluice.record_status as
  select r.sync, r.key, l.zoho_id,
         case when s.state = 'running' then 'syncing'
              when s.waiting_sync is not null then 'waiting'
              when s.tries > 0 then 'retrying'
              when s.id is not null then 'pending'
              when j.sync is not null then 'pending'
              when d.id is not null then 'failed'
              when l.held then 'held'
              when l.zoho_id is not null then 'synced'
              else 'pending' end as status,
         l.synced_at as last_synced_at, coalesce(s.last_error, d.message) as last_error
  from (select sync, key from sluice.link union select sync, key from sluice.slot where sync <> '' union select sync, key from sluice.job where sync <> ''
        union select sync, key from sluice.dead_letter where resolution is null and sync is not null) r
  left join sluice.link l on l.sync = r.sync and l.key = r.key
  left join sluice.slot s on s.sync = r.sync and s.key = r.key
  left join lateral (select x.sync from sluice.job x where x.sync = r.sync and x.key = r.key and x.sync <> '' and x.run_at <= clock_timestamp() limit 1) j on true
  left join lateral (select id, message from sluice.dead_letter x where x.sync = r.sync and x.key = r.key and x.resolution is null order by x.id desc limit 1) d on true;

create view sluice.sync_status as
  select y.name as sync, y.total, greatest(coalesce(c.linked, 0), 0) as synced,
         coalesce(c.pending, 0) + coalesce(c.waiting, 0) + coalesce(i.jobs, 0) as pending, coalesce(c.running, 0) as running, coalesce(c.retrying, 0) as retrying,
         coalesce(c.failed, 0) as failed,
         (select min(d.due_at) from sluice.shape h cross join lateral (values (0::smallint), (1::smallint), (2::smallint), (3::smallint), (4::smallint)) as l (lane)
          cross join lateral (select w.due_at from sluice.slot w where w.shape_id = h.id and w.lane = l.lane and w.state = 'available' order by w.due_at limit 1) d
          where h.sync = y.name and d.due_at < 'infinity') as oldest_due_at,
         c.last_success_at, y.counted_at, y.paused_at, y.retired_at
  from sluice.sync y
  left join sluice.sync_counter c on c.sync = y.name
  -- the intake is short while workers run; while none does, the first ten thousand are enough to see it
  left join (select sync, count(*) as jobs from (select j.sync from sluice.job j where j.run_at <= clock_timestamp() limit 10000) t group by sync) i on i.sync = y.name;

-- Every limit that a product of a connection draws from. `others`: what somebody else used of it; `spent_at`: when it is spent at the pace of the
-- last half hour; `note`: what waits for it, for people. `cap_by`: who says so: the file's plan (plan), what Zoho says the plan is (organization), its answers
-- (header), its refusals (refusal), or our own bound (configuration); null: as configured or documented. `allowed`: what Zoho allows everybody, by the last
-- of those. `plan`, `plan_users`, `plan_failure`: what Zoho says of the plan, or why it does not; null where the file names it.
create view sluice.budget_status as
  with standing as (
    select c.name as connection, p.product, u.id as budget_id, u, u.cap, u.heavy, u.call_window, nullif(u.blocked_until, '-infinity') as blocked_until,
           u.blocked_reason, p.opened_at, p.plan, p.plan_users, p.plan_in_flight, p.plan_failure, (sluice.flights_allowed(u, clock_timestamp())) as flights_allowed, (sluice.read_meter(u, p.product, clock_timestamp())) as m
    from sluice.product p join sluice.connection c on c.name = p.connection join sluice.budget u on u.id = p.budget_id
  ), busy as (
    select x.budget_id, x.kind, count(*)::integer as n, min(x.free_at) as next_free from sluice.place x where x.free_at > clock_timestamp() group by 1, 2
  )
  select s.connection, s.product, 'calls_per_window' as limit_kind, s.cap, coalesce(w.n, 0) as used, coalesce(f.n, 0) as in_flight, w.next_free as resets_at,
         s.call_window, s.blocked_until, s.blocked_reason, s.opened_at as circuit_opened_at, null::integer as others, null::timestamptz as spent_at, null::text as note,
         null::integer as allowed, null::text as cap_by, s.plan, s.plan_users, s.plan_failure
  from standing s left join busy w on w.budget_id = s.budget_id and w.kind = 'window' left join busy f on f.budget_id = s.budget_id and f.kind = 'in_flight'
  union all
  select s.connection, s.product, 'in_flight', s.flights_allowed, coalesce(f.n, 0), coalesce(f.n, 0), null, s.call_window, s.blocked_until, s.blocked_reason, s.opened_at, null, null,
         case when s.flights_allowed < (s.u).in_flight then format('fewer than %s for a while: Zoho said that there were too many at once', (s.u).in_flight) end,
         (s.u).in_flight, case when s.flights_allowed < (s.u).in_flight then 'refusal' when s.plan_in_flight = (s.u).in_flight then 'organization' end, s.plan, s.plan_users, s.plan_failure
  from standing s left join busy f on f.budget_id = s.budget_id and f.kind = 'in_flight'
  union all
  select s.connection, s.product, 'heavy_in_flight', s.heavy, coalesce(f.n, 0), coalesce(f.n, 0), null, s.call_window, s.blocked_until, s.blocked_reason, s.opened_at, null, null, null,
         s.heavy, null, s.plan, s.plan_users, s.plan_failure
  from standing s left join busy f on f.budget_id = s.budget_id and f.kind = 'heavy' where s.heavy > 0
  union all
  select s.connection, s.product, case (s.m).kind when 'calls' then 'calls_per_day' else 'credits_per_day' end, sluice.meter_cap(s.m), (s.m).used, null,
         coalesce((s.m).resets_at, case when (s.m).used > 0 then to_timestamp(((s.m).bucket + 1) * 900) end),
         interval '24 hours', nullif(greatest((s.m).blocked_until, s.blocked_until), '-infinity'), s.blocked_reason, s.opened_at,
         (s.m).others, sluice.meter_spent_at(s.m, clock_timestamp()), sluice.meter_says(s.m, clock_timestamp()),
         (s.m).told, case when (s.m).configured <= coalesce((s.m).told, (s.m).configured) then 'configuration' else (s.m).told_by end, s.plan, s.plan_users, s.plan_failure
  from standing s where (s.m).budget_id is not null
  union all
  select c.name, null, 'token_mints', 10, m.n, null, case when m.n > 0 then m.next_free end, interval '10 min', null, cr.failure, null, null, null, null, 10, null, null, null, null
  from sluice.connection c
  join sluice.credential cr on cr.fingerprint = c.credential
  cross join lateral (select count(*)::integer as n, min(free_at) as next_free from sluice.mint x where x.fingerprint = c.credential and x.free_at > clock_timestamp()) m;
