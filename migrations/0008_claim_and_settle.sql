-- One round trip each: grant and claim; settle. Locks are taken in one order everywhere: batch, budget, place, product, slot, counter,
-- link. Whoever takes several slots takes them by (sync, key), or with skip locked and never waits.

-- The head of every shape and lane: when its first slot is due. Two index probes per shape and lane, however long the queue.
-- A paused connection, product or sync has no head; an open circuit shows its next probe instead.
create function sluice.heads(p_shapes bigint[])
returns table (budget_id bigint, shape_id bigint, lane smallint, due_at timestamptz, served_at timestamptz)
language sql stable set search_path = pg_catalog, sluice set enable_seqscan = off set enable_hashjoin = off set enable_mergejoin = off set enable_sort = on set jit = off as $$
  select p.budget_id, s.id, l.lane, greatest(d.due_at, case when p.opened_at is not null then p.probe_at end), s.served_at
  from unnest(p_shapes) as asked (id)
  join sluice.shape s on s.id = asked.id
  join sluice.product p on p.connection = s.connection and p.product = s.product
  join sluice.connection c on c.name = s.connection and c.paused_at is null and c.retired_at is null
  cross join lateral (values (0::smallint), (1::smallint), (2::smallint), (3::smallint), (4::smallint)) as l (lane)
  cross join lateral (
    select w.due_at from sluice.slot w where w.shape_id = s.id and w.lane = l.lane and w.state = 'available' order by w.due_at limit 1
  ) d
  where not exists (select from sluice.sync y where y.name = s.sync and (y.paused_at is not null or y.retired_at is not null))
$$;

-- Takes a place in the window and one in flight. The caller holds the budget's row, so places are stable but for settles, which only
-- free them. Returns null and sets ready_at where there is none.
create function sluice.take_places(p_budget sluice.budget, p_now timestamptz, p_bulk boolean, p_flight boolean,
  out place_id bigint, out flight_id bigint, out ready_at timestamptz)
language plpgsql set search_path = pg_catalog, sluice set enable_seqscan = off set jit = off as $$
declare
  free timestamptz;
begin
  if p_budget.blocked_until > p_now then
    ready_at := p_budget.blocked_until;
    return;
  end if;
  if p_bulk and p_budget.grid_at > p_now then
    ready_at := p_budget.grid_at;
    return;
  end if;
  if p_flight then
    select p.id, p.free_at into flight_id, free from sluice.place p
    where p.budget_id = p_budget.id and p.kind = 'in_flight' order by p.free_at limit 1;
    if free > p_now then
      flight_id := null;
      ready_at := least(free, p_now + interval '20 ms');      -- an answer frees it long before its limit
      return;
    end if;
  end if;
  select p.id, p.free_at into place_id, free from sluice.place p
  where p.budget_id = p_budget.id and p.kind = 'window' order by p.free_at limit 1;
  if free > p_now then
    place_id := null;
    flight_id := null;
    ready_at := free;
  end if;
end $$;

-- The distance between two grants while bulk work waits: a place comes back a window after its answer, so this many fit.
create function sluice.grid_step(p_budget sluice.budget, p_now timestamptz) returns interval
language sql stable set search_path = pg_catalog, sluice as $$
  select (p_budget.call_window + coalesce(max(answer), interval '0')) / p_budget.cap
  from sluice.place where budget_id = p_budget.id and kind = 'window' and granted_at > p_now - p_budget.call_window
$$;

-- Notes the grant in the ledger. With no answer the place comes back a window after the last moment at which the request's bytes can
-- arrive; settle makes that earlier when there is one.
create function sluice.note_grant(p_budget sluice.budget, p_place bigint, p_flight bigint, p_token bigint, p_lane smallint, p_now timestamptz,
  p_send_by timestamptz, p_timeout interval, p_bulk boolean) returns void
language plpgsql set search_path = pg_catalog, sluice as $$
declare
  step interval;
begin
  if p_bulk then
    step := sluice.grid_step(p_budget, p_now);
    update sluice.budget set grid_at = case when grid_at < p_now - step then p_now else grid_at end + step where id = p_budget.id;
  end if;
  update sluice.place set batch = p_token, lane = p_lane, granted_at = p_now, answer = null, free_at = p_send_by + p_timeout + p_budget.call_window
  where id = p_place;
  update sluice.place set batch = p_token, granted_at = p_now, free_at = p_send_by + p_timeout where id = p_flight;
