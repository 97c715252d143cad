-- One round trip: grant and claim. Locks are taken in one order everywhere: batch, budget, place, product, slot, link. Whoever takes
-- several slots takes them by (sync, key), or with skip locked and never waits. The budget's row is held until the claim or settle commits,
-- so nothing here may wait for a row that somebody else's open transaction can hold.

-- The head of every shape and lane: when its first slot is due. Two index probes per shape and lane, however long the queue.
-- A paused connection or sync has no head; an open circuit shows its next probe instead. In plpgsql, here and below, because that keeps its
-- plan: an SQL function would be planned at each of the three times a claim asks.
create function sluice.heads(p_shapes bigint[])
returns table (budget_id bigint, shape_id bigint, lane smallint, due_at timestamptz, served_at timestamptz)
language plpgsql stable set search_path = pg_catalog, sluice set enable_seqscan = off set enable_bitmapscan = off set enable_hashjoin = off set enable_mergejoin = off set enable_sort = on set jit = off as $$
begin
  return query
  select p.budget_id, s.id, l.lane, greatest(d.due_at, case when p.opened_at is not null then p.probe_at end), s.served_at
  from unnest(p_shapes) as asked (id)
  join sluice.shape s on s.id = asked.id
  join sluice.product p on p.connection = s.connection and p.product = s.product
  join sluice.connection c on c.name = s.connection and c.paused_at is null and c.retired_at is null
  cross join lateral (values (0::smallint), (1::smallint), (2::smallint), (3::smallint), (4::smallint)) as l (lane)
  cross join lateral (
    select w.due_at from sluice.slot w where w.shape_id = s.id and w.lane = l.lane and w.state = 'available' order by w.due_at limit 1
  ) d
  where not exists (select from sluice.sync y where y.name = s.sync and (y.paused_at is not null or y.retired_at is not null));
end $$;

-- Takes a place in the window and one in flight. The caller holds the budget's row, so places are stable but for settles, which only
-- free them. Returns null and sets ready_at where there is none.
create function sluice.take_places(p_budget sluice.budget, p_now timestamptz, p_bulk boolean, p_flight boolean,
  out place_id bigint, out flight_id bigint, out ready_at timestamptz)
language plpgsql set search_path = pg_catalog, sluice set enable_seqscan = off set enable_bitmapscan = off set jit = off as $$
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
language plpgsql stable set search_path = pg_catalog, sluice as $$
begin
  return (
  select (p_budget.call_window + coalesce(max(answer), interval '0')) / p_budget.cap
  from sluice.place where budget_id = p_budget.id and kind = 'window' and granted_at > p_now - p_budget.call_window);
end $$;

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
language plpgsql stable set search_path = pg_catalog, sluice as $$
begin
  return (
  with got as (
    select count(*) as total, count(*) filter (where lane = 2) as normal, count(*) filter (where lane = 3) as reconcile, count(*) filter (where lane = 4) as backfill
    from sluice.place where budget_id = p_budget_id and kind = 'window' and granted_at > p_now - p_window
  )
  select coalesce(
    (select f.lane from got, lateral (values (2::smallint, got.normal, 0.20), (3::smallint, got.reconcile, 0.02), (4::smallint, got.backfill, 0.05)) as f (lane, granted, floor)
     where f.lane = any (p_lanes) and f.granted < f.floor * got.total order by f.lane limit 1),
    (select min(l) from unnest(p_lanes) l)));
end $$;

-- Takes what one call of a shape can carry: the lane that the grant is for first, then whatever else rides along for free. A suspect
-- rides only with its like.
create function sluice.take_slots(p_shape sluice.shape, p_lane smallint, p_now timestamptz) returns bigint[]
language plpgsql set search_path = pg_catalog, sluice
set enable_seqscan = off set enable_bitmapscan = off set enable_sort = off set jit = off as $$
declare
  ids bigint[] := '{}';
  more bigint[];
  room integer := p_shape.batch_max;
  suspect smallint;
  rank_ smallint;
begin
  foreach rank_ in array array[p_lane] || array_remove('{0,1,2,3,4}'::smallint[], p_lane) loop
    exit when room <= 0;
    if cardinality(ids) = 0 then
      select w.max_batch into suspect from sluice.slot w
      where w.shape_id = p_shape.id and w.lane = rank_ and w.state = 'available' and w.due_at <= p_now order by w.due_at limit 1 for update skip locked;
      continue when not found;
      room := least(p_shape.batch_max, coalesce(suspect, p_shape.batch_max));
    end if;
    more := array(
      select w.id from sluice.slot w
      where w.shape_id = p_shape.id and w.lane = rank_ and w.state = 'available' and w.due_at <= p_now and w.max_batch is not distinct from suspect
      order by w.due_at limit room for update skip locked);
    ids := ids || more;
    room := room - cardinality(more);
  end loop;
  return ids;
end $$;

