-- What became of a call: another one follows, the batch is settled by its worker, or it is taken back from a dead one.

-- What became of the call in hand: not sent, everything is free at once; answered, the place in the window is, a window from now, and what the call
-- did not cost; no answer, it stays as the grant left it. Corrects the ledger by what the answer said. The caller holds the budget's row.
-- p_report: {"sent": bool, "answered": bool, "answer_ms": int, "cost": int, "throttle": minute|day|in_flight|unknown, "retry_after_ms": int,
--   "day_limit": int, "day_remaining": int, "day_resets_ms": int, "credits_remaining": int, "minute_remaining": int, "health": answered|unanswered,
--   "told": bool: the refusal is known already, by note_refusal}
create function sluice.free_place(p_batch sluice.batch, p_budget sluice.budget, p_report jsonb, p_now timestamptz) returns void
language plpgsql set search_path = pg_catalog, sluice, pg_temp as $$
declare
  told constant boolean := coalesce((p_report ->> 'told')::boolean, false);
  before sluice.meter;
  m sluice.meter;
begin
  if p_batch.place_id is not null then                            -- else it was refused another one: nothing in hand
    if not coalesce((p_report ->> 'sent')::boolean, true) then
      update sluice.place set free_at = '-infinity', batch = null, granted_at = null where id = p_batch.place_id and batch = p_batch.token;
      update sluice.budget set grid_at = least(grid_at, p_now) where id = p_batch.budget_id;
    elsif (p_report ->> 'answered')::boolean then
      update sluice.place set batch = null, free_at = p_now + p_budget.call_window, answer = make_interval(secs => (p_report ->> 'answer_ms')::float8 / 1000)
      where id = p_batch.place_id and batch = p_batch.token;
    end if;
  end if;
  before := sluice.read_meter(p_budget, p_batch.product, p_now);
  if before.budget_id is not null then
    m := sluice.meter_charged(before, - sluice.meter_unused(p_batch.cost, p_report), p_batch.lane, p_batch.granted_at);
    m := sluice.meter_told(m, p_report, sluice.under_way(p_batch, p_report), p_now);
    if p_report ->> 'throttle' = 'day' then
      if not told then
        m := sluice.meter_spent(m, p_budget, p_report, p_now);
      end if;
    elsif p_batch.granted_at > m.refused_at then
      m := sluice.meter_asked(m, p_report, p_now);
    end if;
    if m is distinct from before then
      perform sluice.write_meter(m);
    end if;
  end if;
  if not told then
    perform sluice.note_throttle(p_budget, p_report, before.budget_id is not null, p_now);
  end if;
  if p_report ->> 'minute_remaining' is not null then
    perform sluice.note_minute(p_budget, (p_report ->> 'minute_remaining')::integer, p_now);
  end if;
end $$;

-- A refusal because of a limit, the moment it came: what is left of its batch may take seconds, and whoever gets a grant meanwhile would be refused
-- as well. The report of the batch says `told` from then on. Locks the budget and none before it; a batch that was taken back tells nothing.
create function sluice.note_refusal(p_token bigint, p_report jsonb) returns void
language plpgsql set search_path = pg_catalog, sluice, pg_temp set enable_seqscan = off set enable_bitmapscan = off set jit = off as $$
declare
  b sluice.batch;
  budget sluice.budget;
  m sluice.meter;
  now_ timestamptz;
begin
  select * into b from sluice.batch where token = p_token;
  if not found then
    return;
  end if;
  select * into budget from sluice.budget where id = b.budget_id for no key update;
  now_ := clock_timestamp();
  m := sluice.read_meter(budget, b.product, now_);
  if m.budget_id is not null and p_report ->> 'throttle' = 'day' then
    m := sluice.meter_told(m, p_report, sluice.under_way(b, p_report), now_);
    perform sluice.write_meter(sluice.meter_spent(m, budget, p_report, now_));
  end if;
  perform sluice.note_throttle(budget, p_report, m.budget_id is not null, now_);
end $$;