end $$;

-- Which lane the next point of the grid belongs to: the most urgent one with due work, unless a lower one got less than its floor of the
-- last window's grants.
create function sluice.choose_lane(p_budget_id bigint, p_window interval, p_lanes smallint[], p_now timestamptz) returns smallint
language sql stable set search_path = pg_catalog, sluice as $$
  with got as (
    select count(*) as total, count(*) filter (where lane = 2) as normal, count(*) filter (where lane = 3) as reconcile, count(*) filter (where lane = 4) as backfill
    from sluice.place where budget_id = p_budget_id and kind = 'window' and granted_at > p_now - p_window
  )
  select coalesce(
    (select f.lane from got, lateral (values (2::smallint, got.normal, 0.20), (3::smallint, got.reconcile, 0.02), (4::smallint, got.backfill, 0.05)) as f (lane, granted, floor)
     where f.lane = any (p_lanes) and f.granted < f.floor * got.total order by f.lane limit 1),
    (select min(l) from unnest(p_lanes) l))
$$;

-- Grant, then claim, in one round trip. Answers a batch, or when to ask again.
create function sluice.claim(p_worker text, p_shapes bigint[], p_lease interval, p_timeout interval) returns jsonb
language plpgsql set search_path = pg_catalog, sluice set enable_seqscan = off set enable_hashjoin = off set enable_mergejoin = off set jit = off as $$
declare
  now_ timestamptz := clock_timestamp();
  wait_until timestamptz := 'infinity';
  candidate record;
  first boolean := true;
  budget sluice.budget;
  places record;
  lanes smallint[];
  bulk boolean;
  lane_ smallint;
  shape_ sluice.shape;
  rank_ smallint;
  suspect smallint;
  room integer;
  found_ids bigint[];
  ids bigint[];
  keys text[];
  intents text[] := '{}';
  doubts jsonb := '{}';
  token_ bigint;
  send_by_ timestamptz;
  answered timestamptz;
  outage_end timestamptz;
  open boolean;
  slots jsonb;
