-- Webhook events: kept as they came before anybody reads them, with what was made of them. Who receives them, and CRM's channels.

create sequence sluice.event_id_seq as bigint;

-- One row per event that arrived, but for those that `enforce` refused: of them only the last twenty of a source stand here. A plain table, not
-- partitioned by day: events are looked up by id and changed once or twice, and there are few of them beside attempts. Upkeep deletes the old ones.
create table sluice.event (
  id           bigint      not null default nextval('sluice.event_id_seq'),
  source       text        not null,                          -- [webhooks.SOURCE]
  connection   text        not null,
  received_at  timestamptz not null default clock_timestamp(),
  remote       inet,                                          -- the sender, behind proxies that the configuration trusts
  method       text        not null,
  headers      jsonb       not null,                          -- secrets masked, here and in the query
  query        jsonb       not null,
  body         bytea       not null,                          -- the bytes that came, but for our secret, where they carry it
  verdict      text        not null,
  mode         text        not null,                          -- of the source, at that time
  outcome      text,                                          -- null: stored, and decided when the record's run under way has ended
  reason       text,
  sync         text,
  module       text,                                          -- these as the event names them
  operation    text,
  zoho_ids     text[]      not null default '{}',
  modified_at  timestamptz,                                   -- the record's own modified time, where the event carries the record
  occurred_at  timestamptz,                                   -- when Zoho says that it happened
  affected     jsonb,                                         -- {"<zoho id>": ["<field>"], "*": ["<field>"]}: the fields that changed, not their values
  dedupe_key   text,                                          -- null: nothing tells this event from another
  duplicate_of bigint,
  jobs         bigint[]    not null default '{}',
  decide_at    timestamptz,                                   -- when an event without outcome is looked at again
  constraint event_pkey primary key (id),
  constraint event_verdict_check check (verdict in ('verified', 'unsigned', 'bad_signature')),
  constraint event_mode_check check (mode in ('observe', 'quarantine', 'enforce')),
  constraint event_outcome_check check (outcome in
    ('applied', 'duplicate', 'echo', 'ignored', 'quarantined', 'unknown_record', 'refused', 'failed')),
  constraint event_decide_at_check check ((outcome is null) = (decide_at is not null))
) with (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 5000);
alter sequence sluice.event_id_seq owned by sluice.event.id;
-- The age is what retention and alerts ask for.
create index event_received_at_idx on sluice.event (received_at);
-- The timeline of a record starts from its sync.
create index event_sync_idx on sluice.event (sync, received_at) where sync is not null;
create index event_refused_idx on sluice.event (source, id) where outcome = 'refused';
create index event_decide_at_idx on sluice.event (decide_at) where decide_at is not null;

-- Events that were acted on, by what tells them apart: the same one again leads to nothing. A table of its own, since a key counts for
-- a time only, and since an event that nobody vouches for must not keep the genuine one out.
create table sluice.event_seen (
  source     text        not null,
  dedupe_key text        not null,
  event_id   bigint      not null,
  seen_at    timestamptz not null default clock_timestamp(),
  constraint event_seen_pkey primary key (source, dedupe_key)
) with (fillfactor = 80, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 5000);
create index event_seen_seen_at_idx on sluice.event_seen (seen_at);

-- How many events of a source were refused, since only the last twenty are kept.
create table sluice.event_refusal (
  source   text        not null,
  verdict  text        not null,
  refused  bigint      not null default 0,
  first_at timestamptz not null default clock_timestamp(),
  last_at  timestamptz not null default clock_timestamp(),
  constraint event_refusal_pkey primary key (source, verdict)
) with (fillfactor = 20);

-- Which of the records that an event names are to be read, in which slots (as aim_pull finds them), and whether that can be said yet. An event is our own echo where it tells nothing
-- that the link does not know: by the record's modified time where it carries the record, and otherwise by the time and the fields of our last
-- write. Zoho's own notes on a write (who, when) count as among the fields written. While a run of the record is under way nothing can be said:
-- what it writes stands in the link only when it has settled; nor while a create is, whose Zoho id nobody knows yet. A delete is no echo.
create function sluice.weigh_event(e sluice.event, out reads text[], out keys text[], out echoes integer, out unsettled boolean)
language plpgsql stable set search_path = pg_catalog, sluice, pg_temp
set enable_seqscan = off set enable_bitmapscan = off set jit = off as $$
declare
  l sluice.link;
  id text;
  fields text[];
