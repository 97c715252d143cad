-- What comes from Zoho: how far each sync has looked, what it saw there, runs and their sums, conflicts.

insert into sluice.job_kind (name, built_in, args) values
  ('pull', true, '{"sync": {"type": "sync", "required": true}, "zoho_id": {"type": "zoho_id", "required": false}, "key": {"type": "key", "required": false},
    "seen": {"type": "boolean", "required": false}}'),            -- a list has just shown the record: what it showed will do
  ('poll', true, '{"sync": {"type": "sync", "required": true}, "full": {"type": "boolean", "required": false}, "run_id": {"type": "number", "required": false}}'),
  ('apply', true, '{"event_id": {"type": "number", "required": true}}');

-- How far a sync has looked at its module. `since` is Zoho's own time of the newest change that was taken over; a walk that is under way keeps
-- its place in `walk`, so that a worker that dies costs one page.
create table sluice.poll_cursor (
  sync          text        not null,
  since         timestamptz,                                  -- null: nothing was looked at yet, so everything is
  walk          jsonb,
  deleted_since timestamptz,                                  -- where the module has a list of deleted records
  polled_at     timestamptz,                                  -- when a walk last came to its end
  constraint poll_cursor_pkey primary key (sync)
) with (fillfactor = 50);

-- A Zoho record as it was read, until a run has acted on it: what a poll found, and what a run had read before it was refused the call to write.
-- It saves the run the reading of it. A null record: Zoho has none with this id (any more).
create table sluice.sighting (
  sync        text        not null,
  zoho_id     text        not null,
  record      jsonb,
  complete    boolean     not null,                           -- false: a list's row, which lacks fields; those are unknown, not empty
  seen_at     timestamptz not null,                           -- before the request was sent: older than anything that it does not show
  dated       timestamptz,                                    -- when Zoho answered, by its own clock
  run_id      bigint,
  constraint sighting_pkey primary key (sync, zoho_id)
) with (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000);

-- One run over many records: a poll, a backfill, a reconcile, a trigger.
create table sluice.run (
  id          bigint      generated always as identity,
  kind        text        not null,
  sync        text        not null,
  state       text        not null default 'running',
  total       bigint      not null default 0,
  created     bigint      not null default 0,
  updated     bigint      not null default 0,
  unchanged   bigint      not null default 0,
  failed      bigint      not null default 0,
  messages    jsonb       not null default '[]',              -- of what failed, the first twenty
  calls       bigint      not null default 0,                 -- to list, and to read and write what it found; a call for records of several runs counts for the last
  asked_by    text        not null default session_user,
  started_at  timestamptz not null default clock_timestamp(),
  finished_at timestamptz,
  constraint run_pkey primary key (id),
  constraint run_kind_check check (kind in ('poll', 'backfill', 'reconcile', 'trigger')),
  constraint run_state_check check (state in ('running', 'done', 'failed', 'held'))
) with (fillfactor = 70);
create index run_sync_idx on sluice.run (sync, id);

-- A field that changed on both sides and whose policy leaves it to a person, or that flaps between them. Nothing is written to it on either side until then.
create table sluice.conflict (
  id               bigint      generated always as identity,
  sync             text        not null,
  key              text        not null,
  zoho_id          text,
  field            text        not null,
  base             jsonb,                                     -- {"local": …, "zoho": …}: the pair last agreed on; null: there was none
  local            jsonb,
  zoho             jsonb,
  local_changed_at timestamptz,
  zoho_modified_at timestamptz,
  reason           text        not null,
  flapping         boolean     not null default false,        -- the loop breaker parked it: what one side wrote the other changed, again and again
  resolution       text,
  resolved_by      text,
  resolved_at      timestamptz,
  applied_at       timestamptz,                               -- when a run has carried the resolution out
  created_at       timestamptz not null default clock_timestamp(),
  constraint conflict_pkey primary key (id),
  constraint conflict_resolution_check check (resolution in ('local', 'zoho', 'superseded'))
);
create unique index conflict_open_key on sluice.conflict (sync, key, field) where resolution is null;
create index conflict_unapplied_idx on sluice.conflict (sync, key) where resolution in ('local', 'zoho') and applied_at is null;

-- A pull that is to be applied to the application's own row. Null: a writeback.
alter table sluice.local_write add column pull jsonb;