-- What the other calls under way may still cost, where the answer says how many credits are left.
create function sluice.under_way(p_batch sluice.batch, p_report jsonb) returns integer
language plpgsql stable set search_path = pg_catalog, sluice, pg_temp as $$
begin
  return case when p_report ->> 'credits_remaining' is not null
    then (select coalesce(sum(x.cost), 0)::integer from sluice.batch x where x.budget_id = p_batch.budget_id and x.token <> p_batch.token) end;
end $$;

-- FSM says with each answer how many calls are left of the minute, whoever makes them (FSM sheet §8.1). Those of ours that are under way may not be in
-- it yet; when there is none for another, nothing is granted for a window: in which unit its header counts the rest of the minute is not documented.
create function sluice.note_minute(p_budget sluice.budget, p_left integer, p_now timestamptz) returns void
language plpgsql set search_path = pg_catalog, sluice, pg_temp as $$
begin
  update sluice.budget set blocked_reason = 'Zoho says that the calls of the minute are used up', blocked_until = greatest(blocked_until, p_now + call_window)
  where id = p_budget.id
    and p_left < (select count(*) from sluice.place where budget_id = p_budget.id and kind = 'in_flight' and free_at > p_now);
end $$;

-- Zoho says that the day, or the credits, are spent, whatever we counted: nothing is granted until it says otherwise. One call at a time asks: when
-- Zoho said that the day ends, or else after an hour, since our midnight need not be Zoho's; and after a quarter of an hour for credits, which come back all day.
create function sluice.meter_spent(m sluice.meter, p_budget sluice.budget, p_report jsonb, p_now timestamptz) returns sluice.meter
language plpgsql set search_path = pg_catalog, sluice, pg_temp as $$
begin
  m.refused_at := p_now;
  m.blocked_until := least(coalesce(p_now + make_interval(secs => (p_report ->> 'retry_after_ms')::float8 / 1000),
    case when p_report ->> 'day_resets_ms' is null then p_now + case m.kind when 'calls' then interval '1 hour' else interval '15 min' end end,
    m.resets_at), m.resets_at, p_now + interval '1 day');
  return sluice.meter_alert(m, p_budget, p_now);
end $$;

-- What became of a call that asked whether the day, or the credits, are still spent. An answer that says nothing of it (another limit, a 5xx), or
-- none: the next one asks when the meter's block ends.
create function sluice.meter_asked(m sluice.meter, p_report jsonb, p_now timestamptz) returns sluice.meter
language plpgsql immutable as $$
begin
  if not coalesce((p_report ->> 'sent')::boolean, true) then
    m.blocked_until := least(m.blocked_until, p_now);
  elsif (p_report ->> 'answered')::boolean and p_report ->> 'throttle' is null and p_report ->> 'health' = 'answered' then
    m.refused_at := null;
    m.blocked_until := '-infinity';
  end if;
  return m;
end $$;

-- A 429 and what follows from it for everybody who draws from the budget. Over the minute: nothing until Zoho says so, half an hour if it does not
-- (finance sheet §3.2). Too many at once, which is also what a CRM refusal with credits left means: half as many for a while, one more every ten
-- seconds, and a pause that doubles from one second to a minute while it goes on. A spent day concerns one product: its meter stops it, and
-- the budget only where there is no meter.
create function sluice.note_throttle(p_budget sluice.budget, p_report jsonb, p_metered boolean, p_now timestamptz) returns void
language plpgsql set search_path = pg_catalog, sluice, pg_temp as $$
declare
  throttle constant text := p_report ->> 'throttle';
  retry_after constant interval := make_interval(secs => (p_report ->> 'retry_after_ms')::float8 / 1000);
  under_way integer;
begin
  if throttle is null then
    if p_budget.throttled > 0 and (p_report ->> 'answered')::boolean then
      update sluice.budget set throttled = 0 where id = p_budget.id;
    end if;
  elsif throttle = 'minute' or (throttle = 'day' and not p_metered) then
    update sluice.budget set blocked_reason = 'Zoho answered 429: ' || throttle,
      blocked_until = greatest(blocked_until, p_now + coalesce(retry_after, case throttle when 'minute' then interval '30 min' else interval '1 hour' end))
    where id = p_budget.id;
  elsif throttle in ('in_flight', 'unknown') then
    select count(*) into under_way from sluice.place where budget_id = p_budget.id and kind = 'in_flight' and free_at > p_now;
    update sluice.budget set blocked_reason = 'Zoho answered 429: too many at once', throttled = least(throttled + 1, 10),
      blocked_until = greatest(blocked_until, p_now + coalesce(retry_after, make_interval(secs => least(60, power(2, throttled))))),
      shrunk_to = greatest(1, least(sluice.flights_allowed(p_budget, p_now), under_way) / 2), shrunk_at = p_now
    where id = p_budget.id;
  end if;