begin
  reads := '{}';
  keys := '{}';
  echoes := 0;
  unsettled := false;
  foreach id in array e.zoho_ids loop
    select * into l from sluice.link k where k.sync = e.sync and k.zoho_id = id;
    if not found then
      reads := reads || id;
      keys := keys || ('zoho:' || id);
      unsettled := unsettled or exists (select from sluice.slot s where s.batch is not null and s.sync = e.sync and s.create_intent);
      continue;
    end if;
    if e.affected is not null then
      fields := array(select jsonb_array_elements_text(coalesce(e.affected -> id, '[]') || coalesce(e.affected -> '*', '[]')));
    end if;
    if coalesce(coalesce(e.operation, '') !~* 'delete' and (
         l.zoho_modified_at >= e.modified_at
         or l.zoho_modified_at > e.occurred_at and e.modified_at is null
         or e.occurred_at between l.write_sent_at and l.write_answered_at + interval '2 s'
            and (cardinality(fields) > 0 or e.operation in ('insert', 'create'))
            and coalesce(fields, '{}') <@ (l.write_fields || '{Modified_Time,Modified_By,Last_Activity_Time,Created_Time,Created_By}')), false) then
      echoes := echoes + 1;
    else
      reads := reads || id;
      keys := keys || l.key;
      unsettled := unsettled or exists (select from sluice.slot s where s.sync = e.sync and s.key = l.key and s.state = 'running');
    end if;
  end loop;
end $$;

-- What becomes of an event that may be acted on. It never fails: what the jobs' check refuses stands as the event's outcome.
create function sluice.decide_event(e sluice.event) returns sluice.event
language plpgsql set search_path = pg_catalog, sluice, pg_temp as $$
declare
  y sluice.sync;
  w record;
  shape bigint;
begin
  e.decide_at := null;
  select * into y from sluice.sync where name = e.sync;
  select h.id into shape from sluice.shape h where h.sync = e.sync and h.kind = 'pull';
  if y.name is null or y.retired_at is not null or shape is null and y.direction <> 'push' then
    e.outcome := 'failed';
    e.reason := format('sync "%s" is not published', e.sync);
    return e;
  elsif y.direction = 'push' then
    e.outcome := 'ignored';
    e.reason := format('sync "%s" only pushes', e.sync);
    return e;
  end if;
  begin
    select * into w from sluice.weigh_event(e);
    if w.unsettled and e.received_at > clock_timestamp() - interval '90 s' then
      e.decide_at := clock_timestamp() + interval '250 ms';
      return e;
    end if;
    if cardinality(w.reads) = 0 then
      e.outcome := 'echo';
      e.reason := 'it tells nothing that is not known already';
      return e;
    end if;
    -- whole, as producers insert: the check of others' rows costs ten times as much
    with asked as (
      insert into sluice.job (kind, args, lane, run_at, shape_id, sync, key)
      select 'pull', jsonb_build_object('sync', e.sync, 'zoho_id', r), 'realtime', clock_timestamp(), shape, e.sync, k from unnest(w.reads, w.keys) t (r, k)
      returning id
    )
    select array_agg(id) into e.jobs from asked;
    e.outcome := 'applied';
    e.reason := case when w.echoes > 0 then format('%s of %s records are known already', w.echoes, w.echoes + cardinality(w.reads)) end;
  exception when others then
    e.outcome := 'failed';
    e.reason := sqlerrm;
    e.jobs := '{}';
  end;
  return e;
end $$;

-- Stores an event together with the jobs that it leads to. `p_event` has the columns by name; an `outcome` in it stands. An event that was acted
-- on before, within `p_window`, is a duplicate. `waits`: it is decided later, by decide_waiting.
create function sluice.store_event(p_event jsonb, p_body bytea, p_window interval, out id bigint, out outcome text, out waits boolean)
language plpgsql set search_path = pg_catalog, sluice, pg_temp as $$
declare
  e sluice.event := jsonb_populate_record(null::sluice.event, p_event);
