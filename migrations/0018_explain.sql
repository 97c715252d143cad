-- One timeline of a record: what happened to it, what Sluice did or did not do, and why.

-- Of an attempt without a call: why there was none.
create function sluice.why_no_call(p_reason text) returns text
language sql immutable set search_path = pg_catalog, sluice, pg_temp as $$
  select case p_reason
    when 'no_change' then 'no mapped value differs from what was agreed on'
    when 'when_false' then 'the row does not match `when` and never came to Zoho'
    when 'never_created' then 'the row is gone and never came to Zoho'
    when 'delete_ignored' then 'the row is gone and `on_delete` is "ignore"'
    when 'already_withdrawn' then 'the record was marked or voided already'
    when 'held' then 'the row no longer matches `when`: Zoho''s record is left as it is'
    when 'looked_again' then 'a repeated create was looked up once more: there is one record'
    else p_reason end
$$;

-- The key of an image that capture kept, as it stands in links and jobs. Null: the image is of another kind.
create function sluice.key_form(p_text text, p_type text) returns text
language sql immutable set search_path = pg_catalog, sluice, pg_temp as $$
  select case when p_type = 'numeric' and p_text ~ '^-?[0-9]+\.[0-9]+$' then trim_scale(p_text::numeric)::text
              when p_type ~ '(^|\.)citext$' then lower(p_text collate "default") else p_text end
$$;

-- A captured key. Types that write equal values differently have their canonical form only where that needs no session's settings.
create function sluice.image_key(p_image jsonb, p_columns text[], p_types text[]) returns text
language sql immutable set search_path = pg_catalog, sluice, pg_temp as $$
  select case when cardinality(p_columns) = 1 then sluice.key_form(p_image ->> p_columns[1], p_types[1])
              else (select jsonb_agg(sluice.key_form(p_image ->> c, t) order by n)::text from unnest(p_columns, p_types) with ordinality as k (c, t, n)) end
$$;

-- Everything known of the record (sync, key) since then, by time. History has no index by record but for attempts: it is read by its days, so a longer
-- `since` costs more. `detail` is the row itself, with values masked as they are stored. A watched table's changes are seen as the jobs that they led to.
create function sluice.explain(sync text, key text, since timestamptz default now() - interval '7 days')
returns table (at timestamptz, what text, says text, detail jsonb)
language plpgsql stable set search_path = pg_catalog, sluice, pg_temp as $$
#variable_conflict use_column
declare
  y sluice.sync;
  own constant text := sluice.canonical_key($1, to_jsonb($2));
  linked sluice.link;
begin
  select s.* into y from sluice.sync s where s.name = $1;
  select l.* into linked from sluice.link l where l.sync = $1 and l.key = own;
  return query
    select e.* from (
      select * from sluice.explain_changes(y, own, $3)
      union all select * from sluice.explain_work($1, own, linked.zoho_id, $3)
      union all select * from sluice.explain_letters($1, own, $3)
      union all select * from sluice.explain_letters($1, 'zoho:' || linked.zoho_id, $3)          -- from before it had a row
      union all select * from sluice.explain_zoho($1, own, linked.zoho_id, $3)
      union all select * from sluice.explain_now($1, own)
    ) e (at, what, says, detail) order by e.at, array_position(array['change', 'event', 'held', 'job', 'attempt'], e.what);
end $$;

-- The same, of a Zoho record: of the record that it is linked to, or of what is known without one.
create function sluice.explain_zoho_id(sync text, zoho_id text, since timestamptz default now() - interval '7 days')
returns table (at timestamptz, what text, says text, detail jsonb)
language plpgsql stable set search_path = pg_catalog, sluice, pg_temp as $$
#variable_conflict use_column
declare
  own constant text := (select l.key from sluice.link l where l.sync = $1 and l.zoho_id = $2);
