-- The ledger: every call is a row that was taken before the call and comes free a window after its answer.

-- One budget per organisation and what it meters together: Books, Inventory and Billing share 'finance' unless told otherwise.
-- Two connections to one organisation draw from one budget.
create table sluice.budget (
  id              bigint      generated always as identity,
  data_center     text        not null,
  organization_id text        not null,
  scope           text        not null,                       -- finance, crm, fsm, or a product's own
  cap             integer     not null,                       -- calls in any window
  call_window     interval    not null,
  in_flight       integer     not null,                       -- calls under way
  heavy           integer     not null default 0,             -- of them, calls that CRM counts as complex; 0: the product knows no such thing
  time_zone       text,                                       -- the organisation's, in which its day ends; null: not known, UTC until an answer says
  grid_at         timestamptz not null default '-infinity',   -- while bulk work waits, no grant before this point
  blocked_until   timestamptz not null default '-infinity',   -- Zoho said so: a 429
  blocked_reason  text,
  throttled       integer     not null default 0,             -- refusals in a row for too many at once
  shrunk_to       integer,                                    -- so many may be under way since Zoho said it is too many; one more every ten seconds
  shrunk_at       timestamptz,
  constraint budget_pkey primary key (id),
  constraint budget_key unique (data_center, organization_id, scope),
  constraint budget_cap_check check (cap > 0 and in_flight > 0 and heavy >= 0 and call_window > interval '0')
) with (fillfactor = 50);

-- `cap` rows of kind 'window', `in_flight` of kind 'in_flight' and `heavy` of kind 'heavy' per budget: one per call that may be in it. Rows,
-- not a count: one statement that locks a row and counts others counts as of before its wait.
create table sluice.place (
  id         bigint      generated always as identity,
  budget_id  bigint      not null,
  kind       text        not null,
  free_at    timestamptz not null default '-infinity',
  batch      bigint,
  lane       smallint,
  granted_at timestamptz,
  answer     interval,                                        -- how long the answer took, of those that came
  constraint place_pkey primary key (id),
  constraint place_budget_id_fkey foreign key (budget_id) references sluice.budget (id) on delete cascade,
  constraint place_kind_check check (kind in ('window', 'in_flight', 'heavy'))
) with (fillfactor = 50);
create index place_free_idx on sluice.place (budget_id, kind, free_at);