begin
  e.id := nextval('sluice.event_id_seq');
  e.received_at := clock_timestamp();
  e.body := p_body;
  e.jobs := '{}';
  if e.outcome is null and e.dedupe_key is not null then
    insert into sluice.event_seen as s (source, dedupe_key, event_id) values (e.source, e.dedupe_key, e.id)
    on conflict on constraint event_seen_pkey do update set event_id = excluded.event_id, seen_at = excluded.seen_at
      where s.seen_at < clock_timestamp() - p_window;
    if not found then
      select s.event_id into e.duplicate_of from sluice.event_seen s where s.source = e.source and s.dedupe_key = e.dedupe_key;
      e.outcome := 'duplicate';
      e.reason := format('the same as event %s', e.duplicate_of);
    end if;
  end if;
  if e.outcome is null then
    e := sluice.decide_event(e);
    if e.outcome = 'failed' then                                  -- sent again, it may succeed
      delete from sluice.event_seen s where s.source = e.source and s.dedupe_key = e.dedupe_key;
    end if;
  end if;
  insert into sluice.event select e.*;
  id := e.id;
  outcome := e.outcome;
  waits := e.decide_at is not null;
end $$;

-- Counts an event that is refused, and keeps it among the last twenty of its source. Nothing of it is acted on.
create function sluice.refuse_event(p_event jsonb, p_body bytea) returns void
language plpgsql set search_path = pg_catalog, sluice, pg_temp as $$
declare
  e sluice.event := jsonb_populate_record(null::sluice.event, p_event);
begin
  e.id := nextval('sluice.event_id_seq');
  e.received_at := clock_timestamp();
  e.body := p_body;
  e.jobs := '{}';
  e.outcome := 'refused';
  insert into sluice.event select e.*;
  insert into sluice.event_refusal as r (source, verdict, refused) values (e.source, e.verdict, 1)
  on conflict on constraint event_refusal_pkey do update set refused = r.refused + 1, last_at = clock_timestamp();
  delete from sluice.event v where v.id = any (array(
    select x.id from sluice.event x where x.source = e.source and x.outcome = 'refused' order by x.id desc offset 20 for update skip locked));
end $$;

-- Decides events that waited for a run to end, at most 500, the oldest first. Any producer may; `next_at` is when to look again, if anything waits.
create function sluice.decide_waiting(out decided integer, out next_at timestamptz)
language plpgsql set search_path = pg_catalog, sluice, pg_temp set enable_seqscan = off set enable_bitmapscan = off as $$
declare
  e sluice.event;
begin
  decided := 0;
  for e in select v.* from sluice.event v where v.decide_at <= clock_timestamp() order by v.decide_at limit 500 for update skip locked loop
    e := sluice.decide_event(e);
    update sluice.event v set outcome = e.outcome, reason = e.reason, jobs = e.jobs, decide_at = e.decide_at where v.id = e.id;
    if e.outcome = 'failed' then
      delete from sluice.event_seen s where s.source = e.source and s.dedupe_key = e.dedupe_key;
    end if;
    decided := decided + (e.outcome is not null)::integer;
  end loop;
  select min(v.decide_at) into next_at from sluice.event v where v.decide_at is not null;
end $$;

-- The records that an event names, as a job of kind `apply` reads them.
create function sluice.event_jobs(event_id bigint) returns table (sync text, zoho_id text)
language sql stable set search_path = pg_catalog, sluice, pg_temp as $$
  select distinct v.sync, n.zoho_id from sluice.event v cross join unnest(v.zoho_ids) n (zoho_id) where v.id = $1 and v.sync is not null
$$;

-- Acts on a stored event, whatever became of it before: what it names is read. `sync` stands in for one that the event was stored without.
-- Answers the job.
create function sluice.replay_event(event_id bigint, lane text default 'interactive', sync text default null) returns bigint
language plpgsql security definer set search_path = pg_catalog, sluice, pg_temp as $$
declare
  e sluice.event;
  job bigint;
begin
  select v.* into e from sluice.event v where v.id = $1 for update;
  if not found then
    raise exception using errcode = '02000', message = format('there is no event %s', $1);
  end if;
  e.sync := coalesce(e.sync, $3);
  if e.sync is null or cardinality(e.zoho_ids) = 0 then
    raise exception using errcode = '22023', message = format('event %s names no record of a sync', $1), hint = coalesce(e.reason, '');
  end if;
  update sluice.event v set sync = e.sync where v.id = $1;
  insert into sluice.job (kind, args, lane) values ('apply', jsonb_build_object('event_id', $1), $2) returning id into job;
  update sluice.event v set outcome = 'applied', reason = format('replayed by %s', session_user), decide_at = null, jobs = v.jobs || job where v.id = $1;
  return job;