-- The claim of a record without link is itself the intent of a create, committed before the call. Answers which of the records are marked
-- by this claim, and which were in doubt before it. Linked records are not touched: their links may be in use.
create function sluice.intend(p_sync text, p_keys text[], p_now timestamptz, out intents text[], out doubts jsonb)
language plpgsql set search_path = pg_catalog, sluice
set enable_seqscan = off set enable_bitmapscan = off set enable_hashjoin = off set enable_mergejoin = off set jit = off as $$
begin
  select coalesce(jsonb_object_agg(l.key, jsonb_build_object('since', l.create_sent_at, 'creates', l.creates)), '{}') into doubts
  from sluice.link l where l.sync = p_sync and l.key = any (p_keys) and l.zoho_id is null and l.create_sent_at is not null;
  with intended as (
    insert into sluice.link as l (sync, key, create_sent_at)
    select p_sync, k, p_now from unnest(p_keys) k
    where not exists (select from sluice.link x where x.sync = p_sync and x.key = k and (x.zoho_id is not null or x.create_sent_at is not null))
    order by k
    on conflict (sync, key) do update set create_sent_at = excluded.create_sent_at where l.zoho_id is null and l.create_sent_at is null
    returning l.key
  ) select coalesce(array_agg(key), '{}') into intents from intended;
end $$;

-- Grant, then claim, in one round trip. Answers a batch, or when to ask again.
create function sluice.claim(p_worker text, p_shapes bigint[], p_lease interval, p_timeout interval) returns jsonb
language plpgsql set search_path = pg_catalog, sluice set enable_seqscan = off set enable_bitmapscan = off set enable_hashjoin = off set enable_mergejoin = off set jit = off as $$
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
  ids bigint[];
  intended record;
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
      select * into budget from sluice.budget b where b.id = candidate.budget_id for no key update;
    else
      select * into budget from sluice.budget b where b.id = candidate.budget_id for no key update skip locked;
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
    -- Within the lane the shape served longest ago. Another one if all of its slots are held by somebody, for however long.
    for shape_ in
      select s.* from sluice.heads(p_shapes) h join sluice.shape s on s.id = h.shape_id
      where h.budget_id = budget.id and h.due_at <= now_ order by h.lane <> lane_, h.lane, h.served_at, h.shape_id
    loop
      ids := sluice.take_slots(shape_, lane_, now_);
      exit when cardinality(ids) > 0;
    end loop;
    if cardinality(ids) = 0 then
      wait_until := least(wait_until, now_ + interval '50 ms');
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

    select '{}'::text[] as intents, '{}'::jsonb as doubts into intended;
    if shape_.kind = 'push' then
      intended := sluice.intend(shape_.sync, array(select w.key from sluice.slot w where w.id = any (ids) order by w.key), now_);
    end if;

    with claimed as (
      update sluice.slot w set
        state = 'running', batch = token_, claimed_work = w.work, next_lane = null, next_due_at = null, waiting_sync = null, waiting_key = null,
        create_intent = w.key = any (intended.intents),
        -- a 5xx or a time-out counts only now, and only if the product has answered somebody since without having been down for everybody
        failures = w.failures + case when w.unbooked_at < answered and not coalesce(w.unbooked_at <= outage_end, false) then 1 else 0 end,
        unbooked_at = case when w.unbooked_at < answered then null else w.unbooked_at end
      where w.id = any (ids)
      returning w.*
    )
    select jsonb_agg(jsonb_build_object('id', w.id, 'key', w.key, 'kind', w.kind, 'args', w.args, 'failures', w.failures, 'tries', w.tries, 'deaths', w.deaths,
        'panics', w.panics, 'max_failures', w.max_failures, 'progress', w.progress, 'doubt', intended.doubts -> w.key,
        'doubt_age_ms', (extract(epoch from now_ - (intended.doubts -> w.key ->> 'since')::timestamptz) * 1000)::bigint,
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
language plpgsql set search_path = pg_catalog, sluice set enable_seqscan = off set enable_bitmapscan = off set jit = off as $$
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
  perform from sluice.budget where id = b.budget_id for no key update;
  now_ := clock_timestamp();
  perform sluice.free_place(b, p_report, now_);
  perform sluice.note_health(b.connection, b.product, p_report, now_);
  -- A call that was not answered may be under way still: its place in flight stays taken, and another call needs another.
  if coalesce((p_report ->> 'sent')::boolean, true) and not coalesce((p_report ->> 'answered')::boolean, false) then
    b.flight_id := null;
  end if;
  update sluice.batch set place_id = null, flight_id = b.flight_id where token = p_token;
  if exists (select from sluice.connection c where c.name = b.connection and c.paused_at is not null)
    or exists (select from sluice.shape h join sluice.sync y on y.name = h.sync where h.id = b.shape_id and y.paused_at is not null)
    or exists (select from sluice.product p where p.connection = b.connection and p.product = b.product and p.opened_at is not null) then
    return jsonb_build_object('wait_ms', 1000);
  end if;
  select * into budget from sluice.budget where id = b.budget_id;    -- as the report left it
  bulk := b.lane >= 2;
  places := sluice.take_places(budget, now_, bulk, b.flight_id is null);
  if places.place_id is null then
    return jsonb_build_object('wait_ms', greatest(0, ceil(extract(epoch from places.ready_at - now_) * 1000))::bigint);
  end if;
  -- the place in flight stays ours from call to call of one batch
  b.flight_id := coalesce(places.flight_id, b.flight_id);
  perform sluice.note_grant(budget, places.place_id, b.flight_id, p_token, b.lane, now_, now_ + interval '2 s', b.timeout, bulk);
  update sluice.batch set place_id = places.place_id, flight_id = b.flight_id, send_by = now_ + interval '2 s' where token = p_token;
  return jsonb_build_object('place', places.place_id, 'send_by_ms', 2000);
end $$;