end $$;

-- Five calls of a product in a row without an answer below 500 open its circuit: from then on one probe every five seconds.
create function sluice.note_health(p_connection text, p_product text, p_report jsonb, p_now timestamptz) returns void
language plpgsql set search_path = pg_catalog, sluice, pg_temp as $$
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

-- A handler that needs another call asks once, without waiting, and says what it costs. The call before is settled here. Null: the lease is lost.
create function sluice.grant_again(p_token bigint, p_worker text, p_report jsonb, p_cost integer, p_heavy boolean) returns jsonb
language plpgsql set search_path = pg_catalog, sluice, pg_temp set enable_seqscan = off set enable_bitmapscan = off set jit = off as $$
declare
  b sluice.batch;
  budget sluice.budget;
  places record;
  m sluice.meter;
  now_ timestamptz;
  bulk boolean;
begin
  select * into b from sluice.batch where token = p_token and worker = p_worker for update;
  if not found or b.lease_until < clock_timestamp() then
    return null;
  end if;
  select * into budget from sluice.budget where id = b.budget_id for no key update;
  now_ := clock_timestamp();
  perform sluice.free_place(b, budget, p_report, now_);
  perform sluice.note_health(b.connection, b.product, p_report, now_);
  -- A call that was not answered may be under way still: its places in flight stay taken, and another call needs others.
  if coalesce((p_report ->> 'sent')::boolean, true) and not coalesce((p_report ->> 'answered')::boolean, false) then
    b.flight_id := null;
    b.heavy_id := null;
  else
    -- A call that took its time may have outlived its places in flight: somebody else may have them by now.
    b.flight_id := (select p.id from sluice.place p where p.id = b.flight_id and p.batch = p_token and p.free_at > now_);
    b.heavy_id := (select p.id from sluice.place p where p.id = b.heavy_id and p.batch = p_token and p.free_at > now_);
  end if;
  update sluice.batch set place_id = null, flight_id = b.flight_id, heavy_id = b.heavy_id, cost = 0 where token = p_token;
  if exists (select from sluice.connection c where c.name = b.connection and c.paused_at is not null)
    or exists (select from sluice.shape h join sluice.sync y on y.name = h.sync where h.id = b.shape_id and y.paused_at is not null)
    or exists (select from sluice.product p where p.connection = b.connection and p.product = b.product and p.opened_at is not null) then
    return jsonb_build_object('wait_ms', 1000);
  end if;
  m := sluice.read_meter(budget, b.product, now_);
  if m.refused_at is not null or m.blocked_until > now_ or sluice.meter_left(m) - sluice.meter_kept(m, b.lane, now_) < p_cost then
    return jsonb_build_object('wait_ms', 1000);
  end if;
  select * into budget from sluice.budget where id = b.budget_id;    -- as the report left it
  bulk := b.lane >= 2;
  places := sluice.take_places(budget, now_, bulk, b.flight_id is null, p_heavy and b.heavy_id is null and budget.heavy > 0);
  if places.place_id is null or (p_heavy and budget.heavy > 0 and coalesce(b.heavy_id, places.heavy_id) is null) then
    return jsonb_build_object('wait_ms', greatest(20, ceil(extract(epoch from places.ready_at - now_) * 1000))::bigint);
  end if;
  -- the places in flight stay ours from call to call of one batch
  b.flight_id := coalesce(places.flight_id, b.flight_id);
  b.heavy_id := coalesce(places.heavy_id, b.heavy_id);
  if m.budget_id is not null then
    perform sluice.write_meter(sluice.meter_charged(m, p_cost, b.lane, now_));
  end if;
  perform sluice.note_grant(budget, array[places.place_id, b.flight_id, b.heavy_id], p_token, b.lane, now_, now_ + interval '2 s', b.timeout, bulk);
  update sluice.batch set place_id = places.place_id, flight_id = b.flight_id, heavy_id = b.heavy_id, granted_at = now_, cost = p_cost, send_by = now_ + interval '2 s' where token = p_token;
  return jsonb_build_object('place', places.place_id, 'send_by_ms', 2000);