begin
  for candidate in
    select h.budget_id, min(h.lane) filter (where h.due_at <= now_) as lane, min(h.due_at) as due_at
    from sluice.heads(p_shapes) h group by h.budget_id order by 2 nulls last, 3
  loop
    if candidate.due_at > now_ then
      wait_until := least(wait_until, candidate.due_at);
      continue;
    end if;
    -- The first budget is waited for; others only if nobody holds them, so no two claims can wait for each other.
    if first then
      select * into budget from sluice.budget b where b.id = candidate.budget_id for update;
    else
      select * into budget from sluice.budget b where b.id = candidate.budget_id for update skip locked;
    end if;
    first := false;
    if not found then
      wait_until := least(wait_until, now_ + interval '10 ms');
      continue;
    end if;
    now_ := clock_timestamp();
    select array_agg(distinct h.lane) into lanes from sluice.heads(p_shapes) h where h.budget_id = budget.id and h.due_at <= now_;
    if lanes is null then
      wait_until := least(wait_until, now_ + interval '10 ms');
      continue;
    end if;
    bulk := lanes && '{2,3,4}'::smallint[];
    places := sluice.take_places(budget, now_, bulk, true);
    if places.place_id is null then
      wait_until := least(wait_until, places.ready_at);
      continue;
    end if;
    lane_ := case when bulk then sluice.choose_lane(budget.id, budget.call_window, lanes, now_) else (select min(l) from unnest(lanes) l) end;
    select s.* into shape_ from sluice.heads(p_shapes) h join sluice.shape s on s.id = h.shape_id
    where h.budget_id = budget.id and h.lane = lane_ and h.due_at <= now_ order by h.served_at, h.shape_id limit 1;

    -- The most urgent first, then whatever else rides along for free. A suspect rides only with its like.
    ids := '{}';
    room := shape_.batch_max;
    foreach rank_ in array array[lane_] || array_remove('{0,1,2,3,4}'::smallint[], lane_) loop
      exit when room <= 0;
      if cardinality(ids) = 0 then
        select w.max_batch into suspect from sluice.slot w
        where w.shape_id = shape_.id and w.lane = rank_ and w.state = 'available' and w.due_at <= now_ order by w.due_at limit 1 for update skip locked;
        continue when not found;
        room := least(shape_.batch_max, coalesce(suspect, shape_.batch_max));
      end if;
      found_ids := array(
        select w.id from sluice.slot w
        where w.shape_id = shape_.id and w.lane = rank_ and w.state = 'available' and w.due_at <= now_ and w.max_batch is not distinct from suspect
        order by w.due_at limit room for update skip locked);
      ids := ids || found_ids;
      room := room - cardinality(found_ids);
    end loop;
    if cardinality(ids) = 0 then
      wait_until := least(wait_until, now_ + interval '10 ms');
      continue;
    end if;

    select p.answered_at, p.outage_ended_at, p.opened_at is not null into answered, outage_end, open from sluice.product p where p.connection = shape_.connection and p.product = shape_.product;
    if open then
      update sluice.product set probe_at = now_ + interval '5 s' where connection = shape_.connection and product = shape_.product;
    end if;
    send_by_ := now_ + interval '2 s';
    insert into sluice.batch (worker, shape_id, budget_id, connection, product, lane, records, claimed_at, send_by, timeout, lease_until, place_id, flight_id)
    values (p_worker, shape_.id, budget.id, shape_.connection, shape_.product, lane_, cardinality(ids), now_, send_by_, p_timeout, now_ + p_lease, places.place_id, places.flight_id)
    returning token into token_;
    perform sluice.note_grant(budget, places.place_id, places.flight_id, token_, lane_, now_, send_by_, p_timeout, bulk);
    update sluice.shape set served_at = now_ where id = shape_.id;

    doubts := '{}';
    if shape_.kind = 'push' then
      -- The claim of a record without link is itself the intent of a create, committed before the call.
      keys := array(select w.key from sluice.slot w where w.id = any (ids) order by w.key);
      select coalesce(jsonb_object_agg(l.key, jsonb_build_object('since', l.create_sent_at, 'creates', l.creates)), '{}') into doubts
      from sluice.link l where l.sync = shape_.sync and l.key = any (keys) and l.zoho_id is null and l.create_sent_at is not null;
      with intended as (
        insert into sluice.link as l (sync, key, create_sent_at)
        select shape_.sync, k, now_ from unnest(keys) k order by k
        on conflict (sync, key) do update set create_sent_at = excluded.create_sent_at where l.zoho_id is null and l.create_sent_at is null
        returning l.key
      ) select coalesce(array_agg(key), '{}') into intents from intended;
    end if;

    with claimed as (
      update sluice.slot w set
        state = 'running', batch = token_, claimed_work = w.work, next_lane = null, next_due_at = null, waiting_sync = null, waiting_key = null,
        create_intent = w.key = any (intents),
        -- a 5xx or a time-out counts only now, and only if the product has answered somebody since without having been down for everybody
        failures = w.failures + case when w.unbooked_at < answered and not coalesce(w.unbooked_at <= outage_end, false) then 1 else 0 end,
        unbooked_at = case when w.unbooked_at < answered then null else w.unbooked_at end
      where w.id = any (ids)
      returning w.*
    )
    select jsonb_agg(jsonb_build_object('id', w.id, 'key', w.key, 'kind', w.kind, 'args', w.args, 'failures', w.failures, 'tries', w.tries, 'deaths', w.deaths,
        'panics', w.panics, 'max_failures', w.max_failures, 'progress', w.progress, 'doubt', doubts -> w.key,
        'doubt_age_ms', (extract(epoch from now_ - (doubts -> w.key ->> 'since')::timestamptz) * 1000)::bigint,
        'job_id', (select min(j.job_id) from sluice.slot_job j where j.slot_id = w.id)) order by w.sync, w.key)
    into slots from claimed w;

    return jsonb_build_object('token', token_, 'place', places.place_id, 'connection', shape_.connection, 'product', shape_.product, 'kind', shape_.kind,
      'sync', shape_.sync, 'lane', sluice.lane_name(lane_), 'claimed_at', now_, 'send_by_ms', 2000, 'slots', slots);
  end loop;
  return jsonb_build_object('wait_ms', case when wait_until = 'infinity' then null
    else greatest(0, ceil(extract(epoch from wait_until - clock_timestamp()) * 1000))::bigint end);
