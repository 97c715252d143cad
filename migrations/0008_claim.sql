-- One round trip: grant and claim. Locks are taken in one order everywhere: batch, budget, place, meter, product, slot, link. Whoever takes
-- several slots takes them by (sync, key), or with skip locked and never waits. The budget's row is held until the claim or settle commits,
-- so nothing here may wait for a row that somebody else's open transaction can hold.

-- The head of every shape and lane: when its first slot is due. Two index probes per shape and lane, however long the queue.
-- A paused connection or sync has no head; an open circuit shows its next probe instead. `rank` is the lane that it goes with: one up for what has
-- waited longer than its sync's fresh_within, never above realtime. In plpgsql, here and below, because that keeps its plan: an SQL function
-- would be planned at each of the two times a claim asks.
create type sluice.head as (budget_id bigint, shape_id bigint, product text, lane smallint, rank smallint, due_at timestamptz, served_at timestamptz);
create function sluice.heads(p_shapes bigint[]) returns setof sluice.head
language plpgsql stable set search_path = pg_catalog, sluice, pg_temp set enable_seqscan = off set enable_bitmapscan = off set enable_hashjoin = off set enable_mergejoin = off set enable_sort = on set jit = off as $$
begin
  return query
  select p.budget_id, s.id, s.product, l.lane,
    case when l.lane >= 2 and d.due_at + y.fresh_within < clock_timestamp() then l.lane - 1::smallint else l.lane end,
    greatest(d.due_at, case when p.opened_at is not null then p.probe_at end), s.served_at
  from unnest(p_shapes) as asked (id)
  join sluice.shape s on s.id = asked.id
  join sluice.product p on p.connection = s.connection and p.product = s.product
  join sluice.connection c on c.name = s.connection and c.paused_at is null and c.retired_at is null
  left join sluice.sync y on y.name = s.sync
  cross join lateral (values (0::smallint), (1::smallint), (2::smallint), (3::smallint), (4::smallint)) as l (lane)
  cross join lateral (
    select w.due_at from sluice.slot w where w.shape_id = s.id and w.lane = l.lane and w.state = 'available' order by w.due_at limit 1
  ) d
  where y.paused_at is null and y.retired_at is null;
end $$;

-- How many calls may be under way: fewer for a while after Zoho said that there are too many.
create function sluice.flights_allowed(p_budget sluice.budget, p_now timestamptz) returns integer
language plpgsql stable as $$
begin
  return least(p_budget.in_flight, p_budget.shrunk_to + floor(extract(epoch from p_now - p_budget.shrunk_at) / 10)::integer);
end $$;

-- Chooses a place in the window, one in flight and, with `p_heavy`, one in the heavy pool. The caller holds the budget's row, so places are stable
-- but for settles, which only free them. Returns null and sets ready_at where there is none; heavy_id alone may be null without that.
create function sluice.take_places(p_budget sluice.budget, p_now timestamptz, p_bulk boolean, p_flight boolean, p_heavy boolean,
  out place_id bigint, out flight_id bigint, out heavy_id bigint, out ready_at timestamptz)
language plpgsql set search_path = pg_catalog, sluice, pg_temp set enable_seqscan = off set enable_bitmapscan = off set jit = off as $$
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
    -- so many must be free that with this one no more are under way than are allowed now
    select max(p.free_at), (array_agg(p.id order by p.free_at))[1] into free, flight_id from (
      select x.id, x.free_at from sluice.place x where x.budget_id = p_budget.id and x.kind = 'in_flight' order by x.free_at
      limit 1 + p_budget.in_flight - sluice.flights_allowed(p_budget, p_now)) p;
    if free > p_now then
      flight_id := null;
      ready_at := least(free, p_now + interval '20 ms');      -- an answer frees it long before its limit
      return;
    end if;
  end if;
  if p_heavy then
    select p.id into heavy_id from sluice.place p
    where p.budget_id = p_budget.id and p.kind = 'heavy' and p.free_at <= p_now order by p.free_at limit 1;
  end if;
  select p.id, p.free_at into place_id, free from sluice.place p
  where p.budget_id = p_budget.id and p.kind = 'window' order by p.free_at limit 1;
  if free > p_now then
    place_id := null;
    flight_id := null;
    heavy_id := null;
    ready_at := free;
  end if;
end $$;