begin
  if own is not null then
    return query select * from sluice.explain($1, own, $3);
  else
    return query
      select e.* from (select * from sluice.explain_work($1, null, $2, $3) union all select * from sluice.explain_zoho($1, null, $2, $3)
                       union all select * from sluice.explain_letters($1, 'zoho:' || $2, $3)
                       union all select clock_timestamp(), 'now', format('no row is linked to Zoho record %s', $2), '{}'::jsonb) e (at, what, says, detail)
      order by e.at;
  end if;
end $$;

-- Changes of its row, and of each what came of it. A change and the job for it are written by one transaction, seconds apart at most.
create function sluice.explain_changes(y sluice.sync, own text, since timestamptz)
returns table (at timestamptz, what text, says text, detail jsonb)
language plpgsql stable set search_path = pg_catalog, sluice, pg_temp as $$
#variable_conflict use_column
begin
  return query
    with captured as (
      select c.operation, c.captured_at, c.consumed_at, c.before, c.after, c.kept, c.key, c.origin,
             sluice.changed_columns(case when c.changed is not null then array(select jsonb_array_elements_text(c.changed)) end, c.relid, c.touched, c.layout) as changed
      from (select o.* from sluice.changes_of(y.relation, own, since) o
            -- and those that say the key in another form: of a numeric without scale each has it as it was written
            union all select o.* from sluice.change_log o
            where y.key_types = array['numeric'] and o.relation = y.relation and o.consumed_at >= since and o.key <> own and sluice.key_form(o.key, 'numeric') = own) c
      where (c.operation = 'truncate' or coalesce(sluice.key_form(c.key, y.key_types[1]), sluice.image_key(c.after, y.key_columns, y.key_types)) = own or sluice.image_key(c.before, y.key_columns, y.key_types) = own)
      union all
      select c.operation, c.captured_at, null, c.before, c.after, c.kept, c.key, c.origin, sluice.changed_columns(c.changed, c.relid, c.touched, c.layout)
      from sluice.change c
      where c.relation = y.relation
        and (c.operation = 'truncate' or coalesce(sluice.key_form(c.key, y.key_types[1]), sluice.image_key(c.after, y.key_columns, y.key_types)) = own or sluice.image_key(c.before, y.key_columns, y.key_types) = own)
    ), asked as (
      select j.created_at from sluice.job_history j where j.finished_at >= since and j.sync = y.name and j.key = own
      union all select j.created_at from sluice.job j where j.sync = y.name and j.key = own
      union all select sj.created_at from sluice.slot_job sj join sluice.slot s on s.id = sj.slot_id where s.sync = y.name and s.key = own
    ), held as (
      select h.held_id, h.held_at, h.resolved_at from sluice.held_record h where h.sync = y.name and h.key = own
    )
    select c.captured_at, 'change',
           case c.operation when 'truncate' then format('%s was truncated', y.relation)
             when 'update' then format('row updated%s', coalesce(': ' || array_to_string(c.changed, ', '), ''))
             else format('row %s', case c.operation when 'insert' then 'inserted' else 'deleted' end) end
           || case when nullif(c.origin, '') is not null then format(' (by %s itself)', c.origin) else '' end
           || case when c.operation = 'truncate' then ': held for a person'
                when c.consumed_at is null then ': not looked at yet'
                when exists (select from held h where h.held_at < c.consumed_at + interval '30 s' and coalesce(h.resolved_at, 'infinity') > c.consumed_at) then ': held for a person'
                when exists (select from asked a where a.created_at between c.consumed_at - interval '1 s' and c.consumed_at + interval '30 s') then ''
                when c.operation = 'update' then ': no call, no mapped column or no mapped value differs from what was agreed on'
                else ': no call, nothing differs from what was agreed on' end,
           to_jsonb(c) - 'kept' - 'key'
    from captured c;
end $$;

-- What was asked for, what was done, and what is still to be done.
create function sluice.explain_work(sync text, own text, zoho_id text, since timestamptz)
returns table (at timestamptz, what text, says text, detail jsonb)
language plpgsql stable set search_path = pg_catalog, sluice, pg_temp as $$
#variable_conflict use_column
declare
  keys constant text[] := array[own] || coalesce('zoho:' || $3, null);