end $$;

-- Heartbeat. Returns the tokens that are still this worker's; the others were taken away and must be dropped.
create function sluice.extend(p_worker text, p_tokens bigint[], p_lease interval) returns setof bigint
language sql set search_path = pg_catalog, sluice, pg_temp as $$
  update sluice.batch set lease_until = clock_timestamp() + p_lease
  where token = any (p_tokens) and worker = p_worker and lease_until > clock_timestamp() returning token
$$;

-- Settles a batch in one transaction, each record by its own outcome. False: the lease is lost, and nothing was written.
--
-- p_outcomes: [{"slot": id, "outcome": done|continue|retry|snooze|wait|dead, "delay_ms", "hold_ms", "counts": bool, "unbooked": bool, "death": bool,
--   "panic": bool, "max_batch", "progress", "waiting_sync", "waiting_key", "create": none|settled|doubt, "reason", "class", "code", "field", "message",
--   "hint", "http_status", "request", "response", "depends_sync", "depends_key", "ms", "calls", "sent_fields", "unwritten": bool}]
create function sluice.settle(p_token bigint, p_worker text, p_report jsonb, p_outcomes jsonb) returns boolean
language plpgsql set search_path = pg_catalog, sluice, pg_temp set enable_seqscan = off set enable_bitmapscan = off set enable_hashjoin = off set enable_mergejoin = off set jit = off as $$
declare
  b sluice.batch;
  budget sluice.budget;
  now_ timestamptz;
begin
  select * into b from sluice.batch where token = p_token and worker = p_worker for update;
  if not found or b.lease_until < clock_timestamp() then
    return false;
  end if;
  select * into budget from sluice.budget where id = b.budget_id for no key update;
  now_ := clock_timestamp();
  perform sluice.free_place(b, budget, p_report, now_);
  if not coalesce((p_report ->> 'sent')::boolean, true) or (p_report ->> 'answered')::boolean then
    update sluice.place set free_at = '-infinity', batch = null where id in (b.flight_id, b.heavy_id) and batch = b.token;
  end if;
  perform sluice.note_health(b.connection, b.product, p_report, now_);
  delete from sluice.batch where token = p_token;
  perform sluice.settle_slots(b, now_, p_outcomes);
  return true;
end $$;

create type sluice.outcome as (
  slot bigint, outcome text, delay_ms bigint, hold_ms bigint, counts boolean, unbooked boolean, death boolean, panic boolean, max_batch smallint,
  progress jsonb, waiting_sync text, waiting_key text, "create" text, pushed boolean, reason text, class text, code text, field text, message text, hint text,
  http_status integer, request jsonb, response jsonb, depends_sync text, depends_key text, ms integer, calls smallint, sent_fields text[], unwritten boolean
);

create function sluice.settle_slots(b sluice.batch, now_ timestamptz, p_outcomes jsonb) returns void
language plpgsql set search_path = pg_catalog, sluice, pg_temp set enable_seqscan = off set enable_bitmapscan = off set enable_hashjoin = off set enable_mergejoin = off set jit = off as $$
declare
  shape_ sluice.shape;
  rest interval;
  outcomes sluice.outcome[];
  letters bigint[];
  jobs bigint[];
