-- What happens to a row that somebody inserts: it is checked, made canonical, and folded into its record's slot when it is due.

-- These two are without search_path so that they are inlined.
create function sluice.lane_rank(p_lane text) returns smallint
language sql immutable parallel safe as $$
  select case p_lane when 'interactive' then 0 when 'realtime' then 1 when 'normal' then 2 when 'reconcile' then 3 when 'backfill' then 4 end::smallint
$$;

create function sluice.lane_name(p_rank smallint) returns text
language sql immutable parallel safe as $$
  select (array['interactive', 'realtime', 'normal', 'reconcile', 'backfill'])[p_rank + 1]
$$;

-- A key as the key columns' own types print it, so that `042` and `42`, or a UUID in any case, are one record. Several columns: a JSON
-- array of their texts, in the order of the sync's `key`. Types that print equal values differently have one form here, which is the one
-- that rows' own keys are read in (shared/sync/src/read/key.rs).
create function sluice.canonical_key(p_sync text, p_key jsonb) returns text
language plpgsql stable set search_path = pg_catalog, sluice, pg_temp
-- a date or a time must not look different because of the caller's session; rows are read under the same settings
set datestyle = 'ISO, YMD' set timezone = 'UTC' set intervalstyle = 'iso_8601' set extra_float_digits = 1 set bytea_output = 'hex' as $$
declare
  y sluice.sync;
  given text[];
  one text;
  whole text;                                                     -- the type without its length or scale, where a cast to it loses nothing
  value text;
  fits boolean;
  canonical text[] := '{}';
