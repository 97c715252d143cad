-- What a connection finds out about itself, and the one call that is made without a job.

-- Notes the organisation that Zoho named for a connection whose file names none. Its budgets become the organisation's, with the calls in
-- their windows. Where another connection made the organisation's budget already, this one's products draw from that from now on, and their
-- calls take as many places there: two connections to one organisation share one minute. False: it was known before, or is not published.
-- Locks the connection, then the budgets by id, then places and products: as publishing does.
create function sluice.learn_organization(p_connection text, p_organization_id text) returns boolean
language plpgsql set search_path = pg_catalog, sluice as $$
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

-- A grant for a call that no job asks for: `sluice check` wants to know whether Zoho lets us in. It is a batch without records, so that lease,
-- settle and rescue hold for it as for any other; pauses do not, since a paused connection is the one to ask about. Null: nothing is
-- published under that name.
create function sluice.grant_alone(p_worker text, p_connection text, p_product text, p_lease interval, p_timeout interval) returns jsonb
language plpgsql set search_path = pg_catalog, sluice set enable_seqscan = off set enable_bitmapscan = off set jit = off as $$
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

revoke all on function sluice.learn_organization(text, text), sluice.grant_alone(text, text, text, interval, interval) from public;