-- What Zoho counts over a day, per organisation and product: calls until midnight in the organisation's zone (finance, FSM), or credits over
-- 24 rolling hours (CRM). A counter, so its budget's row is locked before it is read: every grant and every settle holds that.
--
-- Credits are counted in 98 buckets of a quarter of an hour. A bucket is emptied when the 98th after it begins, 24 hours and 15 minutes after
-- its own end at the earliest; what was granted in it arrived at Zoho within those 15 minutes of it, and is 24 hours old by then. So `used` is
-- never less than what Zoho counts of ours, and at most half an hour behind it. For a day of calls the buckets only tell the pace.
create table sluice.meter (
  budget_id     bigint      not null,
  product       text        not null,
  kind          text        not null,
  configured    integer,                                      -- our own bound on our own use; null: as much as Zoho allows
  told          integer,                                      -- Zoho's limit for everybody; null: not known yet, and then not enforced
  told_by       text,                                         -- plan (the file's), header, organization (the plan that Zoho says)
  used          integer     not null default 0,               -- ours: granted and not given back, also where the answer was lost
  others        integer     not null default 0,               -- used by others of the same organisation, as far as Zoho's figures prove it
  urgent        integer     not null default 0,               -- of today's calls, those of lanes interactive and realtime, and of normal
  normal        integer     not null default 0,
  urgent_before integer     not null default 0,               -- the day before
  normal_before integer     not null default 0,
  resets_at     timestamptz,                                  -- calls: the organisation's next midnight
  bucket        bigint      not null default 0,               -- number of the current quarter of an hour since 1970
  buckets       integer[]   not null default array_fill(0, array[98]),
  blocked_until timestamptz not null default '-infinity',     -- Zoho said that it is spent, or one call is asking whether it still is
  refused_at    timestamptz,                                  -- Zoho said so then; until it answers otherwise one call at a time asks
  alerted_at    timestamptz,                                  -- once a day somebody is told that work waits for the next
  constraint meter_pkey primary key (budget_id, product),
  constraint meter_budget_id_fkey foreign key (budget_id) references sluice.budget (id) on delete cascade,
  constraint meter_kind_check check (kind in ('calls', 'credits')),
  constraint meter_resets_at_check check ((kind = 'calls') = (resets_at is not null))
) with (fillfactor = 20);

-- What somebody should be told of, once: a row per occasion. Whoever delivers alerts notes it here.
create table sluice.alert (
  id        bigint      generated always as identity,
  occasion  text        not null,
  subject   text        not null,
  message   text        not null,
  raised_at timestamptz not null default clock_timestamp(),
  told_at   timestamptz,
  constraint alert_pkey primary key (id)
);
create index alert_untold_idx on sluice.alert (id) where told_at is null;

-- A product of a connection: which budget it draws from, and its circuit.
create table sluice.product (
  connection  text        not null,
  product     text        not null,
  budget_id   bigint      not null,
  unanswered  integer     not null default 0,                 -- calls in a row without an answer below 500
  opened_at   timestamptz,                                    -- the circuit is open since then: one probe at a time
  probe_at    timestamptz,
  answered_at timestamptz not null default '-infinity',       -- the last answer below 500 to anybody
  outage_ended_at timestamptz,                                -- when the circuit last closed: what failed until then is nobody's failure
  plan        text,                                           -- what Zoho calls the plan or edition; null: not asked, or not said
  plan_users  integer,                                        -- licensed users, who add to CRM's credits
  plan_in_flight integer,                                     -- calls under way that follow from it
  plan_failure text,                                          -- why Zoho did not say
  plan_due_at timestamptz,                                    -- the next batch after that asks; null: the configuration names the plan, or nobody can be asked
  constraint product_pkey primary key (connection, product),
  constraint product_budget_id_fkey foreign key (budget_id) references sluice.budget (id)
) with (fillfactor = 50);

-- One encrypted row per refresh token, refreshed once for all replicas.
create table sluice.credential (
  fingerprint   text        not null,                         -- sha256 of the refresh token
  refresh_token bytea       not null,
  access_token  bytea,
  expires_at    timestamptz,
  api_domain    text,
  refresh_until timestamptz not null default '-infinity',     -- the lease of whoever is refreshing it
  refreshed_by  text,
  failure       text,                                         -- why the last refresh failed; null when it did not
  retry_at      timestamptz not null default '-infinity',
  updated_at    timestamptz not null default clock_timestamp(),
  constraint credential_pkey primary key (fingerprint)
) with (fillfactor = 50);

-- Ten rows per refresh token: Zoho mints ten access tokens per ten minutes and then refuses. Failed mints count as well.
create table sluice.mint (
  fingerprint text        not null,
  place       smallint    not null,
  free_at     timestamptz not null default '-infinity',
  minted_at   timestamptz,
  constraint mint_pkey primary key (fingerprint, place)
) with (fillfactor = 50);

-- The arithmetic of the meters, apart from the grants that use it: what is left, what is kept back for whom, and until when. None of these
-- functions writes or locks but those named for it; whoever writes a meter holds its budget's row. They set nothing for themselves, since a claim calls a
-- dozen of them: every name is qualified, and who calls has set the path.

-- What the limit is, as far as it is known; null while nobody has said.
create function sluice.meter_cap(m sluice.meter) returns integer
language plpgsql immutable as $$
begin
  return least(m.configured, m.told);
end $$;

-- What is left: the configuration bounds our own use, Zoho's figure everybody's. Null: no limit is known.
create function sluice.meter_left(m sluice.meter) returns integer
language plpgsql immutable as $$
begin
  return least(m.configured - m.used, m.told - m.used - m.others);
end $$;

-- The end of the organisation's day.
create function sluice.next_midnight(p_zone text, p_now timestamptz) returns timestamptz
language plpgsql stable as $$
begin
  return (date_trunc('day', p_now at time zone coalesce(p_zone, 'UTC')) + interval '1 day') at time zone coalesce(p_zone, 'UTC');
end $$;

-- The meter as it stands now: buckets that are over are emptied, and a day that is over begins anew. `p_straddling`: calls that the window still
-- holds. They count for the new day as well, since Zoho's midnight may be some seconds from ours and they may have arrived on either side.
create function sluice.meter_turned(m sluice.meter, p_zone text, p_straddling integer, p_now timestamptz) returns sluice.meter
language plpgsql stable as $$
declare
  current_bucket constant bigint := floor(extract(epoch from p_now) / 900);
begin
  if current_bucket - m.bucket >= 98 then
    m.buckets := array_fill(0, array[98]);
    if m.kind = 'credits' then
      m.used := 0;
      m.others := 0;
    end if;
  else
    for b in m.bucket + 1 .. current_bucket loop
      if m.kind = 'credits' then
        m.used := m.used - m.buckets[b % 98 + 1];
      end if;
      m.buckets[b % 98 + 1] := 0;
    end loop;
  end if;
  m.bucket := greatest(m.bucket, current_bucket);               -- a clock that was set back empties nothing
  if m.kind = 'calls' and m.resets_at <= p_now then
    m.urgent_before := m.urgent;
    m.normal_before := m.normal;
    m.used := least(m.used, p_straddling);
    m.others := 0;
    m.urgent := 0;
    m.normal := 0;
    m.blocked_until := '-infinity';
    m.alerted_at := null;
    m.resets_at := case when p_zone is null then m.resets_at + interval '1 day' * ceil(extract(epoch from p_now - m.resets_at + interval '1 us') / 86400)
      else sluice.next_midnight(p_zone, p_now) end;
  end if;
  return m;
end $$;

-- What must remain for others when this lane is served. Lanes interactive and realtime may use everything. Of what is ahead of the day, a fifth is
-- kept for them, and three tenths for row changes before reconcile and backfill; more where yesterday, or today's pace, says that it will be
-- needed. As the day goes by less is kept, so that bulk work slows down rather than stops, and nothing is left over at midnight. Rolling credits
-- have no midnight: the shares are kept at all times.
create function sluice.meter_kept(m sluice.meter, p_lane smallint, p_now timestamptz) returns integer
language plpgsql stable as $$
declare
  cap constant integer := least(m.configured, m.told);
  ahead float8 := 1;
  urgent float8 := 0.2 * cap;
  normal float8 := 0.3 * cap;
begin
  if p_lane < 2 or cap is null then
    return 0;
  end if;
  if m.kind = 'calls' then
    ahead := least(1, greatest(0, extract(epoch from m.resets_at - p_now) / 86400));
    urgent := greatest(urgent, m.urgent_before, case when ahead < 0.95 then m.urgent / (1 - ahead) end);
    normal := greatest(normal, m.normal_before, case when ahead < 0.95 then m.normal / (1 - ahead) end);
  end if;
  return least(cap, ceil(ahead * case when p_lane = 2 then urgent else urgent + normal end));
end $$;

-- Whether one call may find out how things stand although our figures would not let it. What others used of the credits comes back by itself, and only
-- an answer tells: so one call asks where none was granted for a quarter of an hour, and our own bound on our own use has room for it.
create function sluice.meter_asks(m sluice.meter) returns boolean
language plpgsql immutable as $$
begin
  return m.kind = 'credits' and m.others > 0 and (m.configured is null or m.used < m.configured)
    and m.buckets[m.bucket % 98 + 1] = 0 and m.buckets[(m.bucket - 1) % 98 + 1] = 0;
end $$;

-- The least urgent lane that the meter allows a call that costs one, -1 for none, and when to look again for the others.
create function sluice.meter_allows(m sluice.meter, p_now timestamptz, out lane smallint, out ready_at timestamptz)
language plpgsql stable as $$
declare
  remaining constant integer := sluice.meter_left(m);
  ends_at constant timestamptz := coalesce(m.resets_at, to_timestamp((m.bucket + 1) * 900));
begin
  lane := 4;
  if m.blocked_until > p_now then
    lane := -1;
    ready_at := m.blocked_until;
  elsif m.refused_at is not null and coalesce(remaining >= 1, true) or sluice.meter_asks(m) then
    null;                                                       -- one call, of whatever lane comes first: it blocks the meter until it is answered
  elsif remaining < 1 then
    lane := -1;
    ready_at := ends_at;
  elsif remaining is not null then
    while lane >= 2 and remaining - sluice.meter_kept(m, lane, p_now) < 1 loop
      lane := lane - 1;
    end loop;
    ready_at := case when lane < 4 then least(ends_at, p_now + interval '1 min') end;
  end if;
end $$;

-- When the meter is spent at the pace of the last quarter of an hour or two; null if not before it resets, or if no limit is known.
create function sluice.meter_spent_at(m sluice.meter, p_now timestamptz) returns timestamptz
language plpgsql stable as $$
declare
  recent constant integer := m.buckets[m.bucket % 98 + 1] + m.buckets[(m.bucket - 1) % 98 + 1];
  seconds constant float8 := 900 + extract(epoch from p_now) - m.bucket * 900;
  at timestamptz;
begin
  if recent = 0 or sluice.meter_left(m) is null then
    return null;
  end if;
  at := p_now + make_interval(secs => greatest(0, sluice.meter_left(m)) * seconds / recent);
  return case when at < coalesce(m.resets_at, p_now + interval '24 hours') then at end;
end $$;

-- The meter with so much more, or less, of it used: by a call that was granted at that time. What is given back must not be given back twice,
-- nor to another day.
create function sluice.meter_charged(m sluice.meter, p_amount integer, p_lane smallint, p_granted_at timestamptz) returns sluice.meter
language plpgsql stable as $$
declare
  b constant bigint := floor(extract(epoch from p_granted_at) / 900);
begin
  if b <= m.bucket - 98 or (m.kind = 'calls' and p_granted_at < m.resets_at - interval '1 day') then
    return m;
  end if;
  m.buckets[b % 98 + 1] := m.buckets[b % 98 + 1] + p_amount;
  m.used := m.used + p_amount;
  if p_lane < 2 then
    m.urgent := m.urgent + p_amount;
  elsif p_lane = 2 then
    m.normal := m.normal + p_amount;
  end if;
  return m;
end $$;

-- A day of calls that began later than we thought: what was granted before, but for the quarter of an hour in which it began, was another day's. Else a
-- midnight that Zoho has an hour before ours (a zone that nobody told us, a change of the clocks) would cost the new day all that the old one used.
create function sluice.meter_began(m sluice.meter, p_at timestamptz) returns sluice.meter
language plpgsql immutable as $$
declare
  since integer := 0;
begin
  for b in greatest(floor(extract(epoch from p_at) / 900)::bigint, m.bucket - 97) .. m.bucket loop
    since := since + m.buckets[b % 98 + 1];
  end loop;
  m.used := least(m.used, since);
  m.others := 0;
  m.urgent_before := m.urgent;
  m.normal_before := m.normal;
  m.urgent := 0;
  m.normal := 0;
  return m;
end $$;

-- The meter corrected by what an answer said. Zoho's figure may or may not hold calls of ours that are under way, so only what exceeds all that
-- we were granted is taken for others'. `p_under_way`: what the calls under way may still cost.
create function sluice.meter_told(m sluice.meter, p_report jsonb, p_under_way integer, p_now timestamptz) returns sluice.meter
language plpgsql stable as $$
declare
  day_limit constant integer := (p_report ->> 'day_limit')::integer;
  day_left constant integer := (p_report ->> 'day_remaining')::integer;
  credits_left constant integer := (p_report ->> 'credits_remaining')::integer;
  resets_at constant timestamptz := p_now + make_interval(secs => (p_report ->> 'day_resets_ms')::float8 / 1000);
begin
  if m.kind = 'calls' then
    if day_limit > 0 and m.told is distinct from day_limit then
      m.told := day_limit;
      m.told_by := 'header';
    end if;
    -- Zoho's midnight. Just before ours, or before its own, ours comes by itself, or the next answer tells.
    if abs(extract(epoch from resets_at - m.resets_at)) > 120 and least(m.resets_at, resets_at) > p_now + interval '2 min' and resets_at < p_now + interval '26 hours' then
      if resets_at > m.resets_at then
        m := sluice.meter_began(m, resets_at - interval '1 day');
      end if;
      m.resets_at := resets_at;
    end if;
    if day_left is not null then
      m.others := greatest(m.others, coalesce(day_limit, m.told) - day_left - m.used, 0);
    end if;
  elsif credits_left is not null then
    if m.told is null or m.told_by = 'header' then
      -- Nobody said what the limit is, only what is left of it: less what may be on its way, and what we count longer than Zoho does.
      m.told := m.used + credits_left - p_under_way - m.buckets[(m.bucket + 1) % 98 + 1] - m.buckets[(m.bucket + 2) % 98 + 1];
      m.told_by := 'header';
    else
      m.told := greatest(m.told, credits_left);
      m.others := greatest(0, m.told - credits_left - m.used);
    end if;
  elsif m.others > 0 and (p_report ->> 'answered')::boolean then
    m.others := least(m.others, greatest(0, m.told / 2 - m.used));   -- the figure is sent once half is spent
  end if;
  return m;
end $$;

-- What the ledger counts against a call's answer: nothing if it was not sent, what it cost if the worker knows, else what was reserved.
create function sluice.meter_unused(p_reserved integer, p_report jsonb) returns integer
language plpgsql immutable as $$
begin
  return case
    when not coalesce((p_report ->> 'sent')::boolean, true) then p_reserved
    when (p_report ->> 'answered')::boolean then greatest(0, p_reserved - coalesce((p_report ->> 'cost')::integer, p_reserved))
    else 0 end;
end $$;

-- The meter of a budget's product, as it stands now. The caller holds the budget's row. All null where the product has none.
create function sluice.read_meter(p_budget sluice.budget, p_product text, p_now timestamptz) returns sluice.meter
language plpgsql stable as $$
declare
  m sluice.meter;
begin
  select * into m from sluice.meter where budget_id = p_budget.id and product = p_product;
  if not found then
    return null;
  end if;
  return sluice.meter_turned(m, p_budget.time_zone, sluice.straddling(m, p_budget), p_now);
end $$;

-- Calls of the last window before the day's end, of any product: a place remembers its last one.
create function sluice.straddling(m sluice.meter, p_budget sluice.budget) returns integer
language plpgsql stable as $$
begin
  if m.resets_at is null or m.resets_at > clock_timestamp() then
    return 0;
  end if;
  return (select count(*) from sluice.place p
    where p.budget_id = p_budget.id and p.kind = 'window' and p.granted_at > m.resets_at - greatest(p_budget.call_window, interval '1 min'));
end $$;

create function sluice.write_meter(m sluice.meter) returns void
language plpgsql as $$
begin
  update sluice.meter set told = m.told, told_by = m.told_by, used = m.used, others = m.others, urgent = m.urgent, normal = m.normal,
    urgent_before = m.urgent_before, normal_before = m.normal_before, resets_at = m.resets_at, bucket = m.bucket, buckets = m.buckets,
    blocked_until = m.blocked_until, refused_at = m.refused_at, alerted_at = m.alerted_at
  where budget_id = m.budget_id and product = m.product;
end $$;

-- Says once a day that work of this meter waits, and until when.
create function sluice.meter_alert(m sluice.meter, p_budget sluice.budget, p_now timestamptz) returns sluice.meter
language plpgsql as $$
begin
  if m.alerted_at is not null and (m.kind = 'calls' or m.alerted_at > p_now - interval '24 hours') then
    return m;
  end if;
  insert into sluice.alert (occasion, subject, message) values ('budget_low', format('%s/%s', p_budget.organization_id, m.product), sluice.meter_says(m, p_now));
  m.alerted_at := p_now;
  return m;
end $$;

-- For people: what waits for the meter, and until when. Null: nothing.
create function sluice.meter_says(m sluice.meter, p_now timestamptz) returns text
language plpgsql stable as $$
declare
  allowed constant record := sluice.meter_allows(m, p_now);
  what constant text := case m.kind when 'calls' then 'calls' else 'credits' end;
  ends constant text := case m.kind when 'calls' then 'the day ends at ' || to_char(m.resets_at, 'YYYY-MM-DD HH24:MI TZ') else 'credits come back 24 hours after they were spent' end;
begin
  return case allowed.lane
    when 4 then case when m.refused_at is not null then format('Zoho said that the %s are spent; the next call asks whether they still are', what) end
    when 3 then format('backfill waits: %s of %s %s are left, kept for more urgent work and set free bit by bit; %s', sluice.meter_left(m), sluice.meter_cap(m), what, ends)
    when 2 then format('reconcile and backfill wait: %s of %s %s are left, kept for row changes and urgent work and set free bit by bit; %s', sluice.meter_left(m), sluice.meter_cap(m), what, ends)
    when 1 then format('only interactive and realtime work goes on: %s of %s %s are left; %s', sluice.meter_left(m), sluice.meter_cap(m), what, ends)
    else case when m.blocked_until > p_now then format('Zoho says that the %s are spent; asked again at %s; %s', what, to_char(m.blocked_until, 'HH24:MI TZ'), ends)
      else format('all %s %s are spent; %s', sluice.meter_cap(m), what, ends) end
  end;
end $$;
