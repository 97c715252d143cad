-- Telling people: what is worth an alert, and to whom each was delivered.

-- One row per alert and `[alerts.NAME]` that wants it. Whoever holds the lease delivers; a lease that ends without a result is taken by another, so an
-- alert may arrive twice, never not at all.
create table sluice.alert_delivery (
  alert_id    bigint      not null,
  name        text        not null,
  tries       integer     not null default 0,
  due_at      timestamptz not null default clock_timestamp(),
  lease_until timestamptz not null default '-infinity',
  sent_at     timestamptz,
  given_up_at timestamptz,                                    -- a day after the alert
  error       text,                                           -- of the last try that failed
  constraint alert_delivery_pkey primary key (alert_id, name),
  constraint alert_delivery_alert_id_fkey foreign key (alert_id) references sluice.alert (id) on delete cascade
) with (fillfactor = 70);
create index alert_delivery_due_idx on sluice.alert_delivery (due_at) where sent_at is null and given_up_at is null;
-- Whether somebody was told of the same lately.
create index alert_subject_idx on sluice.alert (occasion, subject, raised_at);

-- The dead letters of the last hour of which an alert has told. Not a mark in the letter: a settle that finds it locked would leave it open.
create table sluice.alert_letter (
  dead_letter_id bigint      not null,
  noted_at       timestamptz not null default clock_timestamp(),
  constraint alert_letter_pkey primary key (dead_letter_id)
);
create index dead_letter_created_at_idx on sluice.dead_letter (created_at);
-- Looked for every few seconds, among whatever number of events.
create index event_bad_signature_idx on sluice.event (received_at) where verdict = 'bad_signature';

-- Writes an alert for what has come up since the last look: one caller at a time, others have nothing to do. Budgets and brakes write their own.
-- What goes on is told again after six hours, a sync's dead letters at most once a minute, by their number.
create function sluice.raise_alerts() returns void
language plpgsql set search_path = pg_catalog, sluice, pg_temp as $$
begin
  if not pg_try_advisory_xact_lock(hashtext('sluice.raise_alerts')) then
    return;
  end if;
  with fresh as (
    insert into sluice.alert_letter (dead_letter_id)
    select d.id from sluice.dead_letter d
    where d.created_at > clock_timestamp() - interval '1 hour' and not exists (select from sluice.alert_letter t where t.dead_letter_id = d.id)
      and not exists (select from sluice.alert a where a.occasion = 'dead_letter' and a.subject = coalesce(d.sync, d.kind) and a.raised_at > clock_timestamp() - interval '1 min')
    order by d.id limit 10000
    returning dead_letter_id
  )
  insert into sluice.alert (occasion, subject, message)
  select 'dead_letter', coalesce(d.sync, d.kind),
         format('%s: %s gave up; the newest: %s%s, %s: %s. See: sluice dlq list%s', coalesce(d.sync, d.kind), case count(*) when 1 then 'a job' else count(*) || ' jobs' end,
           max(d.kind), coalesce(' ' || (array_agg(d.key order by d.id desc))[1], ''), (array_agg(d.error_class order by d.id desc))[1],
           left((array_agg(d.message order by d.id desc))[1], 300), coalesce(' --sync ' || d.sync, ''))
  from fresh join sluice.dead_letter d on d.id = fresh.dead_letter_id group by d.sync, coalesce(d.sync, d.kind);
  delete from sluice.alert_letter where noted_at < clock_timestamp() - interval '1 day';

  insert into sluice.alert (occasion, subject, message)
  select 'connection_paused', p.subject, format('%s is paused%s%s. Jobs wait until: sluice resume', p.subject, coalesce(' by ' || p.paused_by, ''), coalesce(': ' || p.pause_reason, ''))
  from (select 'connection ' || c.name as subject, c.paused_at, c.paused_by, c.pause_reason from sluice.connection c where c.paused_at is not null and c.retired_at is null
        union all select 'sync ' || y.name, y.paused_at, y.paused_by, y.pause_reason from sluice.sync y where y.pause_cause is not null and y.paused_at is not null and y.retired_at is null) p
  where not exists (select from sluice.alert a where a.occasion = 'connection_paused' and a.subject = p.subject and a.raised_at >= p.paused_at);

  -- A spent budget has alerts of its own.
  insert into sluice.alert (occasion, subject, message)
  select 'stalled', s.sync, format('%s: work is due since %s and nothing has succeeded since %s. Is a worker running? See: sluice status', s.sync,
           to_char(s.oldest_due_at at time zone 'UTC', 'YYYY-MM-DD HH24:MI "UTC"'), coalesce(to_char(s.last_success_at at time zone 'UTC', 'YYYY-MM-DD HH24:MI "UTC"'), 'ever'))
  from sluice.sync_status s join sluice.sync y on y.name = s.sync join sluice.connection c on c.name = y.connection
  where s.oldest_due_at < clock_timestamp() - interval '15 min' and coalesce(s.last_success_at, '-infinity') < clock_timestamp() - interval '15 min'
    and y.paused_at is null and y.retired_at is null and c.paused_at is null and c.retired_at is null
    and not exists (select from sluice.alert a where a.occasion = 'stalled' and a.subject = s.sync and a.raised_at > clock_timestamp() - interval '6 hours')
    and not exists (select from sluice.budget_status b where b.connection = y.connection and b.product = y.product and b.note is not null and b.limit_kind in ('calls_per_day', 'credits_per_day'));

  -- Five within ten minutes: one may be a stray. Whatever verifying said but yes: who knows no secret sends none.
  insert into sluice.alert (occasion, subject, message)
  select 'signature_failures', f.source, format('webhook %s: %s event(s) within ten minutes failed their verification (%s). Is the secret right? See: sluice events list', f.source, f.n, f.verdicts)
  from (select v.source, sum(v.n) as n, string_agg(format('%s %s', v.n, v.verdict), ', ' order by v.verdict) as verdicts
        from (select e.source, e.verdict, count(*) as n from sluice.event e
              where e.verdict <> 'verified' and e.received_at > clock_timestamp() - interval '10 min' group by e.source, e.verdict) v group by v.source) f
  where f.n >= 5 and not exists (select from sluice.alert a where a.occasion = 'signature_failures' and a.subject = f.source and a.raised_at > clock_timestamp() - interval '6 hours');
