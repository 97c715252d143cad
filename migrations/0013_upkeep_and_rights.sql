-- Partitions by day, and who may do what.

-- Makes the days ahead and drops those past their keeping, with whatever else is kept for a time only. A lock that is not there within
-- 200 ms is not waited for, since whatever waits behind it would stall inserts: the next call tries again. One caller at a time.
create function sluice.keep_partitions(p_days_ahead integer, p_days_kept integer) returns void
language plpgsql set search_path = pg_catalog, sluice, pg_temp set lock_timeout = '200ms' as $$
declare
  today constant date := (clock_timestamp() at time zone 'UTC')::date;
  parent text;
  child text;
  day date;
begin
  if not pg_try_advisory_xact_lock(hashtext('sluice.keep_partitions')) then
    return;
  end if;
  foreach parent in array array['attempt', 'job_history', 'change_history'] loop
    for i in 0 .. p_days_ahead loop
      day := today + i;
      child := format('%s_%s', parent, to_char(day, 'YYYYMMDD'));
      continue when to_regclass(format('sluice.%I', child)) is not null;
      begin
        -- made and attached apart, which takes a weaker lock than PARTITION OF
        execute format('create table sluice.%I (like sluice.%I including defaults including constraints including storage)', child, parent);
        execute format('alter table sluice.%I attach partition sluice.%I for values from (%L) to (%L)', parent, child,
          to_char(day, 'YYYY-MM-DD') || ' 00:00:00+00', to_char(day + 1, 'YYYY-MM-DD') || ' 00:00:00+00');
      exception when lock_not_available then
        raise warning 'sluice.% is in use: the partition of % is made later', parent, day;
      end;
    end loop;
    for child in
      -- the case, since the planner may look at names before it knows whose they are
      select c.relname from pg_inherits i join pg_class c on c.oid = i.inhrelid
      where i.inhparent = format('sluice.%I', parent)::regclass
        and case when c.relname ~ '_[0-9]{8}$' then to_date(right(c.relname, 8), 'YYYYMMDD') < today - p_days_kept end
    loop
      begin
        execute format('drop table sluice.%I', child);
      exception when lock_not_available then
        raise warning 'sluice.% is in use: it is dropped later', child;
      end;
    end loop;
  end loop;
  delete from sluice.call_result where answered_at < clock_timestamp() - interval '7 days';
  delete from sluice.dead_letter
  where id = any (array(select id from sluice.dead_letter where resolved_at < clock_timestamp() - make_interval(days => p_days_kept) limit 10000 for update skip locked));
end $$;
select sluice.keep_partitions(7, 90);

revoke all on all tables in schema sluice from public;
revoke all on all functions in schema sluice from public;
revoke all on all procedures in schema sluice from public;

do $$
begin
  if exists (select from pg_roles where rolname = 'sluice_enqueue') then
    grant usage on schema sluice to sluice_enqueue;
    grant insert (kind, args, lane, run_at, max_failures), select (id, created_at) on sluice.job to sluice_enqueue;
    grant execute on function sluice.enqueue(text, jsonb, text, timestamptz, integer) to sluice_enqueue;
    grant execute on function sluice.job_result(bigint) to sluice_enqueue;
  end if;
  if exists (select from pg_roles where rolname = 'sluice_read') then
    grant usage on schema sluice to sluice_read;
    grant select on all tables in schema sluice to sluice_read;
    -- what the view budget_status calls
    grant execute on function sluice.flights_allowed(sluice.budget, timestamptz), sluice.read_meter(sluice.budget, text, timestamptz), sluice.meter_cap(sluice.meter),
      sluice.meter_left(sluice.meter), sluice.meter_kept(sluice.meter, smallint, timestamptz), sluice.meter_asks(sluice.meter), sluice.meter_allows(sluice.meter, timestamptz),
      sluice.meter_says(sluice.meter, timestamptz), sluice.meter_spent_at(sluice.meter, timestamptz), sluice.straddling(sluice.meter, sluice.budget),
      sluice.meter_turned(sluice.meter, text, integer, timestamptz), sluice.next_midnight(text, timestamptz) to sluice_read;
    revoke select on sluice.credential from sluice_read;
    grant execute on function sluice.job_result(bigint), sluice.zoho_id(text, text), sluice.canonical_key(text, jsonb), sluice.lane_name(smallint), sluice.lane_rank(text),
      sluice.changed_columns(text[], oid, bigint, integer), sluice.layout(oid), sluice.changes_of(text, text, timestamptz) to sluice_read;
    grant execute on procedure sluice.wait(text, text, interval) to sluice_read;
  end if;
  if exists (select from pg_roles where rolname = 'sluice_admin') then
    grant usage on schema sluice to sluice_admin;
    grant select on all tables in schema sluice to sluice_admin;
    -- what the view budget_status calls
    grant execute on function sluice.flights_allowed(sluice.budget, timestamptz), sluice.read_meter(sluice.budget, text, timestamptz), sluice.meter_cap(sluice.meter),
      sluice.meter_left(sluice.meter), sluice.meter_kept(sluice.meter, smallint, timestamptz), sluice.meter_asks(sluice.meter), sluice.meter_allows(sluice.meter, timestamptz),
      sluice.meter_says(sluice.meter, timestamptz), sluice.meter_spent_at(sluice.meter, timestamptz), sluice.straddling(sluice.meter, sluice.budget),
      sluice.meter_turned(sluice.meter, text, integer, timestamptz), sluice.next_midnight(text, timestamptz) to sluice_admin;
    revoke select on sluice.credential from sluice_admin;
    grant insert (kind, args, lane, run_at, max_failures) on sluice.job to sluice_admin;
    grant execute on function sluice.enqueue(text, jsonb, text, timestamptz, integer), sluice.job_result(bigint), sluice.zoho_id(text, text), sluice.canonical_key(text, jsonb),
      sluice.lane_name(smallint), sluice.lane_rank(text), sluice.changed_columns(text[], oid, bigint, integer), sluice.layout(oid), sluice.changes_of(text, text, timestamptz), sluice.cancel(bigint), sluice.requeue(bigint), sluice.discard(bigint),
      sluice.pause(text, text, text), sluice.resume(text, text) to sluice_admin;
    grant execute on procedure sluice.wait(text, text, interval) to sluice_admin;
  end if;
end $$;