-- The distance between two grants while bulk work waits: a place comes back a window after its answer, so this many fit.
create function sluice.grid_step(p_budget sluice.budget, p_now timestamptz) returns interval
language plpgsql stable set search_path = pg_catalog, sluice, pg_temp as $$
begin
  return (
  select (p_budget.call_window + coalesce(max(answer), interval '0')) / p_budget.cap
  from sluice.place where budget_id = p_budget.id and kind = 'window' and granted_at > p_now - p_budget.call_window);
end $$;

-- Notes the grant in the ledger. With no answer the place comes back a window after the last moment at which the request's bytes can
-- arrive; settle makes that earlier when there is one. A late grant does not move the grid, unless nobody asked for several points.
create function sluice.note_grant(p_budget sluice.budget, p_places bigint[], p_token bigint, p_lane smallint, p_now timestamptz,
  p_send_by timestamptz, p_timeout interval, p_bulk boolean) returns void
language plpgsql set search_path = pg_catalog, sluice, pg_temp as $$
declare
  step interval;
begin
  if p_bulk then
    step := sluice.grid_step(p_budget, p_now);
    update sluice.budget set grid_at = case when grid_at < p_now - 4 * step then p_now else grid_at end + step where id = p_budget.id;
  end if;
  update sluice.place set batch = p_token, lane = p_lane, granted_at = p_now, answer = null,
    free_at = p_send_by + p_timeout + case when kind = 'window' then p_budget.call_window else interval '0' end
  where id = any (p_places);
end $$;

-- Which lane the next point of the grid belongs to: the most urgent one with due work, unless a lower one got less than its floor of the
-- last window's grants.
create function sluice.choose_lane(p_budget_id bigint, p_window interval, p_lanes smallint[], p_now timestamptz) returns smallint
language plpgsql stable set search_path = pg_catalog, sluice, pg_temp as $$
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

-- Takes what one call of a shape can carry, at most `p_room`: the lane that the grant is for first, then what else may ride along: lanes up to
-- `p_last`. A suspect rides only with its like.
create function sluice.take_slots(p_shape bigint, p_lane smallint, p_last smallint, p_room integer, p_now timestamptz) returns bigint[]
language plpgsql set search_path = pg_catalog, sluice, pg_temp
set enable_seqscan = off set enable_bitmapscan = off set enable_sort = off set jit = off as $$
declare
  ids bigint[] := '{}';
  more bigint[];
  room integer := p_room;
  suspect smallint;
  rank_ smallint;
begin
  foreach rank_ in array array[p_lane] || array_remove('{0,1,2,3,4}'::smallint[], p_lane) loop
    exit when room <= 0;
    continue when rank_ > p_last;
    if cardinality(ids) = 0 then
      select w.max_batch into suspect from sluice.slot w
      where w.shape_id = p_shape and w.lane = rank_ and w.state = 'available' and w.due_at <= p_now order by w.due_at limit 1 for update skip locked;
      continue when not found;
      room := least(p_room, coalesce(suspect, p_room));
    end if;
    more := array(
      select w.id from sluice.slot w
      where w.shape_id = p_shape and w.lane = rank_ and w.state = 'available' and w.due_at <= p_now and w.max_batch is not distinct from suspect
      order by w.due_at limit room for update skip locked);
    ids := ids || more;
    room := room - cardinality(more);
  end loop;
  return ids;
end $$;

-- What a call with so many records of this shape costs of the meter. CRM: a write costs a credit for every ten records (CRM sheet §6).
create function sluice.call_cost(p_product text, p_kind text, p_records integer) returns integer
language plpgsql immutable as $$
begin
  return case when p_product = 'crm' and p_kind = 'push' then (p_records + 9) / 10 else 1 end;
end $$;

-- Whether CRM counts such a call in its pool of ten heavy ones: a write of more than ten records (CRM sheet §6).
create function sluice.call_is_heavy(p_product text, p_kind text, p_records integer) returns boolean
language plpgsql immutable as $$
begin
  -- their lists are sorted, which CRM counts among the complex calls
  return p_product = 'crm' and (p_kind = 'push' and p_records > 10 or p_kind in ('poll', 'reconcile'));
end $$;

-- Which lanes each product's meter allows, and when to look again. Says so once a day where due work is kept back. The caller holds the budget's row.
create function sluice.allowances(p_budget sluice.budget, p_heads sluice.head[], p_now timestamptz,
  out products text[], out lanes smallint[], out ready_at timestamptz)