begin
  return query
    select j.created_at, 'job', format('%s asked for by %s, lane %s%s', j.kind, j.created_by, j.lane,
             case when j.run_at > j.created_at + interval '1 s' then format(', not before %s', to_char(j.run_at at time zone 'UTC', 'YYYY-MM-DD HH24:MI:SS "UTC"')) else '' end)
             || format(': %s at %s', j.result, to_char(j.finished_at at time zone 'UTC', 'YYYY-MM-DD HH24:MI:SS "UTC"')), to_jsonb(j)
    from sluice.job_history j where j.finished_at >= since and j.sync = $1 and j.key = any (keys)
    union all
    select j.created_at, 'job', format('%s asked for, lane %s: %s%s', j.kind, j.lane,
             case j.state when 'running' then 'running on ' || coalesce(j.lease_owner, '?') when 'available' then
               case when j.run_at = 'infinity' then 'waits for its parent' when j.run_at > clock_timestamp() then 'due at ' || to_char(j.run_at at time zone 'UTC', 'YYYY-MM-DD HH24:MI:SS "UTC"') else 'waits for a call' end end,
             coalesce('; last: ' || j.last_error, '')), to_jsonb(j)
    from sluice.job_status j where j.sync = $1 and j.key = any (keys)
    union all
    select a.at, 'attempt',
           case when a.calls = 0 then format('no call: %s', coalesce(sluice.why_no_call(a.reason), a.outcome))
             else format('%s: %s%s%s, %s call(s), %s ms', a.kind, a.outcome, coalesce(' (' || a.http_status || ')', ''), coalesce(', ' || a.reason, ''), a.calls, coalesce(a.ms, 0))
             || coalesce('; sent, and not in Zoho''s answer: ' || (select string_agg(f, ', ') from jsonb_array_elements_text(a.response -> 'not_kept') f), '') end,
           to_jsonb(a)
    from sluice.attempt a where a.sync = $1 and a.key = any (keys) and a.at >= since;
end $$;

-- What gave up or was held, and what people made of it.
create function sluice.explain_letters(sync text, own text, since timestamptz)
returns table (at timestamptz, what text, says text, detail jsonb)
language plpgsql stable set search_path = pg_catalog, sluice, pg_temp as $$
#variable_conflict use_column
begin
  return query
    select d.created_at, 'dead_letter', format('gave up, %s%s: %s', d.error_class, coalesce(' of ' || d.field, ''), d.message), to_jsonb(d) - 'history'
    from sluice.dead_letter d where d.sync = $1 and d.key = own and d.created_at >= since
    union all
    select d.resolved_at, 'dead_letter', format('dead letter %s %s by %s', d.id, d.resolution, d.resolved_by), jsonb_build_object('id', d.id, 'resolution', d.resolution)
    from sluice.dead_letter d where d.sync = $1 and d.key = own and d.resolved_at >= since
    union all
    select r.held_at, 'held', format('%s held, number %s: %s', r.operation, h.id, h.reason), to_jsonb(h) - 'sample'
    from sluice.held_record r join sluice.held_change h on h.id = r.held_id where r.sync = $1 and r.key = own and r.held_at >= since
    union all
    select r.resolved_at, 'held', format('held change %s: this record %s', r.held_id, r.resolution), jsonb_build_object('id', r.held_id, 'resolution', r.resolution)
    from sluice.held_record r where r.sync = $1 and r.key = own and r.resolved_at >= since
    union all
    select c.created_at, 'conflict', format('%s %s: here %s, in Zoho %s; %s', c.field, case when c.flapping then 'was parked' else 'changed on both sides' end, coalesce(c.local::text, '?'), coalesce(c.zoho::text, '?'), c.reason), to_jsonb(c)
    from sluice.conflict c where c.sync = $1 and c.key = own and c.created_at >= since
    union all
    select c.resolved_at, 'conflict', format('conflict %s over %s resolved by %s: %s', c.id, c.field, c.resolved_by, c.resolution), jsonb_build_object('id', c.id, 'resolution', c.resolution)
    from sluice.conflict c where c.sync = $1 and c.key = own and c.resolved_at >= since;