end $$;

-- What `enforce` would refuse, and what it has refused, by source.
create view sluice.event_report as
  select t.source, t.verdict, sum(t.events)::bigint as events, sum(t.refused)::bigint as refused, max(t.last_at) as last_at
  from (select v.source, v.verdict, count(*) as events, 0 as refused, max(v.received_at) as last_at
        from sluice.event v where v.outcome is distinct from 'refused' group by 1, 2
        union all
        select r.source, r.verdict, 0, r.refused, r.last_at from sluice.event_refusal r) t
  group by 1, 2;

-- Which producers receive webhooks. One that says nothing for 20 s, or stops, receives none: if nobody else did meanwhile, or if it went without a
-- word, events may have been lost.
create table sluice.receiver (
  name       text        not null,                            -- random, of one process
  seen_at    timestamptz not null default clock_timestamp(),
  stopped_at timestamptz,
  constraint receiver_pkey primary key (name)
) with (fillfactor = 50);

-- Notes that a producer receives, or that it stops, and sweeps what may have been lost before: a `poll` of these syncs, which goes on from where
-- the last one ended. Answers how many syncs are swept. The very first producer sweeps nothing.
create function sluice.note_receiver(p_name text, p_syncs text[], p_stops boolean) returns integer
language plpgsql set search_path = pg_catalog, sluice, pg_temp as $$
declare
  silence constant interval := '20 s';
  now_ constant timestamptz := clock_timestamp();
  gap boolean;
  gone boolean;
begin
  if p_stops then
    update sluice.receiver set stopped_at = now_, seen_at = now_ where name = p_name;
    return 0;
  end if;
  select r.stopped_at is not null or r.seen_at < now_ - silence into gap from sluice.receiver r where r.name = p_name;
  if gap is distinct from false then                              -- it begins, or it was away: does anybody else receive?
    gap := exists (select from sluice.receiver)
      and (gap or not exists (select from sluice.receiver r where r.name <> p_name and r.stopped_at is null and r.seen_at >= now_ - silence));
  end if;
  insert into sluice.receiver as r (name, seen_at) values (p_name, now_)
  on conflict on constraint receiver_pkey do update set seen_at = excluded.seen_at, stopped_at = null;
  update sluice.receiver r set stopped_at = r.seen_at where r.name <> p_name and r.stopped_at is null and r.seen_at < now_ - silence;
  gone := found;
  delete from sluice.receiver r where r.stopped_at < now_ - interval '1 day' and r.name <> p_name
    and exists (select from sluice.receiver o where o.seen_at > r.seen_at);
  return case when gap or gone then sluice.poll_gap(p_syncs, false) else 0 end;
end $$;

-- Asks for a poll of each of these syncs that pulls; with `p_known` only of those that were polled before.
create function sluice.poll_gap(p_syncs text[], p_known boolean) returns integer
language plpgsql set search_path = pg_catalog, sluice, pg_temp as $$
declare
  asked integer;
begin
  insert into sluice.job (kind, args, lane)
  select distinct on (y.name) 'poll', jsonb_build_object('sync', y.name), 'realtime'
  from sluice.sync y
  where y.name = any (p_syncs) and y.retired_at is null and y.direction <> 'push'
    and (not p_known or exists (select from sluice.poll_cursor c where c.sync = y.name and c.since is not null));
  get diagnostics asked = row_count;
  return asked;
end $$;

-- CRM's notification channels (a week at most, then they are gone), one for each webhook with `verify = "crm-token"`. Producers say what is wanted
-- and ask for a job when it is time; a worker calls Zoho. The row is what makes that happen once.
create table sluice.channel (
  source      text        not null,
  connection  text        not null,
  syncs       text[]      not null,
  events      text[]      not null,                           -- Deals.all
  notify_url  text        not null,
  token_hash  text        not null,                           -- the token itself is the webhook's secret, in the configuration
  channel_id  bigint,                                         -- ours; kept before it is first sent
  state       text        not null default 'wanted',
  error       text,
  expires_at  timestamptz,                                    -- null: it was never open
  renew_at    timestamptz not null default clock_timestamp(),
  asked_until timestamptz,                                    -- a job is under way; nobody else asks for one before this
  constraint channel_pkey primary key (source),
  constraint channel_state_check check (state in ('wanted', 'open', 'failed'))
);