language plpgsql set search_path = pg_catalog, sluice, pg_temp set enable_seqscan = off set enable_bitmapscan = off set jit = off as $$
declare
  m sluice.meter;
  allowed record;
begin
  products := '{}';
  lanes := '{}';
  for m in select x.* from sluice.meter x where x.budget_id = p_budget.id loop
    m := sluice.meter_turned(m, p_budget.time_zone, sluice.straddling(m, p_budget), p_now);
    allowed := sluice.meter_allows(m, p_now);
    continue when allowed.lane = 4;
    products := products || m.product;
    lanes := lanes || allowed.lane;
    ready_at := least(ready_at, allowed.ready_at);
    if (m.alerted_at is null or m.kind = 'credits')
      and exists (select from unnest(p_heads) h where h.product = m.product and h.lane > allowed.lane) then
      perform sluice.write_meter(sluice.meter_alert(m, p_budget, p_now));
    end if;
  end loop;
end $$;

-- The claim of a record without link is itself the intent of a create, committed before the call. Answers which of the records are marked
-- by this claim, and which were in doubt before it. Linked records are not touched: their links may be in use.
create function sluice.intend(p_sync text, p_keys text[], p_now timestamptz, out intents text[], out doubts jsonb)
language plpgsql set search_path = pg_catalog, sluice, pg_temp
set enable_seqscan = off set enable_bitmapscan = off set enable_hashjoin = off set enable_mergejoin = off set jit = off as $$
begin
  select coalesce(jsonb_object_agg(l.key, jsonb_build_object('since', l.create_sent_at, 'creates', l.creates)), '{}') into doubts
  from sluice.link l where l.sync = p_sync and l.key = any (p_keys) and l.zoho_id is null and l.create_sent_at is not null;
  with intended as (
    insert into sluice.link as l (sync, key, create_sent_at, reference)
    select p_sync, k, p_now, sluice.free_reference(p_sync, k) from unnest(p_keys) k
    where not exists (select from sluice.link x where x.sync = p_sync and x.key = k and (x.zoho_id is not null or x.create_sent_at is not null))
    order by k
    on conflict (sync, key) do update set create_sent_at = excluded.create_sent_at, reference = coalesce(l.reference, excluded.reference) where l.zoho_id is null and l.create_sent_at is null
    returning l.key
  ) select coalesce(array_agg(key), '{}') into intents from intended;
end $$;

-- Grant, then claim, in one round trip. Answers a batch, or when to ask again.
create function sluice.claim(p_worker text, p_shapes bigint[], p_lease interval, p_timeout interval) returns jsonb
language plpgsql set search_path = pg_catalog, sluice, pg_temp set enable_seqscan = off set enable_bitmapscan = off set enable_hashjoin = off set enable_mergejoin = off set jit = off as $$
declare
  now_ timestamptz := clock_timestamp();
  wait_until timestamptz := 'infinity';
  candidate record;
  first boolean := true;
  budget sluice.budget;
  places record;
  allowed record;
  heads sluice.head[];
  ranks smallint[];
  bulk boolean;
  lane_ smallint;
  shape_ record;
  ids bigint[];
  token_ bigint;