end $$;

-- What was heard of its Zoho record.
create function sluice.explain_zoho(sync text, own text, zoho_id text, since timestamptz)
returns table (at timestamptz, what text, says text, detail jsonb)
language plpgsql stable set search_path = pg_catalog, sluice, pg_temp as $$
#variable_conflict use_column
begin
  return query
    select v.received_at, 'event', format('webhook %s of %s, %s: %s%s', v.id, v.source, v.verdict, coalesce(v.outcome, 'not decided yet'), coalesce(', ' || v.reason, '')),
           to_jsonb(v) - 'body' - 'headers' - 'query'
    from sluice.event v where v.sync = $1 and v.received_at >= since and $3 = any (v.zoho_ids)
    union all
    select g.seen_at, 'seen', case when g.record is null then 'read from Zoho: it has no such record' when g.complete then 'read from Zoho: waits for its run' else 'seen in a list of Zoho''s: waits for its run' end,
           to_jsonb(g)
    from sluice.sighting g where g.sync = $1 and g.zoho_id = $3
    union all
    select l.gone_at, 'seen', 'Zoho has the record no more', jsonb_build_object('zoho_id', l.zoho_id)
    from sluice.link l where l.sync = $1 and l.zoho_id = $3 and l.gone_at >= since;
end $$;

-- How it stands.
create function sluice.explain_now(sync text, own text)
returns table (at timestamptz, what text, says text, detail jsonb)
language plpgsql stable set search_path = pg_catalog, sluice, pg_temp as $$
#variable_conflict use_column
begin
  return query
    select clock_timestamp(), 'local_write', format('to be written into the row: %s%s', (select string_agg(c, ', ') from jsonb_object_keys(w.columns) c), coalesce('; last refused: ' || w.error, '')),
           to_jsonb(w) #- '{pull,files}'
    from sluice.local_write w where w.sync = $1 and w.key = own
    union all
    select clock_timestamp(), 'now', format('%s%s%s%s', coalesce(r.status, 'nothing is known of this record'), coalesce(', Zoho record ' || l.zoho_id, ''),
             coalesce(', last equal at ' || to_char(l.synced_at at time zone 'UTC', 'YYYY-MM-DD HH24:MI:SS "UTC"'), ''),
             case when l.create_sent_at is not null and l.zoho_id is null then ', a create may be under way or lost' else '' end || coalesce('; last: ' || r.last_error, '')),
           jsonb_build_object('status', r.status, 'zoho_id', l.zoho_id, 'link', to_jsonb(l))
    from (select) one
    left join sluice.record_status r on r.sync = $1 and r.key = own
    left join sluice.link l on l.sync = $1 and l.key = own;
end $$;

revoke all on function sluice.explain(text, text, timestamptz), sluice.explain_zoho_id(text, text, timestamptz), sluice.explain_changes(sluice.sync, text, timestamptz), sluice.explain_work(text, text, text, timestamptz),
  sluice.explain_letters(text, text, timestamptz), sluice.explain_zoho(text, text, text, timestamptz), sluice.explain_now(text, text),
  sluice.why_no_call(text), sluice.key_form(text, text), sluice.image_key(jsonb, text[], text[]) from public;
do $$
declare role_name text;
begin
  foreach role_name in array array['sluice_read', 'sluice_admin'] loop
    if exists (select from pg_roles where rolname = role_name) then
      execute format('grant execute on function sluice.explain(text, text, timestamptz), sluice.explain_zoho_id(text, text, timestamptz), sluice.explain_changes(sluice.sync, text, timestamptz),
        sluice.explain_work(text, text, text, timestamptz), sluice.explain_letters(text, text, timestamptz), sluice.explain_zoho(text, text, text, timestamptz),
        sluice.explain_now(text, text), sluice.why_no_call(text), sluice.key_form(text, text), sluice.image_key(jsonb, text[], text[]) to %I', role_name);
    end if;
  end loop;
end $$;