end $$;

-- Takes deliveries to be made: at most p_limit, for the alerts by name, each with the occasions that it tells of. What is older than a day when a name
-- first appears is not told any more.
create function sluice.take_deliveries(p_names text[], p_occasions jsonb, p_lease interval, p_limit integer)
returns table (alert_id bigint, name text, tries integer, occasion text, subject text, message text, raised_at timestamptz)
language plpgsql set search_path = pg_catalog, sluice, pg_temp as $$
#variable_conflict use_column
begin
  insert into sluice.alert_delivery (alert_id, name)
  select a.id, n from sluice.alert a cross join unnest(p_names) n
  where a.told_at is null and a.raised_at > clock_timestamp() - interval '1 day' and p_occasions -> n ? a.occasion
    and not exists (select from sluice.alert_delivery d where d.alert_id = a.id and d.name = n)
  order by a.id, n
  on conflict on constraint alert_delivery_pkey do nothing;
  return query
    with taken as (
      update sluice.alert_delivery d set lease_until = clock_timestamp() + p_lease, tries = d.tries + 1
      from (select x.alert_id, x.name from sluice.alert_delivery x
            where x.sent_at is null and x.given_up_at is null and x.due_at <= clock_timestamp() and x.lease_until <= clock_timestamp() and x.name = any (p_names)
            order by x.due_at limit p_limit for update skip locked) y
      where d.alert_id = y.alert_id and d.name = y.name returning d.alert_id, d.name, d.tries
    )
    select t.alert_id, t.name, t.tries, a.occasion, a.subject, a.message, a.raised_at from taken t join sluice.alert a on a.id = t.alert_id order by a.id;
end $$;

-- What became of a delivery; a null error: it arrived. After a day it is given up. False: the lease was another's by then.
create function sluice.settle_delivery(p_alert bigint, p_name text, p_tries integer, p_error text, p_pause interval) returns boolean
language plpgsql set search_path = pg_catalog, sluice, pg_temp as $$
begin
  update sluice.alert_delivery d set error = p_error, lease_until = '-infinity', due_at = clock_timestamp() + p_pause,
    sent_at = case when p_error is null then clock_timestamp() end,
    given_up_at = case when p_error is not null and a.raised_at < clock_timestamp() - interval '1 day' then clock_timestamp() end
  from sluice.alert a where a.id = p_alert and d.alert_id = p_alert and d.name = p_name and d.tries = p_tries and d.sent_at is null;
  if not found then
    return false;
  end if;
  if p_error is null then
    update sluice.alert a set told_at = clock_timestamp()
    where a.id = p_alert and a.told_at is null and not exists (select from sluice.alert_delivery d where d.alert_id = p_alert and d.sent_at is null and d.given_up_at is null);
  end if;
  return true;
end $$;

revoke all on table sluice.alert_delivery, sluice.alert_letter from public;
revoke all on function sluice.raise_alerts(), sluice.take_deliveries(text[], jsonb, interval, integer), sluice.settle_delivery(bigint, text, integer, text, interval) from public;
do $$
declare role_name text;
begin
  foreach role_name in array array['sluice_read', 'sluice_admin'] loop
    if exists (select from pg_roles where rolname = role_name) then
      execute format('grant select on sluice.alert_delivery, sluice.alert_letter to %I', role_name);
    end if;
  end loop;
end $$;