end $$;

-- A handler that needs another call asks once, without waiting. The place of the call before is settled here. Null: the lease is lost.
create function sluice.grant_again(p_token bigint, p_worker text, p_report jsonb) returns jsonb
language plpgsql set search_path = pg_catalog, sluice set enable_seqscan = off set jit = off as $$
declare
  b sluice.batch;
  budget sluice.budget;
  places record;
  now_ timestamptz;
  bulk boolean;
begin
  select * into b from sluice.batch where token = p_token and worker = p_worker for update;
  if not found or b.lease_until < clock_timestamp() then
    return null;
  end if;
  select * into budget from sluice.budget where id = b.budget_id for update;
  now_ := clock_timestamp();
  perform sluice.free_place(b, p_report, now_);
  perform sluice.note_health(b.connection, b.product, p_report, now_);
  update sluice.batch set place_id = null where token = p_token;
  bulk := b.lane >= 2;
  places := sluice.take_places(budget, now_, bulk, (b.flight_id is null));
  if places.place_id is null then
    return jsonb_build_object('wait_ms', greatest(0, ceil(extract(epoch from places.ready_at - now_) * 1000))::bigint);
  end if;
  -- the place in flight stays ours from call to call of one batch
  perform sluice.note_grant(budget, places.place_id, coalesce(places.flight_id, b.flight_id), p_token, b.lane, now_, now_ + interval '2 s', b.timeout, bulk);
  update sluice.batch set place_id = places.place_id, flight_id = coalesce(places.flight_id, b.flight_id), send_by = now_ + interval '2 s' where token = p_token;
  return jsonb_build_object('place', places.place_id, 'send_by_ms', 2000);
end $$;

-- What became of the call in hand: not sent, the place is free at once; answered, a window from now; no answer, it stays as the grant
-- left it. p_report: {"sent": bool, "answered": bool, "answer_ms": int, "blocked_ms": int, "blocked_reason": text}
create function sluice.free_place(p_batch sluice.batch, p_report jsonb, p_now timestamptz) returns void
language plpgsql set search_path = pg_catalog, sluice as $$
begin
  if p_batch.place_id is null then
    return;
  end if;
  if not coalesce((p_report ->> 'sent')::boolean, true) then
    update sluice.place set free_at = '-infinity', batch = null, granted_at = null where id = p_batch.place_id and batch = p_batch.token;
    update sluice.budget set grid_at = least(grid_at, p_now) where id = p_batch.budget_id;
  elsif (p_report ->> 'answered')::boolean then
    update sluice.place p set batch = null, free_at = p_now + u.call_window, answer = make_interval(secs => (p_report ->> 'answer_ms')::float8 / 1000)
    from sluice.budget u where p.id = p_batch.place_id and p.batch = p_batch.token and u.id = p.budget_id;
  end if;
  if p_report ->> 'blocked_ms' is not null then
    update sluice.budget set blocked_until = greatest(blocked_until, p_now + make_interval(secs => (p_report ->> 'blocked_ms')::float8 / 1000)),
      blocked_reason = p_report ->> 'blocked_reason' where id = p_batch.budget_id;
  end if;
end $$;

-- Five calls of a product in a row without an answer below 500 open its circuit: from then on one probe every five seconds.
create function sluice.note_health(p_connection text, p_product text, p_report jsonb, p_now timestamptz) returns void
language plpgsql set search_path = pg_catalog, sluice as $$
begin
  case p_report ->> 'health'
    when 'answered' then
      update sluice.product set unanswered = 0, opened_at = null, probe_at = null, answered_at = p_now,
        outage_ended_at = case when opened_at is not null then p_now else outage_ended_at end
      where connection = p_connection and product = p_product;
    when 'unanswered' then
      update sluice.product set unanswered = unanswered + 1,
        opened_at = case when unanswered + 1 >= 5 then coalesce(opened_at, p_now) end,
        probe_at = case when unanswered + 1 >= 5 then p_now + interval '5 s' end
      where connection = p_connection and product = p_product;
    else
      null;
  end case;
end $$;