begin
  select * into y from sluice.sync where name = p_sync;
  if not found then
    raise exception using errcode = '22023', message = format('unknown sync "%s"', p_sync);
  end if;
  if cardinality(y.key_columns) = 1 then
    if jsonb_typeof(p_key) not in ('string', 'number', 'boolean') then
      raise exception using errcode = '22023', message = format('the key of sync "%s" must be a string or a number', p_sync);
    end if;
    given := array[p_key #>> '{}'];
  else
    if jsonb_typeof(p_key) = 'string' then
      begin
        p_key := (p_key #>> '{}')::jsonb;
      exception when others then
        p_key := 'null';
      end;
    end if;
    if jsonb_typeof(p_key) <> 'array' or jsonb_array_length(p_key) <> cardinality(y.key_columns) then
      raise exception using errcode = '22023',
        message = format('the key of sync "%s" must be a JSON array of %s values: %s', p_sync, cardinality(y.key_columns), array_to_string(y.key_columns, ', '));
    end if;
    given := array(select e #>> '{}' from jsonb_array_elements(p_key) with ordinality as t (e, n) order by n);
  end if;
  for i in 1 .. cardinality(given) loop
    begin
      whole := case when y.key_types[i] like 'numeric(%' then 'numeric' when y.key_types[i] like 'character(%' then 'bpchar'
                    when y.key_types[i] like 'character varying(%' then 'text' else y.key_types[i] end;
      value := format('$1::%s', y.key_types[i]);
      value := case when y.key_types[i] = 'numeric' then format('trim_scale(%s)', value)
                    when y.key_types[i] = 'interval' then format('justify_interval(%s)', value)
                    when y.key_types[i] in ('real', 'double precision') then format('%s + ''0''::%s', value, y.key_types[i])
                    when y.key_types[i] ~ '(^|\.)citext$' then format('lower((%s)::text collate "default")', value)
                    else value end;
      execute format('select (%3$s)::text, ($1::%1$s)::%2$s = $1::%2$s', y.key_types[i], whole, value) into one, fits using given[i];
      if not fits then
        raise exception 'another value';
      end if;
    exception when others then
      raise exception using errcode = '22023',
        message = format('key %L does not fit %s.%s, which is %s', given[i], y.relation, y.key_columns[i], y.key_types[i]),
        hint = 'if the column has another type by now, "sluice attach" publishes it';
    end;
    if one is null then
      raise exception using errcode = '22023', message = format('the key of sync "%s" must not be null', p_sync);
    end if;
    canonical := canonical || one;
  end loop;
  one := case when cardinality(canonical) = 1 then canonical[1] else to_jsonb(canonical)::text end;
  -- an index entry holds 2,700 bytes: a longer one would be refused by the fold, with everything else that is folded with it
  if octet_length(one) > 1024 then
    raise exception using errcode = '22023', message = format('a key of sync "%s" may hold at most 1,024 bytes', p_sync);
  elsif one like 'zoho:%' then
    raise exception using errcode = '22023', message = format('key %L: keys that begin with "zoho:" stand for Zoho records without a row', one);
  end if;
  return one;
end $$;

-- A path that means what it says: one leading slash and nothing that a server or a proxy could read as another path.
create function sluice.path_is_plain(p_path text) returns boolean
language sql immutable parallel safe set search_path = pg_catalog, pg_temp set standard_conforming_strings = on as $$
  select p_path ~ '^/[^?#\\[:cntrl:][:space:]]*$' and p_path !~ '//' and p_path !~ '\.\.' and p_path !~* '%(2e|2f|5c|3f|23|25|0|1)'
$$;

-- Checked against tables, so that a wrong row fails in the statement that inserts it and not at night in a worker.
create function sluice.check_job() returns trigger
language plpgsql security definer set search_path = pg_catalog, sluice, pg_temp set standard_conforming_strings = on as $$
declare
  k sluice.job_kind;
  y sluice.sync;
  c sluice.connection;
  arg record;
  given jsonb;
  names text;
  keyed boolean := false;
  given_event record;
  runs_for text;                                                  -- the sync whose shape runs the job
begin
  select * into k from sluice.job_kind where name = new.kind;
  if not found then
    select string_agg(name, ', ' order by name) into names from sluice.job_kind;
    raise exception using errcode = '22023', message = format('unknown job kind "%s"', new.kind), hint = 'known kinds: ' || names;
  end if;
  if new.args is null or jsonb_typeof(new.args) <> 'object' then
    raise exception using errcode = '22023', message = format('args of a "%s" job must be a JSON object', new.kind);
  end if;
  if new.lane is not null and sluice.lane_rank(new.lane) is null then
    raise exception using errcode = '22023', message = format('unknown lane "%s"', new.lane), hint = 'lanes: interactive, realtime, normal, reconcile, backfill';
  end if;
  if new.max_failures not between 1 and 1000 then
    raise exception using errcode = '22023', message = format('max_failures must be from 1 to 1000, not %s', new.max_failures), hint = 'leave it out for that of the configuration ([retry])';
  end if;

  for arg in select a.key as name, a.value ->> 'type' as type, (a.value ->> 'required')::boolean as required from jsonb_each(k.args) a
             order by a.value ->> 'type' <> 'sync', a.key loop       -- the sync first: its key is read with it
    given := new.args -> arg.name;
    if given is null or given = 'null' then
      if arg.required then
        raise exception using errcode = '22023', message = format('a "%s" job needs "%s" in its args', new.kind, arg.name);
      end if;
      continue;
    end if;
    if arg.type in ('string', 'sync', 'connection', 'product', 'method', 'path', 'zoho_id') and jsonb_typeof(given) <> 'string'
       or arg.type = 'object' and jsonb_typeof(given) <> 'object'
       or arg.type = 'number' and jsonb_typeof(given) <> 'number'
       or arg.type = 'boolean' and jsonb_typeof(given) <> 'boolean' then
      raise exception using errcode = '22023',
        message = format('"%s" in the args of a "%s" job must be %s, not %s', arg.name, new.kind,
          case when arg.type in ('object', 'number', 'boolean') then arg.type else 'a string' end, jsonb_typeof(given));
    end if;
    case arg.type
      when 'sync' then
        select * into y from sluice.sync where name = given #>> '{}';
        if not found then
          select string_agg(name, ', ' order by name) into names from sluice.sync where retired_at is null;
          raise exception using errcode = '22023', message = format('unknown sync "%s"', given #>> '{}'), hint = 'published syncs: ' || coalesce(names, 'none; run "sluice attach"');
        elsif y.retired_at is not null then
          raise exception using errcode = '22023', message = format('sync "%s" was retired', y.name);
        elsif new.kind = 'push' and y.direction = 'pull' then
          raise exception using errcode = '22023', message = format('sync "%s" only pulls', y.name);
        elsif new.kind in ('pull', 'poll') and y.direction = 'push' then
          raise exception using errcode = '22023', message = format('sync "%s" only pushes', y.name);
        end if;
        new.sync := y.name;
        new.lane := coalesce(new.lane, case when new.kind = 'reconcile' then 'reconcile' else y.lane end);
      when 'key' then
        new.key := sluice.canonical_key(y.name, given);
        keyed := true;
        new.args := jsonb_set(new.args, array[arg.name], to_jsonb(new.key));
      when 'zoho_id' then
        if given #>> '{}' !~ '^[!-~]{1,200}$' then
          raise exception using errcode = '22023', message = format('%L is no Zoho id', given #>> '{}');
        end if;
        continue when keyed;                                      -- both: the key says which
        new.key := sluice.aim_pull(y, given #>> '{}');
        keyed := true;
      when 'connection' then
        select * into c from sluice.connection where name = given #>> '{}';
        if not found or c.retired_at is not null then
          select string_agg(name, ', ' order by name) into names from sluice.connection where retired_at is null;
          raise exception using errcode = '22023', message = format('unknown connection "%s"', given #>> '{}'), hint = 'published connections: ' || coalesce(names, 'none; run "sluice attach"');
        end if;
      when 'product' then
        if given #>> '{}' not in ('crm', 'books', 'inventory', 'billing', 'fsm') then
          raise exception using errcode = '22023', message = format('unknown product "%s"', given #>> '{}'), hint = 'products: crm, books, inventory, billing, fsm';
        end if;
      when 'method' then
        if given #>> '{}' not in ('GET', 'POST', 'PUT', 'PATCH', 'DELETE') then
          raise exception using errcode = '22023', message = format('unknown method "%s"', given #>> '{}'), hint = 'methods: GET, POST, PUT, PATCH, DELETE';
        end if;
      when 'path' then
        if not sluice.path_is_plain(given #>> '{}') then
          raise exception using errcode = '22023', message = format('path %L must start with one "/" and hold no "//", "..", "\", "?", "#" or their encoded forms', given #>> '{}');
        end if;
      else
        null;
    end case;
  end loop;

  if k.args is not null then
    select string_agg(format('"%s"', a), ', ' order by a) into names from jsonb_object_keys(new.args) a where not k.args ? a;
    if names is not null then
      raise exception using errcode = '22023', message = format('a "%s" job has no %s in its args', new.kind, names),
        hint = 'it takes: ' || (select string_agg(a, ', ' order by a) from jsonb_object_keys(k.args) a);
    end if;
  end if;
  if new.kind = 'apply' then
    select * from sluice.aim_apply((new.args ->> 'event_id')::bigint, new.lane, new.run_at) into given_event;
    select * into y from sluice.sync where name = given_event.sync and retired_at is null and direction <> 'push';
    if not found then
      raise exception using errcode = '22023', message = format('event %s concerns no published sync that pulls', new.args ->> 'event_id');
    end if;
    new.sync := y.name;
    new.key := sluice.aim_pull(y, given_event.zoho_id);
    new.lane := coalesce(new.lane, 'realtime');
    keyed := true;
  elsif new.kind = 'pull' and not keyed then
    raise exception using errcode = '22023', message = 'a "pull" job needs "zoho_id" or "key" in its args';
  end if;
  runs_for := new.sync;
  if new.kind in ('poll', 'reconcile') then                       -- one at a time for a sync, in a slot of its own
    new.sync := '';
    new.key := new.kind || ':' || y.name;
    keyed := true;
    runs_for := y.name;
  end if;
  if octet_length(new.args ->> 'body') > 1048576 then
    raise exception using errcode = '22023', message = 'the body of a job may hold at most 1 MiB';
  elsif octet_length((new.args - 'body')::text) > 65536 then
    raise exception using errcode = '22023', message = 'the args of a job, but for the body, may hold at most 64 KiB';
  elsif not isfinite(new.run_at) then
    raise exception using errcode = '22023', message = 'run_at must be a time, not infinity';
  elsif new.run_at > clock_timestamp() + interval '10 years' then
    raise exception using errcode = '22023', message = format('run_at is more than ten years ahead: %s', new.run_at),
      hint = 'milliseconds taken for seconds, perhaps';
  end if;

  select s.id into new.shape_id from sluice.shape s
  where s.sync = runs_for and (s.kind = new.kind or new.kind in ('push', 'pull', 'apply') and s.kind in ('push', 'pull'))
    and (runs_for <> '' or s.connection = new.args ->> 'connection' and s.product = coalesce(new.args ->> 'product', k.product))
  limit 1;
  if new.shape_id is null then
    raise exception using errcode = '22023', message = format('no published connection can run this "%s" job', new.kind),
      hint = 'an own kind names its connection in args; "sluice attach" publishes the configuration';
  end if;
  if not keyed then                                               -- a key may well be the empty text
    new.sync := '';
    new.key := 'job:' || new.id;
  end if;
  new.lane := coalesce(new.lane, 'normal');
  new.run_at := coalesce(new.run_at, clock_timestamp());
  new.created_at := clock_timestamp();
  new.created_by := session_user;
  return new;
end $$;

-- Runs as the caller, which a security definer function cannot do: any request under our token is for administrators. The tables' owner is
-- one: `requeue`, which only administrators may execute, inserts as the owner.
create function sluice.check_call_right() returns trigger
language plpgsql set search_path = pg_catalog, pg_temp as $$
begin
  if new.kind = 'call' and not exists (
    select from pg_roles r
    where (r.rolname = 'sluice_admin' or r.oid = (select c.relowner from pg_class c where c.oid = tg_relid)) and pg_has_role(current_user, r.oid, 'member')
  ) then
    raise exception using errcode = '42501', message = format('role "%s" may not insert "call" jobs', current_user),
      hint = 'grant sluice_admin to it, or insert as a member of sluice_admin';
  end if;
  return new;
end $$;

create function sluice.job_arrived() returns trigger
language plpgsql security definer set search_path = pg_catalog, sluice, pg_temp as $$
begin
  perform sluice.wake_sleeper('job');
  return null;
end $$;

create trigger check_call_right before insert on sluice.job for each row when (new.kind = 'call') execute function sluice.check_call_right();
-- The check costs ten times what the insert does. A row that names its shape comes from a producer, which has made it whole; the roles that
-- others are given may not write that column.
create trigger check_job before insert on sluice.job for each row when (new.shape_id is null) execute function sluice.check_job();
create trigger job_arrived after insert on sluice.job for each statement execute function sluice.job_arrived();

-- Turns due jobs into work on their records' slots: any worker, its own short transaction, at most 1,000 jobs, the urgent first. Only rows
-- that are seen are taken; an older id may become visible after a newer one was settled. It waits for nobody: a job whose slot somebody
-- holds (a settle, or a `cancel` in an open transaction) stays for the next fold. One fold at a time: of two, one could find a slot that the
-- other has made since it looked, and wait for it while it holds slots that were to be had. It is one statement, so a worker that is stopped
-- in the middle keeps nobody out: the server finishes it.
create function sluice.fold(out folded integer, out next_run_at timestamptz)
language plpgsql set search_path = pg_catalog, sluice, pg_temp
set enable_seqscan = off set enable_bitmapscan = off set enable_mergejoin = off set jit = off as $$
declare
  now_ timestamptz := clock_timestamp();
  ids bigint[];
  held bigint[];
begin
  if not pg_try_advisory_xact_lock(hashtext('sluice.fold')) then
    folded := 0;
    next_run_at := now_ + interval '20 ms';
    return;
  end if;
  ids := array(select j.id from sluice.job j where j.run_at <= now_ and j.lane in ('interactive', 'realtime')
               order by j.run_at limit 1000 for update skip locked);
  if cardinality(ids) < 1000 then
    ids := ids || array(select j.id from sluice.job j where j.run_at <= now_ and (j.lane in ('interactive', 'realtime')) is not true
                        order by j.run_at limit 1000 - cardinality(ids) for update skip locked);
  end if;
  if cardinality(ids) > 0 then
    held := array(
      select s.id from (select distinct j.sync, j.key from sluice.job j where j.id = any (ids)) w join sluice.slot s using (sync, key) for update of s skip locked);
    ids := array(
      select j.id from sluice.job j where j.id = any (ids)
        and not exists (select from sluice.slot s where s.sync = j.sync and s.key = j.key and s.id <> all (held)));
  end if;
  folded := cardinality(ids);
  if folded > 0 then
    perform sluice.raise_slots(ids);
  end if;
  -- what could not be had just now is looked at again soon, not at once
  select case when isfinite(min(j.run_at)) then greatest(min(j.run_at), clock_timestamp() + interval '20 ms') end into next_run_at from sluice.job j;
end $$;

create function sluice.raise_slots(p_jobs bigint[]) returns void
language plpgsql set search_path = pg_catalog, sluice, pg_temp
set enable_seqscan = off set enable_bitmapscan = off set enable_mergejoin = off set jit = off as $$
begin
  with taken as (
    delete from sluice.job where id = any (p_jobs) returning *
  ), wanted as materialized (
    select sync, key, min(shape_id) as shape_id, min(kind) as kind, (array_agg(args order by id desc))[1] as args,
           min(sluice.lane_rank(lane)) as lane, min(run_at) as run_at, max(max_failures) as max_failures
    from taken group by sync, key
  ), raised as (
    insert into sluice.slot as s (sync, key, shape_id, kind, args, lane, due_at, not_before, max_failures)
    select w.sync, w.key, w.shape_id, w.kind, case when w.sync = '' then w.args end, w.lane,
           greatest(w.run_at, l.pushed_at + y.min_interval, l.hold_until), coalesce(l.hold_until, '-infinity'), w.max_failures
    from wanted w
    left join sluice.sync y on y.name = w.sync
    -- one probe per record, whatever the planner believes of a young table
    left join lateral (select pushed_at, hold_until from sluice.link where sync = w.sync and key = w.key limit 1) l on true
    order by w.sync, w.key
    on conflict (sync, key) do update set
      work = s.work + 1,
      shape_id = excluded.shape_id,
      max_failures = greatest(s.max_failures, excluded.max_failures),
      lane = case when s.state = 'available' then least(s.lane, excluded.lane) else s.lane end,
      due_at = case
        when s.state = 'running' then s.due_at
        when s.waiting_sync is not null then greatest(excluded.due_at, s.not_before)
        -- a backoff is not shortened by another edit, only by a person who asks for it now
        when s.tries > 0 and excluded.lane > 0 then s.due_at
        else greatest(least(s.due_at, excluded.due_at), s.not_before) end,
      waiting_sync = case when s.state = 'available' then null else s.waiting_sync end,
      waiting_key = case when s.state = 'available' then null else s.waiting_key end,
      next_lane = case when s.state = 'running' then least(s.next_lane, excluded.lane) end,
      next_due_at = case when s.state = 'running' then least(s.next_due_at, excluded.due_at) end
    returning s.id, s.sync, s.key, s.work
  )
  insert into sluice.slot_job (job_id, slot_id, work, kind, args, lane, run_at, max_failures, created_at, created_by)
  select t.id, r.id, r.work, t.kind, t.args, sluice.lane_rank(t.lane), t.run_at, t.max_failures, t.created_at, t.created_by
  from taken t join raised r on r.sync = t.sync and r.key = t.key;
end $$;