begin
  for candidate in
    select h.budget_id, min(h.rank) filter (where h.due_at <= now_) as rank, min(h.due_at) as due_at
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
    heads := array(select h from sluice.heads(p_shapes) h where h.budget_id = budget.id and h.due_at <= now_);
    allowed := sluice.allowances(budget, heads, now_);
    if cardinality(allowed.products) > 0 then
      heads := array(select h from unnest(heads) h where h.lane <= coalesce(allowed.lanes[array_position(allowed.products, h.product)], 4));
    end if;
    select array_agg(distinct h.rank), bool_or(h.lane >= 2) into ranks, bulk from unnest(heads) h;
    if ranks is null then
      wait_until := least(wait_until, coalesce(allowed.ready_at, now_ + interval '10 ms'));
      continue;
    end if;
    places := sluice.take_places(budget, now_, bulk, true, budget.heavy > 0);
    if places.place_id is null then
      wait_until := least(wait_until, places.ready_at);
      continue;
    end if;
    lane_ := case when bulk then sluice.choose_lane(budget.id, budget.call_window, ranks, now_) else (select min(l) from unnest(ranks) l) end;
    -- Within the lane the shape served longest ago. Another one if all of its slots are held by somebody, for however long.
    for shape_ in
      select s.*, h.lane, allowed.lanes[array_position(allowed.products, h.product)] as last_lane from unnest(heads) h join sluice.shape s on s.id = h.shape_id
      order by h.rank <> lane_, h.rank, h.served_at, h.shape_id
    loop
      ids := sluice.take_slots(shape_.id, shape_.lane, case when shape_.product = 'crm' then coalesce(shape_.last_lane, 4::smallint) else 4::smallint end,
        sluice.call_room(budget, shape_.product, shape_.batch_max, shape_.lane, places.heavy_id is not null, now_), now_);
      exit when cardinality(ids) > 0;
    end loop;
    if cardinality(ids) = 0 then
      wait_until := least(wait_until, now_ + interval '50 ms');
      continue;
    end if;
    token_ := sluice.open_batch(budget, places.place_id, places.flight_id, places.heavy_id, shape_.id, shape_.lane, cardinality(ids), p_worker, p_lease, p_timeout, bulk, now_);
    return sluice.carry(token_, shape_.id, ids, now_) || jsonb_build_object('place', places.place_id, 'lane', sluice.lane_name(shape_.lane), 'claimed_at', now_, 'send_by_ms', 2000);
  end loop;
  return jsonb_build_object('wait_ms', case when wait_until = 'infinity' then null
    else greatest(0, ceil(extract(epoch from wait_until - clock_timestamp()) * 1000))::bigint end);
end $$;

-- How many records a call of this shape may carry now: ten where the heavy pool has no place, and what the credits left to the lane pay for.
create function sluice.call_room(p_budget sluice.budget, p_product text, p_batch_max integer, p_lane smallint, p_heavy_free boolean, p_now timestamptz) returns integer
language plpgsql stable set search_path = pg_catalog, sluice, pg_temp as $$
declare
  m sluice.meter;
  room integer := p_batch_max;
begin
  if p_product <> 'crm' or p_batch_max <= 1 then
    return p_batch_max;
  end if;
  if not p_heavy_free and p_budget.heavy > 0 then
    room := least(room, 10);
  end if;
  m := sluice.read_meter(p_budget, p_product, p_now);
  return least(room, case when m.refused_at is not null then 10 when sluice.meter_left(m) is not null then 10 * greatest(1, sluice.meter_left(m) - sluice.meter_kept(m, p_lane, p_now)) end);
end $$;

-- The grant and its batch: every limit that the call counts against is charged here, with the largest cost that it can have.
create function sluice.open_batch(p_budget sluice.budget, p_place bigint, p_flight bigint, p_heavy bigint, p_shape bigint, p_lane smallint, p_records integer,
  p_worker text, p_lease interval, p_timeout interval, p_bulk boolean, p_now timestamptz) returns bigint
language plpgsql set search_path = pg_catalog, sluice, pg_temp set enable_seqscan = off set enable_bitmapscan = off set jit = off as $$
declare
  s sluice.shape;
  m sluice.meter;
  cost_ integer;
  heavy bigint;
  token_ bigint;
begin
  update sluice.shape set served_at = p_now where id = p_shape returning * into s;
  cost_ := sluice.call_cost(s.product, s.kind, p_records);
  heavy := case when sluice.call_is_heavy(s.product, s.kind, p_records) then p_heavy end;
  m := sluice.read_meter(p_budget, s.product, p_now);
  if m.budget_id is not null then
    if m.refused_at is not null then
      m.blocked_until := p_now + interval '2 s' + p_timeout;      -- this one asks; another one if no answer comes
    end if;
    perform sluice.write_meter(sluice.meter_charged(m, cost_, p_lane, p_now));
  end if;
  update sluice.product set probe_at = p_now + interval '5 s' where connection = s.connection and product = s.product and opened_at is not null;
  insert into sluice.batch (worker, shape_id, budget_id, connection, product, lane, records, claimed_at, send_by, timeout, lease_until, place_id, flight_id, heavy_id, granted_at, cost)
  values (p_worker, s.id, p_budget.id, s.connection, s.product, p_lane, p_records, p_now, p_now + interval '2 s', p_timeout, p_now + p_lease, p_place, p_flight, heavy, p_now, cost_)
  returning token into token_;
  perform sluice.note_grant(p_budget, array[p_place, p_flight, heavy], token_, p_lane, p_now, p_now + interval '2 s', p_timeout, p_bulk);
  return token_;