-- Heartbeat. Returns the tokens that are still this worker's; the others were taken away and must be dropped.
create function sluice.extend(p_worker text, p_tokens bigint[], p_lease interval) returns setof bigint
language sql set search_path = pg_catalog, sluice as $$
  update sluice.batch set lease_until = clock_timestamp() + p_lease
  where token = any (p_tokens) and worker = p_worker and lease_until > clock_timestamp() returning token
$$;

-- Settles a batch in one transaction, each record by its own outcome. False: the lease is lost, and nothing was written.
--
-- p_outcomes: [{"slot": id, "outcome": done|continue|retry|snooze|wait|dead, "delay_ms", "hold_ms", "counts": bool, "unbooked": bool, "death": bool,
--   "panic": bool, "max_batch", "progress", "waiting_sync", "waiting_key", "create": none|settled|doubt, "reason", "class", "code", "field", "message",
--   "hint", "http_status", "request", "response", "depends_sync", "depends_key", "ms", "calls"}]
create function sluice.settle(p_token bigint, p_worker text, p_report jsonb, p_outcomes jsonb) returns boolean
language plpgsql set search_path = pg_catalog, sluice set enable_seqscan = off set enable_hashjoin = off set enable_mergejoin = off set jit = off as $$
declare
  b sluice.batch;
  now_ timestamptz;
begin
  select * into b from sluice.batch where token = p_token and worker = p_worker for update;
  if not found or b.lease_until < clock_timestamp() then
    return false;
  end if;
  perform from sluice.budget where id = b.budget_id for update;
  now_ := clock_timestamp();
  perform sluice.free_place(b, p_report, now_);
  update sluice.place set free_at = '-infinity', batch = null
  where id = b.flight_id and batch = b.token and (not coalesce((p_report ->> 'sent')::boolean, true) or (p_report ->> 'answered')::boolean);
  perform sluice.note_health(b.connection, b.product, p_report, now_);
  delete from sluice.batch where token = p_token;
  perform sluice.settle_slots(b, now_, p_outcomes);
  return true;
end $$;

create type sluice.outcome as (
  slot bigint, outcome text, delay_ms bigint, hold_ms bigint, counts boolean, unbooked boolean, death boolean, panic boolean, max_batch smallint,
  progress jsonb, waiting_sync text, waiting_key text, "create" text, pushed boolean, reason text, class text, code text, field text, message text, hint text,
  http_status integer, request jsonb, response jsonb, depends_sync text, depends_key text, ms integer, calls smallint
);

create function sluice.settle_slots(b sluice.batch, now_ timestamptz, p_outcomes jsonb) returns void
language plpgsql set search_path = pg_catalog, sluice set enable_seqscan = off set enable_hashjoin = off set enable_mergejoin = off set jit = off as $$
declare
  shape_ sluice.shape;
  rest interval;
  outcomes sluice.outcome[];