-- Points a job at its record: the slot of the linked key, else one of its own under `zoho:<id>`, which no key may be called.
create function sluice.aim_pull(p_sync sluice.sync, p_zoho_id text) returns text
language sql stable set search_path = pg_catalog, sluice, pg_temp as $$
  select coalesce((select l.key from sluice.link l where l.sync = p_sync.name and l.zoho_id = p_zoho_id), 'zoho:' || p_zoho_id)
$$;

-- An event leads to the `pull` of each record that it names: the first one's is the `apply` job itself, the others get jobs of their own.
-- Answers the sync and the first Zoho id.
create function sluice.aim_apply(p_event bigint, p_lane text, p_run_at timestamptz, out sync text, out zoho_id text)
language plpgsql set search_path = pg_catalog, sluice, pg_temp as $$
declare
  e record;
begin
  select v.sync, v.zoho_ids into e from sluice.event v where v.id = p_event;
  if not found then
    raise exception using errcode = '22023', message = format('there is no event %s', p_event);
  elsif e.sync is null or coalesce(cardinality(e.zoho_ids), 0) = 0 then
    raise exception using errcode = '22023', message = format('event %s names no record of a sync', p_event), hint = 'sluice events show tells what it says';
  end if;
  insert into sluice.job (kind, args, lane, run_at)
  select 'pull', jsonb_build_object('sync', e.sync, 'zoho_id', id), p_lane, p_run_at from unnest(e.zoho_ids[2:]) id;
  sync := e.sync;
  zoho_id := e.zoho_ids[1];
end $$;

-- A person decides a conflict. The record's next run, which this asks for, carries it out.
create function sluice.resolve(conflict_id bigint, side text) returns void
language plpgsql security definer set search_path = pg_catalog, sluice, pg_temp as $$
declare
  c sluice.conflict;
begin
  if side not in ('local', 'zoho') or side is null then
    raise exception using errcode = '22023', message = 'a conflict is resolved as "local" or "zoho"';
  end if;
  select * into c from sluice.conflict where id = conflict_id for update;
  if not found then
    raise exception using errcode = '22023', message = format('there is no conflict %s', conflict_id);
  elsif c.resolution is not null then
    raise exception using errcode = '22023', message = format('conflict %s was resolved already: %s', conflict_id, c.resolution);
  end if;
  update sluice.conflict set resolution = side, resolved_by = session_user, resolved_at = clock_timestamp() where id = conflict_id;
  insert into sluice.job (kind, args, lane) values ('pull', jsonb_build_object('sync', c.sync, 'key', c.key), 'interactive');
end $$;

-- Adds to a run's sums; the first twenty messages are kept.
create function sluice.note_run(p_run bigint, p_total bigint, p_created bigint, p_updated bigint, p_unchanged bigint, p_failed bigint, p_messages jsonb,
  p_calls bigint default 0) returns void
language sql set search_path = pg_catalog, sluice, pg_temp as $$
  update sluice.run set total = total + p_total, created = created + p_created, updated = updated + p_updated, unchanged = unchanged + p_unchanged,
    failed = failed + p_failed, calls = calls + p_calls,
    messages = case when jsonb_array_length(messages) >= 20 then messages
      else (select coalesce(jsonb_agg(m), '[]') from (select m from jsonb_array_elements(messages || p_messages) m limit 20) t) end
  where id = p_run
$$;

revoke all on sluice.poll_cursor, sluice.sighting, sluice.run, sluice.conflict from public;
revoke all on function sluice.aim_pull(sluice.sync, text), sluice.aim_apply(bigint, text, timestamptz), sluice.resolve(bigint, text),
  sluice.note_run(bigint, bigint, bigint, bigint, bigint, bigint, jsonb, bigint) from public;
do $$
declare role_name text;
begin
  foreach role_name in array array['sluice_read', 'sluice_admin'] loop
    if exists (select from pg_roles where rolname = role_name) then
      execute format('grant select on sluice.poll_cursor, sluice.sighting, sluice.run, sluice.conflict to %I', role_name);
    end if;
  end loop;
  if exists (select from pg_roles where rolname = 'sluice_admin') then
    grant execute on function sluice.resolve(bigint, text) to sluice_admin;
  end if;
end $$;