end $$;

-- The records of a batch begin to run. Answers what the worker must know of them.
create function sluice.carry(p_token bigint, p_shape bigint, p_slots bigint[], p_now timestamptz) returns jsonb
language plpgsql set search_path = pg_catalog, sluice, pg_temp set enable_seqscan = off set enable_bitmapscan = off set enable_hashjoin = off set enable_mergejoin = off set jit = off as $$
declare
  s sluice.shape;
  intended record;
  answered timestamptz;
  outage_end timestamptz;
  asks_plan boolean;
  slots jsonb;
begin
  select * into s from sluice.shape where id = p_shape;
  select p.answered_at, p.outage_ended_at, p.plan_due_at <= p_now into answered, outage_end, asks_plan
  from sluice.product p where p.connection = s.connection and p.product = s.product;
  if asks_plan then
    -- one batch asks; another one, if nothing came of that
    update sluice.product set plan_due_at = p_now + interval '10 min' where connection = s.connection and product = s.product;
  end if;
  select '{}'::text[] as intents, '{}'::jsonb as doubts into intended;
  if s.kind = 'push' or s.kind = 'pull' and exists (select from sluice.sync y where y.name = s.sync and y.direction = 'both') then
    intended := sluice.intend(s.sync, array(select w.key from sluice.slot w where w.id = any (p_slots) and (s.kind = 'push' or w.key not like 'zoho:%') order by w.key), p_now);
  end if;
  with claimed as (
    update sluice.slot w set
      state = 'running', batch = p_token, claimed_work = w.work, next_lane = null, next_due_at = null, waiting_sync = null, waiting_key = null,
      -- most often all of them or none, without looking for each among a hundred
      create_intent = case cardinality(intended.intents) when 0 then false when cardinality(p_slots) then true else w.key = any (intended.intents) end,
      -- a 5xx or a time-out counts only now, and only if the product has answered somebody since without having been down for everybody
      failures = w.failures + case when w.unbooked_at < answered and not coalesce(w.unbooked_at <= outage_end, false) then 1 else 0 end,
      unbooked_at = case when w.unbooked_at < answered then null else w.unbooked_at end
    where w.id = any (p_slots)
    returning w.*
  )
  -- What an ordinary record has nothing of is left out: a hundred objects of a dozen members would cost as much as everything else here.
  select jsonb_agg(jsonb_build_object('id', w.id, 'key', w.key, 'job_id', j.job_id,
      -- somebody asked to look at Zoho, or it is not known what happened there
      'look', s.kind = 'pull' and (j.look or w.tries > 0), 'asked_at', j.asked_at, 'age_ms', (extract(epoch from p_now - j.newest) * 1000)::bigint)
      || case when w.tries = 0 and w.failures = 0 and w.panics = 0 and coalesce(w.args, w.progress) is null and w.max_failures is null and intended.doubts = '{}' then '{}'
         else jsonb_build_object('args', w.args, 'failures', w.failures, 'tries', w.tries, 'panics', w.panics, 'max_failures', w.max_failures, 'progress', w.progress,
           'doubt', intended.doubts -> w.key,
           'doubt_age_ms', (extract(epoch from p_now - (intended.doubts -> w.key ->> 'since')::timestamptz) * 1000)::bigint) end order by w.sync, w.key)
  into slots from claimed w
  -- `offset 0`: or the planner walks the jobs in the order of their ids until one is this slot's
  cross join lateral (
    select min(o.job_id) as job_id, coalesce(bool_or(o.kind <> 'push'), false) as look,
      max(o.created_at) as newest,
      max(o.created_at) filter (where o.kind <> 'push' and not coalesce((o.args ->> 'seen')::boolean, false)) as asked_at
    from (select job_id, kind, args, created_at from sluice.slot_job where slot_id = w.id offset 0) o) j;
  return jsonb_build_object('token', p_token, 'connection', s.connection, 'product', s.product, 'kind', s.kind, 'sync', s.sync,
    'cost', sluice.call_cost(s.product, s.kind, cardinality(p_slots)), 'heavy', sluice.call_is_heavy(s.product, s.kind, cardinality(p_slots)),
    'asks_plan', coalesce(asks_plan, false), 'slots', slots);
end $$;