begin
  select * into shape_ from sluice.shape where id = b.shape_id;
  select y.min_interval into rest from sluice.sync y where y.name = shape_.sync;
  outcomes := array(select o from jsonb_populate_recordset(null::sluice.outcome, p_outcomes) o);
  perform from sluice.slot where batch = b.token order by sync, key for update;

  -- Missing partitions cost history, never a settle.
  begin
    insert into sluice.attempt (at, batch, worker, connection, product, kind, sync, key, attempt, outcome, reason, error_class, http_status, calls, ms, request, response)
    select now_, b.token, b.worker, b.connection, b.product, s.kind, s.sync, s.key, s.tries + 1, o.outcome, coalesce(o.reason, o.message), o.class, o.http_status,
           coalesce(o.calls, 0), o.ms, o.request, o.response
    from unnest(outcomes) o join sluice.slot s on s.id = o.slot and s.batch = b.token;
  exception when check_violation then
    raise warning 'sluice.attempt has no partition for today';
  end;

  -- The newest letter of a record is the one to look at; a success closes whatever was open.
  update sluice.dead_letter d set resolution = 'superseded', resolved_by = 'sluice', resolved_at = now_
  from unnest(outcomes) o join sluice.slot s on s.id = o.slot and s.batch = b.token
  where o.outcome in ('done', 'dead') and s.sync <> '' and d.sync = s.sync and d.key = s.key and d.resolution is null;

  insert into sluice.dead_letter (job_id, job_ids, kind, args, sync, key, lane, error_class, error_code, field, message, hint, http_status, response, history, depends_sync, depends_key)
  select j.ids[1], coalesce(j.ids, '{}'), s.kind, coalesce(s.args, jsonb_build_object('sync', s.sync, 'key', s.key)), nullif(s.sync, ''), case when s.sync <> '' then s.key end,
         sluice.lane_name(s.lane), o.class, o.code, o.field, coalesce(o.message, ''), o.hint, o.http_status, o.response, coalesce(h.history, '[]'), o.depends_sync, o.depends_key
  from unnest(outcomes) o join sluice.slot s on s.id = o.slot and s.batch = b.token
  cross join lateral (select array_agg(sj.job_id order by sj.job_id) as ids from sluice.slot_job sj where sj.slot_id = s.id and sj.work <= s.claimed_work) j
  cross join lateral (
    select jsonb_agg(to_jsonb(a) order by a.at) as history from (
      select t.at, t.worker, t.outcome, t.reason, t.error_class, t.http_status, t.calls, t.ms from sluice.attempt t
      where t.sync = s.sync and t.key = s.key and t.at >= s.created_at order by t.at desc limit 50) a) h
  where o.outcome = 'dead'
  order by s.sync, s.key;

  begin
    with ended as (
      delete from sluice.slot_job sj using unnest(outcomes) o, sluice.slot s
      where s.id = o.slot and s.batch = b.token and sj.slot_id = s.id and sj.work <= s.claimed_work and o.outcome in ('done', 'dead')
      returning sj.*, s.sync as record_sync, s.key as record_key, o.outcome as result
    ), noted as (
      insert into sluice.job_history (job_id, kind, args, sync, key, lane, run_at, created_at, created_by, result, finished_at)
      select e.job_id, e.kind, e.args, nullif(e.record_sync, ''), case when e.record_sync <> '' then e.record_key end, sluice.lane_name(e.lane), e.run_at, e.created_at, e.created_by, e.result, now_
      from ended e
    )
    insert into sluice.avoided as v (sync, reason, calls)
    select record_sync, 'coalesced', count(*) - count(distinct slot_id) from ended where record_sync <> '' group by 1 having count(*) > count(distinct slot_id) order by 1
    on conflict (sync, reason) do update set calls = v.calls + excluded.calls;
  exception when check_violation then
    raise warning 'sluice.job_history has no partition for today';
    delete from sluice.slot_job sj using unnest(outcomes) o, sluice.slot s
    where s.id = o.slot and s.batch = b.token and sj.slot_id = s.id and sj.work <= s.claimed_work and o.outcome in ('done', 'dead');
  end;

  -- What settle knows of the link: whether a create is still in doubt, and when the record was last written to.
  update sluice.link l set
    create_sent_at = case when o."create" = 'doubt' then coalesce(l.create_sent_at, b.claimed_at) when o."create" = 'settled' or s.create_intent then null else l.create_sent_at end,
    creates = case when o."create" = 'doubt' then l.creates + 1 when o."create" = 'settled' then 0 else l.creates end,
    pushed_at = case when o.pushed then now_ else l.pushed_at end
  from unnest(outcomes) o join sluice.slot s on s.id = o.slot and s.batch = b.token
  where shape_.kind = 'push' and l.sync = s.sync and l.key = s.key and (s.create_intent or o."create" in ('doubt', 'settled') or o.pushed);
  delete from sluice.link l using unnest(outcomes) o, sluice.slot s
  where shape_.kind = 'push' and s.id = o.slot and s.batch = b.token and s.create_intent and l.sync = s.sync and l.key = s.key
    and l.zoho_id is null and l.create_sent_at is null and l.pushed_at is null and l.creates = 0;

  delete from sluice.slot s using unnest(outcomes) o
  where s.id = o.slot and s.batch = b.token and o.outcome in ('done', 'dead') and s.work = s.claimed_work;

  update sluice.slot s set
    state = 'available', batch = null, claimed_work = null, create_intent = false,
    lane = least(case when o.outcome in ('done', 'dead') then coalesce(s.next_lane, s.lane) else s.lane end, s.next_lane),
    due_at = greatest(
      case when o.outcome in ('done', 'dead') then greatest(coalesce(s.next_due_at, now_), case when o.pushed then now_ + rest end)
           when o.outcome = 'wait' and s.work = s.claimed_work then 'infinity'
           when o.outcome = 'wait' then now_
           else now_ + make_interval(secs => coalesce(o.delay_ms, 0)::float8 / 1000) end,
      now_ + make_interval(secs => o.hold_ms::float8 / 1000)),
    not_before = case when o.hold_ms > 0 then now_ + make_interval(secs => o.hold_ms::float8 / 1000) else '-infinity' end,
    failures = case when o.outcome in ('done', 'dead') then 0 when o.counts then s.failures + 1 else s.failures end,
    tries = case when o.outcome in ('done', 'dead') then 0 when o.outcome = 'retry' then s.tries + 1 else s.tries end,
    deaths = case when o.death then s.deaths + 1 else 0 end,
    panics = case when o.panic then s.panics + 1 else 0 end,
    max_batch = case when o.outcome in ('done', 'dead') then null else coalesce(o.max_batch, s.max_batch) end,
    unbooked_at = case when o.outcome in ('done', 'dead') then null when o.unbooked then now_ else s.unbooked_at end,
    waiting_sync = case when o.outcome = 'wait' and s.work = s.claimed_work then o.waiting_sync end,
    waiting_key = case when o.outcome = 'wait' and s.work = s.claimed_work then o.waiting_key end,
    progress = case when o.outcome = 'continue' then o.progress when o.outcome in ('snooze', 'retry') then coalesce(o.progress, s.progress) end,
    last_error = case when o.outcome in ('done', 'continue') then null else coalesce(o.message, o.reason, s.last_error) end,
    next_lane = null, next_due_at = null
  from unnest(outcomes) o
  where s.id = o.slot and s.batch = b.token;

  update sluice.sync_counter set last_success_at = now_
  where sync = shape_.sync and exists (select from unnest(outcomes) o where o.outcome = 'done');