insert into sluice.job_kind (name, built_in, product, args) values
  ('channel', true, 'crm', '{"connection": {"type": "connection", "required": true}, "source": {"type": "string", "required": true}}');

-- Says what channel a webhook wants, and asks for a job if there is none such or if it is time to renew it. True: it asked.
create function sluice.want_channel(p_source text, p_connection text, p_syncs text[], p_events text[], p_notify_url text, p_token_hash text) returns boolean
language plpgsql set search_path = pg_catalog, sluice, pg_temp as $$
begin
  insert into sluice.channel as c (source, connection, syncs, events, notify_url, token_hash)
  values (p_source, p_connection, p_syncs, p_events, p_notify_url, p_token_hash)
  on conflict on constraint channel_pkey do update set
    connection = excluded.connection, syncs = excluded.syncs, events = excluded.events, notify_url = excluded.notify_url, token_hash = excluded.token_hash,
    state = 'wanted', renew_at = clock_timestamp(), asked_until = null
    where (c.connection, c.syncs, c.events, c.notify_url, c.token_hash) is distinct from
      (excluded.connection, excluded.syncs, excluded.events, excluded.notify_url, excluded.token_hash);
  insert into sluice.shape (connection, product, kind, batch_max)
  select p.connection, p.product, 'channel', 1 from sluice.product p where p.connection = p_connection and p.product = 'crm'
  on conflict on constraint shape_key do nothing;
  update sluice.channel c set asked_until = clock_timestamp() + interval '1 hour'
  where c.source = p_source and c.renew_at <= clock_timestamp() and coalesce(c.asked_until, '-infinity') < clock_timestamp();
  if not found then
    return false;
  end if;
  insert into sluice.job (kind, args, lane) values ('channel', jsonb_build_object('connection', p_connection, 'source', p_source), 'realtime');
  return true;
end $$;

-- A channel is open until `p_expires_at`. Where events may have been lost before, since Zoho did not know it (any more) or sent what we no longer
-- take, its syncs are polled; those of a first channel only if they were polled before.
create function sluice.open_channel(p_source text, p_channel_id bigint, p_expires_at timestamptz, p_created boolean) returns integer
language plpgsql set search_path = pg_catalog, sluice, pg_temp as $$
declare
  c sluice.channel;
begin
  select * into c from sluice.channel where source = p_source for update;
  if not found then
    return 0;
  end if;
  update sluice.channel set state = 'open', error = null, channel_id = p_channel_id, expires_at = p_expires_at, asked_until = null,
    renew_at = clock_timestamp() + (p_expires_at - clock_timestamp()) / 2
  where source = p_source;
  return case when p_created or c.state = 'wanted' then sluice.poll_gap(c.syncs, c.expires_at is null) else 0 end;
end $$;

revoke all on sluice.event, sluice.event_seen, sluice.event_refusal, sluice.event_report, sluice.receiver, sluice.channel from public;
revoke all on sequence sluice.event_id_seq from public;
revoke all on function sluice.weigh_event(sluice.event), sluice.decide_event(sluice.event), sluice.store_event(jsonb, bytea, interval), sluice.refuse_event(jsonb, bytea),
  sluice.decide_waiting(), sluice.event_jobs(bigint), sluice.replay_event(bigint, text, text), sluice.note_receiver(text, text[], boolean), sluice.poll_gap(text[], boolean),
  sluice.want_channel(text, text, text[], text[], text, text), sluice.open_channel(text, bigint, timestamptz, boolean) from public;
do $$
declare role_name text;
begin
  foreach role_name in array array['sluice_read', 'sluice_admin'] loop
    if exists (select from pg_roles where rolname = role_name) then
      execute format('grant select on sluice.event, sluice.event_seen, sluice.event_refusal, sluice.event_report, sluice.receiver, sluice.channel to %I', role_name);
    end if;
  end loop;
  if exists (select from pg_roles where rolname = 'sluice_admin') then
    grant execute on function sluice.replay_event(bigint, text, text) to sluice_admin;
  end if;
end $$;
