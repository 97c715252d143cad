-- What a connection finds out about itself, and the one call that is made without a job.

-- Notes the organisation that Zoho named for a connection whose file names none. Its budgets become the organisation's, with the calls in
-- their windows. Where another connection made the organisation's budget already, this one's products draw from that from now on, and their
-- calls take as many places there: two connections to one organisation share one minute. False: it was known before, or is not published.
-- Locks the connection, then the budgets by id, then places and products: as publishing does.
create function sluice.learn_organization(p_connection text, p_organization_id text) returns boolean
language plpgsql set search_path = pg_catalog, sluice, pg_temp as $$
declare
  own constant text := 'connection:' || p_connection;
  twin record;
  shared sluice.budget;
  spent sluice.meter;
  m sluice.meter;
begin
  update sluice.connection set organization_id = p_organization_id where name = p_connection and organization_id is null and retired_at is null;
  if not found then
    return false;
  end if;
  perform from sluice.budget order by id for update;
  update sluice.budget b set organization_id = p_organization_id
  where b.organization_id = own
    and not exists (select from sluice.budget o where o.data_center = b.data_center and o.organization_id = p_organization_id and o.scope = b.scope);
  for twin in
    select b.id as own_id, o.id as shared_id from sluice.budget b
    join sluice.budget o on o.data_center = b.data_center and o.scope = b.scope and o.organization_id = p_organization_id
    where b.organization_id = own order by o.id
  loop
    with taken as (
      select free_at, row_number() over (order by free_at desc) as n from sluice.place
      where budget_id = twin.own_id and kind = 'window' and free_at > clock_timestamp()
    ), places as (
      select id, row_number() over (order by batch is not null, free_at) as n from sluice.place where budget_id = twin.shared_id and kind = 'window'
    )
    update sluice.place p set free_at = greatest(p.free_at, taken.free_at) from taken join places using (n) where p.id = places.id;
    -- what was used of the day, or of the credits, was used of the organisation's
    select * into shared from sluice.budget where id = twin.shared_id;
    for spent in select x.* from sluice.meter x where x.budget_id = twin.own_id and x.used > 0 loop
      m := sluice.read_meter(shared, spent.product, clock_timestamp());
      if m.budget_id is not null then
        perform sluice.write_meter(sluice.meter_charged(m, spent.used, 4::smallint, clock_timestamp()));
      end if;
    end loop;
    update sluice.meter w set budget_id = twin.shared_id
    where w.budget_id = twin.own_id and not exists (select from sluice.meter o where o.budget_id = twin.shared_id and o.product = w.product);
    update sluice.product set budget_id = twin.shared_id where budget_id = twin.own_id;
  end loop;
  return true;
end $$;

-- Notes what Zoho says of the plan of a connection's product, and what follows from it: calls under way and what a day has. Null: not known, or the
-- configuration says so. `p_in_flight_else`: what holds for those who draw from the same budget and were not asked. A figure that answers' headers
-- gave of a day of calls stands; CRM's header says only what is left.
create function sluice.learn_plan(p_connection text, p_product text, p_plan text, p_users integer, p_in_flight integer, p_in_flight_else integer, p_day integer,
  p_time_zone text) returns boolean
language plpgsql set search_path = pg_catalog, sluice, pg_temp as $$
declare
  b sluice.budget;
  wanted integer;
  now_ timestamptz;
begin
  select u.* into b from sluice.budget u join sluice.product p on p.budget_id = u.id
  where p.connection = p_connection and p.product = p_product for no key update of u;
  if not found then
    return false;
  end if;
  now_ := clock_timestamp();
  -- an unknown zone is not taken
  if b.time_zone is null and exists (select from pg_timezone_names z where z.name = p_time_zone) then
    update sluice.budget set time_zone = p_time_zone where id = b.id;
    update sluice.meter set resets_at = sluice.next_midnight(p_time_zone, now_) where budget_id = b.id and kind = 'calls' and told_by is distinct from 'header';
  end if;
  update sluice.meter set told = p_day, told_by = 'organization'
  where budget_id = b.id and product = p_product and p_day is not null and (kind = 'credits' or told_by is distinct from 'header');
  update sluice.product set plan = p_plan, plan_users = p_users, plan_in_flight = p_in_flight, plan_failure = null, plan_due_at = now_ + interval '7 days'
  where connection = p_connection and product = p_product;
  if p_in_flight is not null then
    select min(coalesce(p.plan_in_flight, p_in_flight_else)) into wanted from sluice.product p where p.budget_id = b.id;
    update sluice.budget set in_flight = wanted where id = b.id and in_flight <> wanted;
    insert into sluice.place (budget_id, kind) select b.id, 'in_flight'
    from generate_series((select count(*) from sluice.place p where p.budget_id = b.id and p.kind = 'in_flight') + 1, wanted);
    -- those in use go later, with publishing's upkeep; until then none of the free ones may be taken beside them
    delete from sluice.place where id in (
      select p.id from sluice.place p where p.budget_id = b.id and p.kind = 'in_flight' and p.free_at <= now_ order by p.free_at
      limit greatest(0, (select count(*) from sluice.place x where x.budget_id = b.id and x.kind = 'in_flight') - wanted));
  end if;
  return true;
end $$;

-- Zoho does not say: the defaults stand, and it is asked again after a day.
create function sluice.plan_unsaid(p_connection text, p_product text, p_why text) returns void
language sql set search_path = pg_catalog, sluice, pg_temp as $$
  update sluice.product set plan_failure = p_why, plan_due_at = clock_timestamp() + interval '1 day' where connection = p_connection and product = p_product
$$;

-- A grant for a call that no job asks for: `sluice check` wants to know whether Zoho lets us in. It is a batch without records, so that lease,
-- settle and rescue hold for it as for any other; pauses do not, since a paused connection is the one to ask about. Null: nothing is
-- published under that name.
create function sluice.grant_alone(p_worker text, p_connection text, p_product text, p_lease interval, p_timeout interval) returns jsonb
language plpgsql set search_path = pg_catalog, sluice, pg_temp set enable_seqscan = off set enable_bitmapscan = off set jit = off as $$
declare
  budget sluice.budget;
  places record;
  m sluice.meter;
  shape_id_ bigint;
  token_ bigint;
  now_ timestamptz;
begin
  select b.* into budget from sluice.budget b join sluice.product p on p.budget_id = b.id
  where p.connection = p_connection and p.product = p_product for no key update of b;
  if not found then
    return null;
  end if;
  now_ := clock_timestamp();
  select h.id into strict shape_id_ from sluice.shape h where h.connection = p_connection and h.product = p_product and h.kind = 'call' and h.sync = '';
  m := sluice.read_meter(budget, p_product, now_);
  if m.blocked_until > now_ or sluice.meter_left(m) < 1 then
    return jsonb_build_object('wait_ms', 60000);
  end if;
  places := sluice.take_places(budget, now_, false, true, false);
  if places.place_id is null then
    return jsonb_build_object('wait_ms', greatest(0, ceil(extract(epoch from places.ready_at - now_) * 1000))::bigint);
  end if;
  token_ := sluice.open_batch(budget, places.place_id, places.flight_id, null, shape_id_, 0::smallint, 0, p_worker, p_lease, p_timeout, false, now_);
  return jsonb_build_object('token', token_, 'place', places.place_id, 'send_by_ms', 2000);
end $$;

revoke all on function sluice.learn_organization(text, text), sluice.learn_plan(text, text, text, integer, integer, integer, integer, text), sluice.plan_unsaid(text, text, text), sluice.grant_alone(text, text, text, interval, interval) from public;