end $$;

-- One batch whose worker stopped beating; false: there is none. What it held in the ledger frees itself. The records: a lost write may still arrive until the
-- request's time-out, so none is touched before that. A worker's death counts only for a record that was alone in its batch.
create function sluice.rescue() returns boolean
language plpgsql set search_path = pg_catalog, sluice set enable_seqscan = off set enable_hashjoin = off set enable_mergejoin = off set jit = off as $$
declare
  b sluice.batch;
  now_ timestamptz;
  outcomes jsonb;
begin
  select * into b from sluice.batch where lease_until < clock_timestamp() order by lease_until limit 1 for update skip locked;
  if not found then
    return false;
  end if;
  perform from sluice.budget where id = b.budget_id for update;
  now_ := clock_timestamp();
  select jsonb_agg(jsonb_build_object('slot', s.id, 'calls', 1) || case
    when s.kind = 'call' and s.args ->> 'method' <> 'GET' then jsonb_build_object('outcome', 'dead', 'class', 'unknown',
      'message', 'the worker died while the request was under way; whether Zoho carried it out is not known',
      'hint', 'look in Zoho, then requeue or discard')
    when b.records = 1 and s.deaths + 1 >= 8 then jsonb_build_object('outcome', 'dead', 'class', 'panic', 'create', 'doubt',
      'message', 'eight workers in a row died while they worked on this record alone', 'hint', 'see the workers'' logs; requeue after the cause is mended')
    else jsonb_build_object('outcome', 'retry', 'reason', 'the worker died', 'death', b.records = 1,
      'create', case when s.kind = 'push' and (s.create_intent or exists (select from sluice.link l where l.sync = s.sync and l.key = s.key and l.create_sent_at is not null)) then 'doubt' end,
      'max_batch', case when b.records > 1 then (b.records + 1) / 2 end,
      'delay_ms', case when b.records = 1 and s.deaths > 0 then least(300000, 1000 * power(2, s.deaths)) else 0 end::bigint,
      'hold_ms', case when s.kind = 'push' then greatest(0, extract(epoch from b.send_by + b.timeout + interval '5 s' - now_) * 1000)::bigint end) end)
  into outcomes from sluice.slot s where s.batch = b.token;
  delete from sluice.batch where token = b.token;
  perform sluice.settle_slots(b, now_, coalesce(outcomes, '[]'));
  return true;
end $$;

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