begin
  select * into shape_ from sluice.shape where id = b.shape_id;
  select y.min_interval into rest from sluice.sync y where y.name = shape_.sync;
  outcomes := array(select distinct on (o.slot) o from jsonb_populate_recordset(null::sluice.outcome, p_outcomes) o order by o.slot);
  if exists (select from unnest(outcomes) o where (o.outcome in ('done', 'continue', 'retry', 'snooze', 'wait', 'dead')) is not true) then
    raise exception using errcode = '22023', message = 'an outcome must be done, continue, retry, snooze, wait or dead';
  end if;
  perform from sluice.slot where batch = b.token order by sync, key for update;
  -- a record that the worker forgot is due again: its batch is gone, and nobody else would free it
  outcomes := outcomes || array(
    select o from sluice.slot s cross join lateral jsonb_populate_record(null::sluice.outcome, jsonb_build_object('slot', s.id, 'outcome', 'continue', 'reason', 'not settled', 'progress', s.progress)) o
    where s.batch = b.token and s.id <> all (array(select u.slot from unnest(outcomes) u)));

  -- Missing partitions cost history, never a settle.
  begin
    insert into sluice.attempt (at, batch, worker, connection, product, kind, sync, key, attempt, outcome, reason, error_class, http_status, calls, ms, request, response)
    select now_, b.token, b.worker, b.connection, b.product, s.kind, s.sync, s.key, s.tries + 1, o.outcome, coalesce(o.reason, o.message), o.class, o.http_status,
           coalesce(o.calls, 0), o.ms, o.request, o.response
    from unnest(outcomes) o join sluice.slot s on s.id = o.slot and s.batch = b.token;
  exception when check_violation then
    raise warning 'sluice.attempt has no partition for today';
  end;

  -- The newest letter of a record is the one to look at; a success closes whatever was open. One that somebody is resolving is his.
  letters := array(
    select d.id from unnest(outcomes) o join sluice.slot s on s.id = o.slot and s.batch = b.token
    join sluice.dead_letter d on d.sync = s.sync and d.key = s.key and d.resolution is null
    -- what is left as it is, or still to be written to the row, is no success
    where (o.outcome = 'dead' or o.outcome = 'done' and o.unwritten is not true and coalesce(o.reason, '') not in ('held', 'braked')) and s.sync <> '' for update of d skip locked);
  update sluice.dead_letter set resolution = 'superseded', resolved_by = 'sluice', resolved_at = now_ where id = any (letters);

  insert into sluice.dead_letter (job_id, job_ids, kind, args, sync, key, lane, error_class, error_code, field, message, hint, http_status, response, history, depends_sync, depends_key)
  select j.ids[1], coalesce(j.ids, '{}'), case when s.sync <> '' then shape_.kind else s.kind end,
         coalesce(s.args, case when s.key like 'zoho:%' then jsonb_build_object('sync', s.sync, 'zoho_id', substr(s.key, 6)) else jsonb_build_object('sync', s.sync, 'key', s.key) end), nullif(s.sync, ''), case when s.sync <> '' then s.key end,
         sluice.lane_name(s.lane), o.class, o.code, o.field, coalesce(o.message, ''), o.hint, o.http_status, o.response, coalesce(h.history, '[]'), o.depends_sync, o.depends_key
  from unnest(outcomes) o join sluice.slot s on s.id = o.slot and s.batch = b.token
  cross join lateral (select array_agg(sj.job_id order by sj.job_id) as ids from sluice.slot_job sj where sj.slot_id = s.id and sj.work <= s.claimed_work) j
  cross join lateral (
    select jsonb_agg(to_jsonb(a) order by a.at) as history from (
      select t.at, t.worker, t.outcome, t.reason, t.error_class, t.http_status, t.calls, t.ms from sluice.attempt t
      where t.sync = s.sync and t.key = s.key and t.at >= s.created_at order by t.at desc limit 50) a) h
  where o.outcome = 'dead'
  order by s.sync, s.key;

  -- A job that somebody is cancelling in an open transaction is left to him; its slot then stays too, in case he rolls back.
  jobs := array(
    select sj.job_id from unnest(outcomes) o join sluice.slot s on s.id = o.slot and s.batch = b.token
    join sluice.slot_job sj on sj.slot_id = s.id and sj.work <= s.claimed_work where o.outcome in ('done', 'dead') for update of sj skip locked);
  begin
    with ended as (
      delete from sluice.slot_job sj using unnest(outcomes) o, sluice.slot s
      where sj.job_id = any (jobs) and s.id = sj.slot_id and o.slot = s.id
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
    delete from sluice.slot_job where job_id = any (jobs);
  end;

  -- What settle knows of the link: whether a create is still in doubt, and when the record was last written to.
  update sluice.link l set
    create_sent_at = case when o."create" = 'doubt' then coalesce(l.create_sent_at, b.claimed_at) when o."create" = 'settled' or s.create_intent then null else l.create_sent_at end,
    creates = case when o."create" = 'doubt' then l.creates + 1 when o."create" = 'settled' then 0 else l.creates end,
    pushed_at = case when o.pushed then now_ else l.pushed_at end,
    write_sent_at = case when o.sent_fields is null then l.write_sent_at else b.granted_at end,
    write_answered_at = case when o.sent_fields is null then l.write_answered_at else now_ end,
    write_fields = coalesce(o.sent_fields, l.write_fields),
    -- what a lost create or push may have left in Zoho is known until another write has been answered
    sending = case when o.pushed or o."create" = 'settled' then null
                   when (l.zoho_id is null and l.creates > 0) or (l.unsure and shape_.kind = 'push') then l.sending
                   when o.outcome = 'done' and o.reason is distinct from 'braked' or (o.outcome = 'dead' and o.class not in ('exhausted', 'unknown', 'panic')) then null else l.sending end,
    hold_until = case when o.hold_ms > 0 then now_ + make_interval(secs => o.hold_ms::float8 / 1000) else l.hold_until end,
    held = case when o.outcome = 'done' then o.reason is not distinct from 'held' else l.held end,
    unsure = l.unsure or (o.outcome = 'dead' and o.class in ('exhausted', 'unknown', 'panic')) or coalesce(o.hold_ms > 0 and shape_.kind = 'push' and l.zoho_id is not null, false)
  from unnest(outcomes) o join sluice.slot s on s.id = o.slot and s.batch = b.token
  where shape_.kind in ('push', 'pull') and l.sync = s.sync and l.key = s.key and (s.create_intent or o."create" in ('doubt', 'settled') or o.pushed or o.hold_ms > 0 or o.sent_fields is not null or l.sending is not null or (o.outcome = 'done' and l.held <> (o.reason is not distinct from 'held'))
      or (o.outcome = 'dead' and o.class in ('exhausted', 'unknown', 'panic')));
  delete from sluice.link l using unnest(outcomes) o, sluice.slot s
  where shape_.kind in ('push', 'pull') and s.id = o.slot and s.batch = b.token and s.create_intent and l.sync = s.sync and l.key = s.key
    and l.zoho_id is null and l.create_sent_at is null and l.pushed_at is null and l.creates = 0 and (l.hold_until <= now_) is not false;

  -- every rise of `work` came with a job: what is left is asked for anew, or it was cancelled meanwhile
  delete from sluice.slot s using unnest(outcomes) o
  where s.id = o.slot and s.batch = b.token and o.outcome in ('done', 'dead')
    and not exists (select from sluice.slot_job sj where sj.slot_id = s.id);

  update sluice.slot s set
    state = 'available', batch = null, claimed_work = null, create_intent = false,
    lane = least(case when o.outcome in ('done', 'dead') then coalesce(s.next_lane, s.lane) else s.lane end, s.next_lane),
    due_at = greatest(
      case when o.outcome in ('done', 'dead') then greatest(coalesce(s.next_due_at, now_), case when o.pushed then now_ + rest end)
           when o.outcome = 'wait' and s.work = s.claimed_work then 'infinity'
           when o.outcome = 'wait' then now_
           when o.outcome = 'retry' and s.next_lane = 0 then now_      -- a person asked for it meanwhile
           else now_ + make_interval(secs => coalesce(o.delay_ms, 0)::float8 / 1000) end,
      now_ + make_interval(secs => o.hold_ms::float8 / 1000)),
    not_before = case when o.hold_ms > 0 then now_ + make_interval(secs => o.hold_ms::float8 / 1000) else '-infinity' end,
    -- the record that a lost create left was found: what failed before were answers, not the record. Once in a link's life
    failures = case when o.outcome in ('done', 'dead') or (o.outcome = 'continue' and o."create" = 'settled') then 0 when o.counts then s.failures + 1 else s.failures end,
    tries = case when o.outcome in ('done', 'dead') then 0 when o.outcome = 'retry' then s.tries + 1 else s.tries end,
    -- in a row: a run that ended otherwise starts anew, one that was only given back or not alone says nothing
    deaths = case when o.death then s.deaths + 1 when o.death is false or o.outcome = 'continue' then s.deaths else 0 end,
    panics = case when o.panic then s.panics + 1 when o.death is false or o.outcome = 'continue' then s.panics else 0 end,
    max_batch = case when o.outcome in ('done', 'dead') then null else coalesce(o.max_batch, s.max_batch) end,
    unbooked_at = case when o.outcome in ('done', 'dead') or (o.outcome = 'continue' and o."create" = 'settled') then null when o.unbooked then now_ else s.unbooked_at end,
    waiting_sync = case when o.outcome = 'wait' and s.work = s.claimed_work then o.waiting_sync end,
    waiting_key = case when o.outcome = 'wait' and s.work = s.claimed_work then o.waiting_key end,
    progress = case when o.outcome = 'continue' then o.progress when o.outcome in ('snooze', 'retry') then coalesce(o.progress, s.progress) end,
    last_error = case when o.outcome in ('done', 'continue') then null else coalesce(o.message, o.reason, s.last_error) end,
    next_lane = null, next_due_at = null
  from unnest(outcomes) o
  where s.id = o.slot and s.batch = b.token;

  if shape_.sync <> '' and exists (select from unnest(outcomes) o where o.outcome = 'done') then
    insert into sluice.sync_difference (sync, success_at) values (shape_.sync, now_);
  end if;
end $$;

-- One batch whose worker stopped beating; false: there is none. What it held in the ledger frees itself. The records: a lost write may still arrive until the
-- request's time-out, so none is touched before that. A worker's death counts only for a record that was alone in its batch.
create function sluice.rescue() returns boolean
language plpgsql set search_path = pg_catalog, sluice, pg_temp set enable_seqscan = off set enable_bitmapscan = off set enable_hashjoin = off set enable_mergejoin = off set jit = off as $$
declare
  b sluice.batch;
  now_ timestamptz;
  outcomes jsonb;
begin
  select * into b from sluice.batch where lease_until < clock_timestamp() order by lease_until limit 1 for update skip locked;
  if not found then
    return false;
  end if;
  perform from sluice.budget where id = b.budget_id for no key update;
  now_ := clock_timestamp();
  select jsonb_agg(jsonb_build_object('slot', s.id, 'calls', 1) || case
    when s.kind = 'call' and s.args ->> 'method' <> 'GET' then jsonb_build_object('outcome', 'dead', 'class', 'unknown',
      'message', 'the worker died while the request was under way; whether Zoho carried it out is not known',
      'hint', 'look in Zoho, then requeue or discard')
    when b.records = 1 and s.deaths + 1 >= 8 then jsonb_build_object('outcome', 'dead', 'class', 'panic', 'create', 'doubt',
      'message', 'eight workers in a row died while they worked on this record alone', 'hint', 'see the workers'' logs; requeue after the cause is mended')
    else jsonb_build_object('outcome', 'retry', 'reason', 'the worker died', 'death', b.records = 1,
      'create', case when s.sync <> '' and (s.create_intent or exists (select from sluice.link l where l.sync = s.sync and l.key = s.key and l.create_sent_at is not null)) then 'doubt' end,
      'max_batch', case when b.records > 1 then (b.records + 1) / 2 end,
      'delay_ms', case when b.records = 1 and s.deaths > 0 then least(300000, 1000 * power(2, s.deaths)) else 0 end::bigint,
      'hold_ms', case when s.sync <> '' then greatest(0, extract(epoch from b.send_by + b.timeout + interval '5 s' - now_) * 1000)::bigint end) end)
  into outcomes from sluice.slot s where s.batch = b.token;
  delete from sluice.batch where token = b.token;
  perform sluice.settle_slots(b, now_, coalesce(outcomes, '[]'));
  return true;
end $$;
